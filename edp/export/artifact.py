"""Artifacts: a predictor as one program that runs without this project."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from edp import __version__, data, metrics
from edp.errors import InputError
from edp.export import checks, web
from edp.export import targets as runtimes
from edp.export.simplify import simplify
from edp.runtime import storage

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "tpu")
PROBS = "probs"

_MEANINGS = {
    PROBS: "class probabilities: the members' mean at the temperature given here",
    "max_probability": "1 - the largest probability, without the temperature",
    "predictive_entropy": "entropy of the probabilities, without the temperature, in "
    "nats: all uncertainty",
    "expected_entropy": "the part of the entropy that is the data's",
    "energy": "-log of the sum of exponentials of the members' mean logits",
    "max_logit": "-1 times the largest of the members' mean logits",
    "mutual_information": "the part of the entropy that members disagree about",
    "pairwise_kl": "mean divergence of two members, in nats",
}

# Keys of the metadata that an export measures.
_MEASURED = {"checks", "target_prediction_sets", "target_sha256", "temperature_factors"}
# Keys of the metadata that concern the targets other than 'jax'.
_OF_OTHERS = {"targets", "precision", "web_runtime"}
# Key that earlier versions wrote for the targets other than 'jax'.
_EARLIER = {"temperature_factor"}

# (variables, x [B, H, W, C] in [0, 1]) -> probabilities [S, B, K].
ProbsFn = Callable[[Any, jax.Array], jax.Array]
# (variables, x) -> {name: scores [B]}.
UncertaintyFn = Callable[[Any, jax.Array], dict[str, jax.Array]]
# images uint8 [B, H, W, C] -> {name: [B, ...]}.
_Program = Callable[[jax.Array], dict[str, jax.Array]]


def write_artifact(
    program: _Program,
    image_shape: Sequence[int],
    directory: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    details: Mapping[str, Any] | None = None,
    targets: Sequence[str] = (runtimes.JAX,),
    precision: str = "float32",
    examples: runtimes.Examples | None = None,
    max_nll_increase: float | None = None,
    batch_size: int | None = None,
    web_runtime: str = web.RUNTIME,
) -> bool:
    """Writes a program as an artifact, atomically.

    An artifact is a directory of `model.jax` (the program as StableHLO from
    `jax.export`, with the weights inside), `metadata.json`, and `load.py`, which
    loads the two; and the files of further targets. Each is run, by the program beside
    it, on held-out or random images; `checks` in the metadata compares it with JAX.

    Args:
      program: from `create_program`.
      image_shape: (H, W, C).
      directory: the directory to create.
      classes: K names.
      details: further metadata, as JSON values. `preparation` describes how image
        files become inputs; by default the whole image is resized.
      targets: names in `targets.TARGETS`; 'jax' is written always.
      precision: one of `precision.PRECISIONS`, of the targets that have it; 'jax' is
        in float32 or bfloat16.
      examples: images to check and calibrate with; bfloat16 and int8 need them.
      max_nll_increase: largest accepted increase of the NLL on the held-out images;
        None: any.
      batch_size: the only accepted batch size; None: any.
      web_runtime: address of the files of onnxruntime-web, for the target 'web'.

    Returns:
      Whether it was written; False where the same artifact, with the same weights,
      is there already, or one with further targets than 'jax' alone.

    Raises:
      InputError: if `directory` holds anything else, such as other weights, there are
        not K names, a package is missing, the program cannot be converted, a float32
        target differs from JAX by more than `checks.TOLERANCE`, the NLL increases by
        more than accepted, or prediction sets lack the images to fit them again.
    """
    directory = pathlib.Path(directory)
    storage.check_writable(directory, "out")
    if "web" in targets and batch_size not in (None, 1):
        raise InputError(
            f"batch_size={batch_size} does not go with the target 'web', whose page "
            "classifies one image at a time; accepted: 1, or None for any"
        )
    runtimes.check_settings(targets, precision)
    if precision in ("bfloat16", "int8"):
        runtimes.required(examples, precision)
    if max_nll_increase is not None and examples is None:
        raise InputError(
            f"max_nll_increase={max_nll_increase:g} needs labelled images and another "
            "target than jax; accepted: None without them"
        )
    if not web_runtime.endswith("/"):
        raise InputError(
            f"web_runtime={web_runtime!r} is no directory; accepted: an address that "
            "ends with /"
        )
    outputs = jax.eval_shape(program, np.zeros((1, *image_shape), np.uint8))
    if len(classes) != outputs[PROBS].shape[-1]:
        raise InputError(
            f"classes has {len(classes)} names; accepted: "
            f"{outputs[PROBS].shape[-1]}, as many as the program has probabilities"
        )
    wanted = [name for name in runtimes.TARGETS if name in (*targets, runtimes.JAX)]
    metadata = _metadata(image_shape, outputs, classes, batch_size)
    metadata |= {"targets": wanted, "precision": precision} | dict(details or {})
    if "web" in wanted:
        metadata["web_runtime"] = web_runtime
    checks.check_calibration(metadata, examples)
    source = runtimes.Source(program, metadata, precision, examples, web_runtime)
    model = serialize(source.for_jax, image_shape, batch_size)
    metadata["sha256"] = {"model.jax": _digest(model)}
    if directory.exists() and any(directory.iterdir()):
        found = _refuse_others(directory, json.loads(_as_json(metadata)))
        measured = found.get("checks", {})
        checks.refuse_differences(wanted, precision, measured, max_nll_increase)
        return False
    files = {"model.jax": model}
    for name in wanted:
        target = runtimes.TARGETS[name]
        files |= target.write(source)
        if target.loader is not None:
            files[f"{target.loader}.py"] = runtimes.loader_source(target.loader)
    checks.check_conversion(source, examples)
    if source.temperature_factors:
        metadata["temperature_factors"] = source.temperature_factors
    float32 = None if source.for_jax is program else jax.jit(program)
    options = (wanted, precision, metadata, examples, max_nll_increase, float32)

    def check(place: pathlib.Path) -> None:
        if len(wanted) > 1 or examples is not None:
            metadata.update(checks.check(place, *options))
        others = [name for name in files if name != "model.jax"]
        metadata["target_sha256"] = {
            n: _digest((place / n).read_bytes()) for n in others
        }
        storage.write_json(place / "metadata.json", metadata)

    _write_directory(directory, files | {"metadata.json": _as_json(metadata)}, check)
    return True


def _refuse_others(directory: pathlib.Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns the metadata of the same artifact in a directory.

    Raises:
      InputError: if the directory holds anything else.
    """
    ignored = _MEASURED
    if metadata["targets"] == [runtimes.JAX]:  # which is part of every artifact
        ignored = _MEASURED | _OF_OTHERS | _EARLIER
    path, model = directory / "metadata.json", directory / "model.jax"
    why = "no artifact"
    if path.exists() and model.exists():
        found = storage.read_mapping(path)
        if "bfloat16" in (found.get("precision"), metadata["precision"]):
            ignored = ignored - {"precision"}  # which is then of 'jax' too
        keys = found.keys() | metadata
        different = sorted(k for k in keys - ignored if found.get(k) != metadata.get(k))
        digests = dict(metadata["sha256"])
        if metadata["targets"] != [runtimes.JAX]:
            digests |= found.get("target_sha256", {})
        damaged = [
            name
            for name, digest in digests.items()
            if not (directory / name).exists()
            or _digest((directory / name).read_bytes()) != digest
        ]
        if different == ["sha256"]:
            why = "the same predictor with another program or weights"
        elif different:
            why = f"an artifact with another {', '.join(different)}"
        elif damaged:
            why = f"this artifact with a damaged {', '.join(damaged)}"
        else:
            return found
    raise InputError(
        f"out={str(directory)!r} already holds something else ({why}); accepted: an "
        "empty or missing directory. Remove this one, or give another"
    )


