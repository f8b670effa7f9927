"""Targets of an export: which files each runtime needs, and what writes them."""

import functools
import importlib
import inspect
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from edp import data, metrics
from edp.errors import InputError
from edp.export import (
    bfloat16,
    loader,
    onnx_graph,
    precision,
    to_litert,
    to_openvino,
    web,
)

JAX = "jax"


class Examples(NamedTuple):
    """Images that targets are checked and calibrated with.

    Attributes:
      held_out: test images and labels; every target is compared on them.
      validation: images and labels that the temperature is refitted on.
      train: training images uint8 [N, H, W, C], for the ranges of int8.
      calibration: images and labels kept apart for conformal prediction sets, whose
        thresholds are fitted on them for every target; None: there are none.
    """

    held_out: data.Split
    validation: data.Split
    train: np.ndarray
    calibration: data.Split | None = None


class Source:
    """What the files of all targets are written from.

    Attributes:
      metadata: the contents of `metadata.json`.
      web_runtime: address of the files of onnxruntime-web.
      temperature_factors: by target, the temperature of a refitted model relative to
        that of the program; set when the target is written.
    """

    def __init__(
        self,
        program: Callable[[jax.Array], Mapping[str, jax.Array]],
        metadata: Mapping[str, Any],
        wanted: str,
        examples: Examples | None,
        web_runtime: str,
    ):
        self.program = program
        self.metadata, self.precision = metadata, wanted
        self._examples = examples
        self.web_runtime = web_runtime
        self.temperature_factors: dict[str, float] = {}

    @functools.cached_property
    def float32(self) -> bytes:
        """The program as ONNX in float32."""
        _, *shape = self.metadata["input"]["shape"]
        names = list(self.metadata["outputs"])
        return onnx_graph.convert(self.program, shape, names, self.fixed)

    @functools.cached_property
    def onnx(self) -> bytes:
        """The program as ONNX at the precision."""
        if self.precision == precision.FLOAT32:
            return self.float32
        if self.precision == "float16":
            return precision.to_float16(self.float32)
        model = precision.to_int8(self.float32, self.examples.train, self.fixed)
        model, factor = precision.refit_temperature(
            model,
            lambda images: onnx_graph.run(model, images, "probs", self.fixed),
            *self.examples.validation,
        )
        users = {"onnx", "openvino", "web"}.intersection(self.metadata["targets"])
        self.temperature_factors |= dict.fromkeys(sorted(users), factor)
        return model

    @functools.cached_property
    def for_jax(self) -> Callable[[jax.Array], Mapping[str, jax.Array]]:
        """The program of the target 'jax': that given, but for bfloat16."""
        if self.precision != precision.BFLOAT16:
            return self.program
        from edp.models import native

        images, labels = self.examples.validation
        lowered = bfloat16.to_bfloat16(self.program)
        with native.disabled():
            run = jax.jit(lowered)
            batches = onnx_graph.batches(images[:], self.fixed)
            parts = [run(batch)["probs"] for batch in batches]
        probs = np.concatenate(parts)[: len(labels)]
        factor = metrics.fit_temperature(probs, labels).temperature
        self.temperature_factors[JAX] = factor
        return precision.with_temperature(lowered, factor)

    @property
    def examples(self) -> Examples:
        """The images; see `required`."""
        return required(self._examples, self.precision)

    @property
    def fixed(self) -> int | None:
        """The only batch size; None: any."""
        size = self.metadata["input"]["shape"][0]
        return size if isinstance(size, int) else None


class Target(NamedTuple):
    """One runtime.

    Attributes:
      packages: what must be installed for its export, by the names of imports.
      write: Source -> contents of its files by name.
      loader: the module that is written beside them and loads them; None where no
        Python program does.
      precisions: those it can be exported at. 'jax' is in float32 beside others that
        it cannot.
    """

    packages: tuple[str, ...]
    write: Callable[[Source], Mapping[str, bytes]]
    loader: str | None
    precisions: tuple[str, ...] = (precision.FLOAT32, "float16", "int8")


_APART = (
    ", best into an environment of its own, since jax2onnx brings an older "
    "orbax-checkpoint, and TensorFlow is large"
)


def _onnx(source: Source) -> dict[str, bytes]:
    return {"model.onnx": source.onnx}


