"""Results of runs with faults, compared with those of an undisturbed run."""

import json
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from edp.runtime import checkpoint

STUDENT = "single_none"
_TIMES = ("train_seconds", "checkpoint_seconds")


class Tally:
    """Outcome of one kind of fault.

    Attributes:
      kind: the kind of fault.
      runs: number of runs completed and compared.
      faults: number of faults injected.
      lost: a line for each result lost.
    """

    def __init__(self, kind: str):
        self.kind, self.runs, self.faults = kind, 0, 0
        self.lost: list[str] = []
        self._started = time.monotonic()

    def compare(self, name: str, found: Any, expected: Any) -> None:
        """Counts a run, and a lost result if it is not as expected."""
        self.runs += 1
        wrong = list(differences(found, expected))
        if wrong:
            self.lost.append(f"{name}: {'; '.join(wrong)[:2000]}")
        said = "LOST" if wrong else "ok"
        print(f"{self.kind}, {name}: {said}", file=sys.stderr, flush=True)

    def __str__(self):
        seconds = time.monotonic() - self._started
        lines = [
            f"{self.kind}: {self.runs} runs, {self.faults} faults injected, "
            f"{len(self.lost)} results lost ({seconds:.0f} s)"
        ]
        return "\n".join([*lines, *(f"  LOST {line}" for line in self.lost)])


def contents(workdir: pathlib.Path, student: str = STUDENT) -> dict[str, Any]:
    """Returns all results of a run, without times and random ids."""
    rows = json.loads((workdir / "results.json").read_text())
    for row in rows:
        for name in _TIMES:
            row.pop(name, None)
    analysis = json.loads((workdir / "analysis.json").read_text())
    del analysis["made_from"]
    found = {"results": rows, "analysis": analysis}
    for name in ("teachers", student):
        with np.load(workdir / "predictions" / f"{name}.npz") as file:
            found[f"predictions of {name}"] = {k: file[k].tobytes() for k in file}
        stage = name if name == "teachers" else f"students/{name}"
        found[stage] = stage_contents(workdir / stage)
    return found


def stage_contents(stage: pathlib.Path) -> dict[str, Any]:
    """Returns the variables of a complete stage, bit for bit, and its log."""
    variables = checkpoint.load_arrays(stage / "variables")
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    record = json.loads((stage / "complete.json").read_text())
    return {
        "log": (stage / "metrics.jsonl").read_text(),
        "selected": record.get("selected_epoch"),
        **{jax.tree_util.keystr(k): (str(x.dtype), x.tobytes()) for k, x in leaves},
    }


def differences(found: Any, expected: Any, at: str = "") -> Iterator[str]:
    """Yields a line for each difference between two results."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in expected.keys() | found.keys():
            place = f"{at}/{key}"
            if key not in found or key not in expected:
                yield f"{place} is in one only: {str(found.get(key))[-1500:]}"
            else:
                yield from differences(found[key], expected[key], place)
    elif found != expected:
        yield f"{at} differs: {str(found)[-1500:]}"