def create_program(
    probs_fn: ProbsFn, scores_fn: UncertaintyFn, variables: Any, temperature: float
) -> _Program:
    """Creates the function to export.

    Args:
      probs_fn: (variables, x [B, H, W, C] in [0, 1]) -> probabilities [S, B, K].
      scores_fn: (variables, x) -> scores of uncertainty {name: [B]}.
      variables: the predictor's variables; they become constants.
      temperature: T.

    Returns:
      images uint8 [B, H, W, C] -> `probs` [B, K], softmax(log(p + 1e-12) / T) of the
      members' mean p, and the scores, all float32. The network is computed once, with
      batch normalisation folded into its weights; see `simplify`.
    """
    constants = jax.tree.map(_constant, variables)

    def program(images):
        x = data.to_float(images)
        mean = probs_fn(constants, x).astype(jnp.float32).mean(axis=0)
        probs = jax.nn.softmax(jnp.log(mean + metrics.EPSILON) / temperature, axis=-1)
        return {PROBS: probs, **scores_fn(constants, x)}

    return simplify(program)


def _constant(leaf: Any) -> Any:
    """A plain array as a NumPy array; typed PRNG keys and other leaves as they are."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return leaf
    return np.asarray(leaf)


def serialize(
    program: Callable[..., Any],
    image_shape: Sequence[int],
    batch_size: int | None = None,
) -> bytes:
    """Serialises a function of uint8 images [B, H, W, C] with `jax.export`.

    B is `batch_size`, or any where that is None.

    Equal programs give equal bytes: the positions of their operations in source files
    are left out.

    Raises:
      InputError: if the function accepts certain batch sizes only.
      Exception: as the program raises it for a batch of two.
    """
    # Only where a network is written: reading one needs none of what models are of.
    from edp.models import native

    export = jax.export.export(jax.jit(program), platforms=PLATFORMS)

    def export_for(size):
        with native.disabled(), _without_source_positions():
            return export(jax.ShapeDtypeStruct((size, *image_shape), np.uint8))

    if batch_size is not None:
        return bytes(export_for(batch_size).serialize())
    (any_size,) = jax.export.symbolic_shape("batch")
    try:
        exported = export_for(any_size)
    except Exception as error:  # A network can fail on a symbolic size in any way.
        export_for(2)  # Raises faults that are not those of a symbolic size.
        raise InputError(
            f"the program cannot take batches of any size: {error}; accepted: "
            "functions that take the size from x.shape[0], not len(x), and do not "
            "depend on it otherwise"
        ) from error
    return bytes(exported.serialize())


@contextlib.contextmanager
def _without_source_positions() -> Iterator[None]:
    """Inside, JAX lowers programs without the file names and lines of their calls."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _metadata(
    image_shape: Sequence[int],
    outputs: Mapping[str, jax.ShapeDtypeStruct],
    classes: Sequence[str],
    batch_size: int | None,
) -> dict[str, Any]:
    """Returns the metadata that every program has."""
    size = "batch" if batch_size is None else batch_size
    return {
        "format": FORMAT,
        "classes": list(map(str, classes)),
        "input": {"shape": [size, *image_shape], "dtype": "uint8"},
        # How image files become inputs: see edp/export/classify_files.py.
        "preparation": {"resize": "whole", "downsample": 1},
        "outputs": {
            key: {
                "shape": [size, *output.shape[1:]],
                "dtype": str(output.dtype),
                "meaning": _MEANINGS.get(key, ""),
            }
            for key, output in sorted(outputs.items(), key=lambda o: o[0] != PROBS)
        },
        "platforms": list(PLATFORMS),
        "versions": {
            "edp": __version__,
            "jax": jax.__version__,
            "calling_convention": (
                jax.export.maximum_supported_calling_convention_version
            ),
        },
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _as_json(metadata: Mapping[str, Any]) -> bytes:
    return json.dumps(metadata, indent=2, allow_nan=False).encode()


def _write_directory(
    directory: pathlib.Path,
    files: Mapping[str, bytes],
    check: Callable[[pathlib.Path], None],
) -> None:
    """Writes files, and renames their directory if `check` of it raises nothing."""
    directory = directory.absolute()
    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    try:
        for name, content in files.items():
            storage.write_bytes(temporary / name, content)
        check(temporary)
        os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
