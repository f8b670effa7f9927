"""An exported program as ONNX, for runtimes other than JAX's."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.export
import numpy as np

from edp.errors import InputError

# The most by which ONNX Runtime may differ in any output.
TOLERANCE = 1e-4
_CHECKED = 7  # images


def convert(
    program: Callable[[jax.Array], Mapping[str, jax.Array]],
    image_shape: Sequence[int],
    names: Sequence[str],
) -> bytes:
    """A function of images [B, H, W, C], any B, as ONNX that was seen to do the same.

    Its input is `images`, uint8; on random ones, ONNX Runtime and JAX are compared.
    What draws random numbers, the same for each input, is not converted.

    Args:
      program: as `export.create_program` makes it.
      image_shape: (H, W, C).
      names: of its outputs.

    Raises:
      InputError: without the packages of the extra `onnx`, for a program that cannot
        be converted, or if an output is more than `TOLERANCE` away.
    """
    try:
        import onnxruntime
        from jax2onnx import to_onnx

        from edp.models import native
    except ImportError as error:
        raise InputError(
            f"ONNX needs further packages ({error}); accepted: pip install "
            "jax2onnx onnxruntime"
        ) from error

    def outputs(images):
        found = program(images)
        return tuple(found[name] for name in names)

    (size,) = jax.export.symbolic_shape("batch")
    try:
        with native.disabled():
            model = to_onnx(
                outputs,
                [jax.ShapeDtypeStruct((size, *image_shape), np.uint8)],
                input_names=["images"],
                output_names=list(names),
            ).SerializeToString()
        session = onnxruntime.InferenceSession(
            model, providers=["CPUExecutionProvider"]
        )
        shape = (_CHECKED, *image_shape)
        images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
        given = session.run(list(names), {"images": images})
    except Exception as error:  # The converter fails in ways of its own.
        raise InputError(f"the program cannot be converted to ONNX: {error}") from error
    wanted = jax.jit(outputs)(images)
    for name, one, other in zip(names, given, wanted, strict=True):
        difference = float(np.abs(one - np.asarray(other)).max())
        if not difference <= TOLERANCE:
            raise InputError(
                f"ONNX Runtime differs from JAX by {difference:.1e} in {name}; "
                f"accepted: up to {TOLERANCE}"
            )
    return model
