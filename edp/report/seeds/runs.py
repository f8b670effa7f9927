"""Reads finished runs, grouped by their settings."""

import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edp.errors import InputError
from edp.evaluation import image_scores, predictions
from edp.report import files
from edp.report.seeds.configurations import comparable, differences, read_config
from edp.runtime import storage
from edp.runtime.stage import flatten

Rows = list[dict[str, Any]]

# By file, settings of its rows; config.json may have those of a later evaluation.
_EVALUATED_WITH = {
    "analysis": ("diversity_size",),
    "ood": ("ood_size",),
    "corruptions": ("corruptions", "corruption_size"),
    "measures": ("set_score", "set_coverages"),
}
# Files with `rows`, which are also the names of their fields.
_ROWS = ("ood", "corruptions", "measures")
# Longer names of groups are replaced by the names of their runs.
_LONGEST_NAME = 60


class Run(NamedTuple):
    """Files of a finished run.

    The rows of a file are empty if it is missing, or if it was computed from other
    networks or data than the predictions, as one that a later evaluation kept.

    Attributes:
      path: the workdir.
      seed: seed of the configuration.
      rows: rows of `results.json`.
      diversity: rows of `analysis.json` on the teachers' diversity.
      students: rows of `analysis.json` on students and their teachers.
      notes: sentences of `analysis.json` on what it leaves out, and on files that
        are of other networks.
      ood: rows of `ood.json`.
      corruptions: rows of `corruptions.json`.
      corrupted_ids: by student of `corruptions.json`, the `id` of its training.
      measures: rows of `measures.json`.
      evaluated_with: settings in the files of the evaluation, by name and file.
      images: by split on which the networks predicted, whether its images are streamed
        and their digest; empty if they are unknown, as of old versions.
    """

    path: pathlib.Path
    seed: int
    rows: Rows
    diversity: Rows
    students: Rows
    notes: list[str]
    ood: Rows
    corruptions: Rows
    corrupted_ids: dict[str, str]
    measures: Rows
    evaluated_with: dict[str, Any]
    images: Mapping[str, tuple[bool, str]]

    @property
    def name(self) -> str:
        """Name of the workdir."""
        return self.path.resolve().name

    @property
    def student_names(self) -> list[str]:
        """Students with a row, in order."""
        rows = [row for row in self.rows if row.get("kind") == "student"]
        return list(dict.fromkeys(row["model"] for row in rows))

    def predictions(self, student: str) -> pathlib.Path:
        """Returns the path of a student's predictions."""
        return self.path / "predictions" / f"{student}.npz"

    def test_labels(self) -> np.ndarray:
        """Returns the test labels [N], from any of the predictions."""
        paths = [self.predictions(name) for name in ("teachers", *self.student_names)]
        path = next((path for path in paths if path.exists()), paths[0])
        return predictions.load_predictions(path).test_labels

    def corrupted(self, student: str) -> dict[str, image_scores.ImageScores]:
        """Returns a student's scores by set of corrupted images; {} without a file.

        Raises:
          InputError: if the file is damaged, or not of the rows' evaluation.
        """
        path = image_scores.path_of(self.path, student)
        if student not in self.corrupted_ids or not path.exists():
            return {}
        found = image_scores.load(path, self.corrupted_ids[student])
        rows = [row for row in self.corruptions if row.get("model") == student]
        image_scores.check_rows(path, found, rows)
        return found

    def last_epoch(self, stage: str) -> dict[str, Any]:
        """Returns the last record of a stage's `metrics.jsonl`; {} if it is missing."""
        path = self.path / stage / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        lines = [line for line in lines if line.strip()]
        try:
            return json.loads(lines[-1]) if lines else {}
        except ValueError as error:
            raise InputError(f"{path} is not JSON Lines: {error}") from error


def have_other_images(run: Run, other: Run, split: str = "test") -> bool:
    """Returns whether two runs have images of other digests in a split.

    As where `data.path` names other data, or files were decoded by another version of
    a library. Streamed and in memory, the same images have different digests, which are
    not compared. The seed draws the validation images.
    """
    a, b = run.images.get(split), other.images.get(split)
    return a is not None and b is not None and a[0] == b[0] and a[1] != b[1]