def _openvino(source: Source) -> dict[str, bytes]:
    half = source.precision == "float16"  # of the weights, computed with in float32
    shape = tuple(source.metadata["input"]["shape"][1:])
    if source.precision != precision.BFLOAT16:
        model = source.float32 if half else source.onnx
        return to_openvino.convert(model, shape, source.fixed, half_weights=half)
    files = to_openvino.convert(source.float32, shape, source.fixed)
    model, factor = precision.refit_temperature(
        source.float32,
        lambda images: to_openvino.run(files, images, source.metadata)["probs"],
        *source.examples.validation,
    )
    source.temperature_factors["openvino"] = factor
    return to_openvino.convert(model, shape, source.fixed)


def _web(source: Source) -> dict[str, bytes]:
    return web.files(source.onnx, source.metadata, source.web_runtime)


def _litert(source: Source) -> dict[str, bytes]:
    _, *shape = source.metadata["input"]["shape"]
    options = (shape, list(source.metadata["outputs"]), source.fixed, source.precision)
    model = to_litert.convert(source.program, *options)
    if source.precision == "int8":
        images, labels = source.examples.validation
        probs = to_litert.run(model, images[:], "probs", source.metadata)
        factor = metrics.fit_temperature(probs, labels).temperature
        source.temperature_factors["litert"] = factor
        program = precision.with_temperature(source.program, factor)
        model = to_litert.convert(program, *options)
    return {to_litert.FILE: model}


_CONVERTER = ("jax2onnx", "onnxruntime")
TARGETS = {
    JAX: Target((), lambda source: {}, "load", (precision.FLOAT32, precision.BFLOAT16)),
    "onnx": Target(_CONVERTER, _onnx, "load_onnx"),
    "openvino": Target(
        (*_CONVERTER, "openvino"), _openvino, "load_openvino", precision.PRECISIONS
    ),
    "web": Target(_CONVERTER, _web, None),
    "litert": Target(("tensorflow", "ai_edge_litert"), _litert, "load_litert"),
}


def check_settings(wanted: Sequence[str], reduced: str) -> None:
    """Checks the settings of an export before any work.

    Args:
      wanted: names of targets.
      reduced: the precision.

    Raises:
      InputError: for unknown ones, and for packages that are missing.
    """
    for name in wanted:
        if name not in TARGETS:
            raise InputError(
                f"to={name!r} is no target; accepted: {', '.join(TARGETS)}"
            )
    if reduced not in precision.PRECISIONS:
        raise InputError(
            f"precision={reduced!r} is not known; accepted: "
            f"{', '.join(precision.PRECISIONS)}"
        )
    others = [name for name in wanted if name != JAX]
    able = [name for name in TARGETS if reduced in TARGETS[name].precisions]
    if not others and JAX not in able:
        raise InputError(
            f"precision={reduced!r} needs another target than jax, which stays in "
            f"float32; accepted: to={','.join(able)}"
        )
    for name in others:
        if name not in able:
            raise InputError(
                f"precision={reduced!r} is not possible with to={name!r}; accepted: "
                f"precision={', '.join(TARGETS[name].precisions)}; or "
                f"to={','.join(able)}"
            )
    needed = [package for name in others for package in TARGETS[name].packages]
    if reduced != precision.FLOAT32 and "jax2onnx" in needed:
        needed.append("onnx")
    for package in needed:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"to={','.join(others)} needs further packages ({error}); accepted: "
                f"pip install {' '.join(dict.fromkeys(needed))}{_APART}"
            ) from error
    if reduced == precision.BFLOAT16 and "openvino" in others:
        to_openvino.check_bfloat16()


def required(examples: Examples | None, reduced: str) -> Examples:
    """Returns the images that a precision is calibrated with.

    Raises:
      InputError: if there are none.
    """
    if examples is None:
        raise InputError(
            f"precision={reduced!r} needs images to calibrate with, and examples=None; "
            "accepted: export.Examples"
        )
    return examples


def loader_source(name: str) -> bytes:
    """Returns the program that loads a target, which needs only its runtime."""
    path = pathlib.Path(loader.__file__).with_name(f"{name}.py")
    if name == "load":
        return pathlib.Path(loader.__file__).read_bytes()
    functions = (loader.prediction_sets, loader.set_threshold)
    sources = [inspect.getsource(function) for function in functions]
    parts = [path.read_text(encoding="utf-8"), *sources]
    return "\n\n".join(parts).encode()


def load(name: str, directory: pathlib.Path) -> Callable[..., Mapping[str, Any]]:
    """Returns the classifier of a target in a directory, by the program beside it."""
    module = TARGETS[name].loader or "load_onnx"
    program = importlib.import_module(
        loader.__name__ if module == "load" else f"{__package__}.{module}"
    )
    place = directory / name if TARGETS[name].loader is None else directory
    return program.load(place)[0]
