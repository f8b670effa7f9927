r"""Times the exported predictors of runs in every runtime, with what they keep.

    python -m benchmarks.deploy --workdir=runs/digits --predictors=best,teachers \
        --workdir=runs/cifar --predictors=single_none
    python -m benchmarks.deploy                 # random networks, beside PyTorch

Exports each predictor at each precision, and prints a table of
accuracy, NLL and ECE on the test images, mean mutual information (the disagreement of
members), the latency of one image and the throughput of 64, and the size on disk.
Runtimes that are not installed are left out. All contenders of one predictor take
turns; times are medians. Without --workdir, a ResNet-20 and a BatchEnsemble of four are
timed with random weights, for images of 32x32x3, beside the same networks in PyTorch
(eager, TorchScript, `torch.compile`), which return their probabilities alone.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.util
import json
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks import timing
from edp import data, export, metrics, models
from edp.errors import InputError
from edp.experiment import open_run
from edp.export import from_run, precision, targets
from edp.metrics import uncertainty
from launch.cli import arguments

_WORKDIRS = flags.DEFINE_multi_string(
    "workdir", [], "An evaluated run; can be repeated. Default: random networks."
)
_PREDICTORS = flags.DEFINE_multi_string(
    "predictors",
    [],
    "Students, 'best' or 'teachers', separated by commas; one list for each --workdir, "
    "in the same order. Default: best,teachers.",
)
_PRECISIONS = flags.DEFINE_list("precisions", list(precision.PRECISIONS), "To export.")
_OUT = flags.DEFINE_string(
    "out",
    None,
    "Directory that keeps the exports of runs; what is there is not exported again. "
    "Default: a temporary one.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 20, "Turns of each contender.", 1)
_SECONDS = 0.05  # of one turn, at least
_LARGE = 64
_EVALUATED = 500  # images in a batch of the evaluation

_HEADER = (
    "| Predictor | Runtime | Precision | Accuracy | NLL | ECE | Mutual information | "
    f"ms at batch 1 | images/s at batch {_LARGE} | kB |\n" + "| --- " * 10 + "|"
)

_RANDOM_HEADER = (
    "| Network | Runtime | Precision | Difference | ms at batch 1 | "
    f"images/s at batch {_LARGE} |\n" + "| --- " * 6 + "|"
)


def time_all(
    calls: Mapping[tuple[str, str], Callable[[np.ndarray], Mapping[str, Any]]],
    images: np.ndarray,
) -> dict[tuple[str, str], float]:
    """Returns the median seconds of a call for images; the contenders take turns."""

    def contender(call):
        def run(number):
            for _ in range(number):
                found = call(images)
            return float(found["probs"].sum())

        return timing.Contender({}, run, 1, {})

    budget = timing.Budget(_ROUNDS.value, _SECONDS, repeats=0)
    rounds, _ = timing.alternate([contender(call) for call in calls.values()], budget)
    medians = np.median([one.seconds for one in rounds], axis=0)
    return dict(zip(calls, medians.tolist(), strict=True))


def _installed() -> list[str]:
    return [
        name
        for name, target in targets.TARGETS.items()
        if name != "web"
        and all(importlib.util.find_spec(package) for package in target.packages)
    ]


def _size(directory: pathlib.Path, name: str) -> float:
    suffixes = {"jax": (".jax",), "onnx": (".onnx",), "openvino": (".xml", ".bin")}
    suffixes["litert"] = (".tflite",)
    files = [p for p in directory.iterdir() if p.suffix in suffixes[name]]
    return sum(path.stat().st_size for path in files) / 1000


def _rows(name: str, run: Any, scratch: pathlib.Path) -> list[str]:
    """Returns the lines of one predictor of a run."""
    examples = from_run.load_examples(run, held_out=None)
    calls, sizes = {}, {}
    for reduced in _PRECISIONS.value:
        wanted = [
            one for one in _installed() if reduced in targets.TARGETS[one].precisions
        ]
        if not wanted:
            continue
        place = scratch / f"{run.workdir.name}-{name}-{reduced}"
        from_run.export_predictor(
            run, name, place, targets=wanted, precision=reduced, examples=examples
        )
        for target in wanted:
            classify = targets.load(target, place)
            calls[target, reduced] = _on_host(classify)
            sizes[target, reduced] = _size(place, target)
    images, labels = examples.held_out
    single = time_all(calls, images[:1])
    several = time_all(calls, images[:_LARGE])
    lines = []
    for key, call in calls.items():
        found = _outputs(call, images)
        probs = found["probs"]
        mutual = found.get("mutual_information")
        cells = [
            f"{run.workdir.name}: {name}",
            *key,
            f"{metrics.accuracy(probs, labels):.4f}",
            f"{metrics.nll(probs, labels):.4f}",
            f"{metrics.ece(probs, labels):.4f}",
            "–" if mutual is None else f"{mutual.mean():.4f}",
            f"{1000 * single[key]:.3f}",
            f"{_LARGE / several[key]:,.0f}",
            f"{sizes[key]:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _outputs(
    call: Callable[[np.ndarray], Mapping[str, Any]], images: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the outputs for images in batches, as float64."""
    batches = np.array_split(images, -(-len(images) // _EVALUATED))
    parts = [call(batch) for batch in batches]
    return {
        key: np.concatenate([np.asarray(part[key], np.float64) for part in parts])
        for key in parts[0]
    }


def _on_host(classify: Callable[..., Any]) -> Callable[[np.ndarray], dict[str, Any]]:
    def call(images):
        return {key: np.asarray(value) for key, value in classify(images).items()}

    return call


def _random_rows(num_members: int | None, scratch: pathlib.Path) -> list[str]:
    """Returns the lines of a ResNet-20 with random weights."""
    model = models.ResNet(
        num_classes=10,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        depth=20,
        num_members=num_members,
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_LARGE, 32, 32, 3), np.uint8)
    variables = jax.jit(lambda key: model.init(key, images[:1] / 255, train=False))(
        jax.random.key(0)
    )

    def logits(variables, x):
        found = model.apply(variables, x, train=False)
        return found if num_members else found[None]

    program = export.create_program(
        lambda variables, x: jax.nn.softmax(logits(variables, x)),
        lambda variables, x: uncertainty.all_scores(logits(variables, x)),
        variables,
        1.5,
    )
    split = data.Split(images, np.arange(_LARGE) % 10)
    calls = {}
    for reduced in _PRECISIONS.value:
        wanted = [
            one for one in _installed() if reduced in targets.TARGETS[one].precisions
        ]
        if not wanted:
            continue
        place = scratch / f"{num_members}-{reduced}"
        export.write_artifact(
            program,
            (32, 32, 3),
            place,
            classes=list("0123456789"),
            targets=wanted,
            precision=reduced,
            examples=export.Examples(split, split, images),
        )
        for target in wanted:
            calls[target, reduced] = _on_host(targets.load(target, place))
    if importlib.util.find_spec("torch"):
        calls |= _torch_calls(variables, num_members)
    single = time_all(calls, images[:1])
    several = time_all(calls, images)
    reference = next(iter(calls.values()))(images)["probs"]
    lines = []
    for key, call in calls.items():
        cells = [
            "ResNet-20" if num_members is None else f"BatchEnsemble-{num_members}",
            *key,
            f"{np.abs(call(images)['probs'] - reference).max():.0e}",
            f"{1000 * single[key]:.2f}",
            f"{_LARGE / several[key]:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _torch_calls(variables: Any, num_members: int | None) -> dict[tuple[str, str], Any]:
    """Returns PyTorch's contenders, with the temperature of `_random_rows`."""
    import torch

    from benchmarks import peer_models

    settings = {"name": "resnet", "depth": 20, "width": 16}
    network = peer_models.Network(settings, 10, [0.5] * 3, [0.25] * 3, num_members)
    peer_models.load_variables(network, jax.device_get(variables)).eval()

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            x = images.permute(0, 3, 1, 2).float() / 255
            probs = torch.softmax(self.network(x), -1)
            mean = probs.mean(0) if probs.ndim == 3 else probs
            return torch.softmax(torch.log(mean + metrics.EPSILON) / 1.5, -1)

    classifier = Classifier().eval()

    def on_host(function):
        def call(images):
            with torch.inference_mode():
                return {"probs": function(torch.from_numpy(images)).numpy()}

        return call

    def scripted(images):
        # A trace keeps the batch size where members are tiled: one for each.
        if len(images) not in traces:
            traced = torch.jit.trace(classifier, images)
            traces[len(images)] = torch.jit.freeze(traced)
        return traces[len(images)](images)

    traces: dict[int, Any] = {}
    compiled = torch.compile(classifier)
    functions = {"eager": classifier, "TorchScript": scripted, "compile": compiled}
    return {(f"torch {k}", "float32"): on_host(f) for k, f in functions.items()}


def main(argv: list[str]) -> None:
    del argv
    with arguments.bad_input_in_a_line():
        if not _WORKDIRS.value:
            print(_RANDOM_HEADER)
            with tempfile.TemporaryDirectory() as scratch:
                for num_members in (None, 4):
                    for line in _random_rows(num_members, pathlib.Path(scratch)):
                        print(line, flush=True)
            return
        if unknown := set(_PRECISIONS.value) - {*precision.PRECISIONS}:
            raise InputError(
                f"precisions={','.join(unknown)} is not known; accepted: "
                f"{', '.join(precision.PRECISIONS)}"
            )
        chosen = _PREDICTORS.value or ["best,teachers"] * len(_WORKDIRS.value)
        if len(chosen) != len(_WORKDIRS.value):
            raise InputError(
                f"predictors is given {len(chosen)} times; accepted: "
                f"{len(_WORKDIRS.value)} times, as workdir, or not at all"
            )
        print(json.dumps({"targets": _installed(), "rounds": _ROUNDS.value}))
        print(_HEADER)
        for workdir, names in zip(_WORKDIRS.value, chosen, strict=True):
            run = open_run.open_run(pathlib.Path(workdir))
            for name in names.split(","):
                one = from_run.best_student(run) if name == "best" else name
                with tempfile.TemporaryDirectory() as scratch:
                    for line in _rows(one, run, pathlib.Path(_OUT.value or scratch)):
                        print(line, flush=True)


if __name__ == "__main__":
    app.run(main)