def note_other_images(runs: Sequence[Run]) -> list[str]:
    """Returns a sentence on runs of the same settings with other test images."""
    for run, other in itertools.combinations(runs, 2):
        if have_other_images(run, other):
            return [
                f"The test images of {run.name} and {other.name} differ, though the "
                "labels do not: data.path names other data, or the images were decoded "
                "otherwise."
            ]
    return []


class Group(NamedTuple):
    """Runs with the same settings under several seeds.

    Attributes:
      name: the settings in which groups differ; or the runs' names where these are
        many, or the workdirs where those are not distinct.
      values: these settings by dotted key, as texts.
      runs: by ascending seed.
      teachers: for each run, the absolute path of the workdir of its teachers.
      data: the settings that decide which images are used, and how.
    """

    name: str
    values: dict[str, str]
    runs: list[Run]
    teachers: list[str]
    data: dict[str, Any]


def read_groups(workdirs: Sequence[str | os.PathLike[str]]) -> list[Group]:
    """Reads finished runs and groups those that `read_runs` accepts together.

    Returns:
      The groups in the order of their first workdirs.

    Raises:
      InputError: as `read_runs`, but not for different settings.
    """
    paths = _as_paths(workdirs)
    configs = {path: read_config(path) for path in paths}
    groups: list[list[pathlib.Path]] = []
    for path in paths:
        for group in groups:
            if not any(differences(configs[p], configs[path]) for p in group):
                group.append(path)
                break
        else:
            groups.append([path])
    firsts = [configs[of[0]] for of in groups]
    pairs = itertools.combinations(firsts, 2)
    keys = sorted({key for pair in pairs for key in differences(*pair)})
    result = []
    for of, first in zip(groups, firsts, strict=True):
        runs = read_runs(of)
        own = flatten(comparable(first, (first.get("students") or {}).keys()))
        result.append(
            Group(
                name="",
                values={key: str(own.get(key)) for key in keys},
                runs=runs,
                teachers=[_teachers_of(run.path, configs[run.path]) for run in runs],
                data=comparable(first, ())["data"],
            )
        )
    names = [_in_short(group.values) for group in result]
    if len({*names}) < len(names) or len(max(names, key=len)) > _LONGEST_NAME:
        names = [", ".join(run.name for run in group.runs) for group in result]
    if len({*names}) < len(names):
        names = [", ".join(str(run.path) for run in group.runs) for group in result]
    return [g._replace(name=name) for g, name in zip(result, names, strict=True)]


def _in_short(values: dict[str, str]) -> str:
    """Returns settings such as `step_size=0.02, width=8`."""
    last = [key.rpartition(".")[2] for key in values]
    keys = last if len({*last}) == len(last) else values
    return ", ".join(f"{k}={v}" for k, v in zip(keys, values.values(), strict=True))


def _teachers_of(path: pathlib.Path, config: dict[str, Any]) -> str:
    elsewhere = config.get("teachers_workdir")
    return str(storage.absolute(storage.as_path(elsewhere) if elsewhere else path))


def _as_paths(workdirs: Sequence[str | os.PathLike[str]]) -> list[pathlib.Path]:
    if not workdirs:
        raise InputError("workdirs is empty; accepted: workdirs of finished runs")
    return [storage.as_path(path) for path in workdirs]


def read_runs(workdirs: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Reads finished runs that differ only in their seeds.

    Runs may also differ in the set of students, the location of the data, the
    teachers' workdir (not in the settings of these teachers), and execution options
    such as checkpoint intervals.

    Returns:
      The runs by ascending seed.

    Raises:
      InputError: if there are no runs, a run is not evaluated, files are damaged, two
        runs have the same seed, or settings differ, also those of files that a later
        evaluation kept; names them.
    """
    found = _as_paths(workdirs)
    configs = [read_config(path) for path in found]
    by_seed: dict[int, pathlib.Path] = {}
    for path, config in zip(found, configs, strict=True):
        seed = config["seed"]
        if seed in by_seed:
            raise InputError(
                f"{by_seed[seed]} and {path} both have seed={seed}; accepted: one run "
                "of each seed"
            )
        by_seed[seed] = path
    # Every pair, as the first run may lack a student that others have.
    for one, other in itertools.combinations(zip(found, configs, strict=True), 2):
        _check_alike(*one, *other)
    configs_by_seed = {config["seed"]: config for config in configs}
    result = [
        _read_run(by_seed[seed], seed, configs_by_seed[seed])
        for seed in sorted(by_seed)
    ]
    for a, b in itertools.combinations(result, 2):
        _check_evaluated_alike(a, b)
    return result


def _check_alike(
    path: pathlib.Path,
    config: dict[str, Any],
    other_path: pathlib.Path,
    other: dict[str, Any],
) -> None:
    if found := differences(config, other):
        described = [f"{key} is {a!r} and {b!r}" for key, (a, b) in found.items()]
        raise InputError(
            f"{path} and {other_path} have different settings "
            f"({'; '.join(described)}); accepted: runs that differ only in their seed"
        )


def _check_evaluated_alike(run: Run, other: Run) -> None:
    """Checks the settings of files that an evaluation may have kept."""
    for key in run.evaluated_with.keys() & other.evaluated_with.keys():
        a, b = run.evaluated_with[key], other.evaluated_with[key]
        if a != b:
            raise InputError(
                f"{run.path} and {other.path} were evaluated with different settings "
                f"({key} is {a!r} and {b!r}); accepted: the same; evaluate both again"
            )


def _read_run(path: pathlib.Path, seed: int, config: Mapping[str, Any]) -> Run:
    results = path / "results.json"
    rows = _rows(storage.read_json(results), results)
    if not all("model" in row for row in rows):
        raise InputError(f"{results} has a row without a model")
    left_out: list[str] = []
    names = ("analysis", *_ROWS)
    of = {name: _read_mapping(path / f"{name}.json", left_out) for name in names}
    made_from = {name: value.get("made_from", {}) for name, value in of.items()}
    analysis = of["analysis"]
    notes = _sentences(analysis.get("notes", []), path / "analysis.json")
    return Run(
        path=path,
        seed=seed,
        rows=rows,
        diversity=_rows(analysis.get("diversity", []), path / "analysis.json"),
        students=_rows(analysis.get("students", []), path / "analysis.json"),
        notes=notes
        + [f"Left out of {path.resolve().name}: {why}." for why in left_out],
        corrupted_ids=dict(made_from["corruptions"].get("predictors", {})),
        evaluated_with={
            f"{key} of {name}.json": made_from[name][key]
            for name, keys in _EVALUATED_WITH.items()
            for key in keys
            if key in made_from[name]
        },
        images=_images(path, streamed=bool((config.get("data") or {}).get("stream"))),
        **{n: _rows(of[n].get("rows", []), path / f"{n}.json") for n in _ROWS},
    )


def _images(path: pathlib.Path, *, streamed: bool) -> dict[str, tuple[bool, str]]:
    """Returns `Run.images`."""
    index, _ = files.read_optional_mapping(path / "predictions" / "made_from.json")
    digests = index.get(predictions.DATA_DIGESTS)
    found = digests.items() if isinstance(digests, Mapping) else ()
    return {split: (streamed, str(digest)) for split, digest in found}


def _sentences(value: Any, path: pathlib.Path) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise InputError(f"{path} has invalid notes; accepted: a list of strings")
    return value


def _read_mapping(path: pathlib.Path, left_out: list[str]) -> dict[str, Any]:
    """Reads a JSON object; {} if the file is missing or of other networks.

    Adds to `left_out` the reason for the latter.
    """
    value = storage.read_mapping(path) if path.exists() else {}
    if why := files.made_elsewhere(path, value):
        left_out.append(why)
        return {}
    return value


def _rows(value: Any, path: pathlib.Path) -> Rows:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{path} does not contain a list of rows")
    return value
