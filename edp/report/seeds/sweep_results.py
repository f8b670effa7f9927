"""Summaries over several settings: of a sweep, or of any groups of runs."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edp.errors import InputError
from edp.experiment.rules import DATA_LOCATION
from edp.report.seeds import comparisons, runs
from edp.report.seeds.aggregate import Row, lowest_mean, over_seeds, shared_seeds
from edp.report.seeds.comparisons import Scored
from edp.report.seeds.shared_teachers import share_teachers
from edp.runtime import storage

if TYPE_CHECKING:  # imports JAX
    from edp.experiment.sweep import Point

_FIELDS = (
    *("accuracy", "nll", "cnll", "ece", "cece", "brier", "aurc"),
    *("dee", "gap_closed", "train_seconds"),
)
_FACTS = ("kind", "student", "perturbation", "num_members", "inference_cost")
_MARK = "finished.json"


def is_done(directory: pathlib.Path, point: Point) -> bool:
    """Returns whether the run of a point finished with exactly these settings."""
    path = directory / point.directory / _MARK
    return path.exists() and storage.read_json(path) == _record(point)


def mark_done(directory: pathlib.Path, point: Point) -> None:
    """Records that the run of a point finished."""
    storage.write_json(directory / point.directory / _MARK, _record(point))


def _record(point: Point) -> dict[str, Any]:
    return {"config": json.loads(point.config.to_json())}


def summarize_sweep(directory: pathlib.Path, points: Sequence[Point]) -> dict[str, Any]:
    """Summarises the finished runs of a sweep.

    Args:
      directory: directory of the sweep.
      points: points of `sweep.points`; the first setting is the baseline.

    Returns:
      Values that JSON can represent. A quantity over seeds is as in
      `summary.summarize_runs`.

      * `settings`: [{"name", "values", "runs": [directories], "seeds"}] of settings
        with a finished run.
      * `rows`: of DE-1 and the whole ensemble, once for settings that share their
        teachers (then without `setting`), and of every student: `setting`, `model`,
        facts and quantities. Students also have `validation_cnll`; `difference`
        {"cnll", "accuracy"} to the first setting, paired by seed and test image, as
        `comparisons` of `summary.summarize_runs`; and `best` (True) in the setting
        with the lowest mean validation cNLL of this student.
      * `best`: the row with the lowest of all, {"setting", "model",
        "validation_cnll"}; absent without students, or if validation images differ
        between settings.
      * `notes`: sentences on the runs.

    Raises:
      InputError: if no run is finished, or files are missing or damaged.
    """
    done = [point for point in points if is_done(directory, point)]
    if not done:
        raise InputError(
            f"workdir={str(directory)!r} has no finished run of this sweep"
        )
    by_setting: dict[str, list[Point]] = {point.setting.name: [] for point in points}
    for point in done:
        by_setting[point.setting.name].append(point)
    groups = [
        runs.Group(
            name=name,
            values=of[0].setting.values,
            runs=runs.read_runs([directory / p.directory for p in of]),
            teachers=[p.teachers or p.config.teachers_workdir for p in of],
            data=_data_settings(of[0]),
        )
        for name, of in by_setting.items()
        if of
    ]
    directories = {name: [p.directory for p in of] for name, of in by_setting.items()}
    result = summarize_groups(groups, points[0].setting.name)
    for setting in result["settings"]:
        setting["runs"] = directories[setting["name"]]
    result["notes"] = _missing(points, done) + result["notes"]
    return result


def summarize_groups(groups: Sequence[runs.Group], first: str = "") -> dict[str, Any]:
    """Summarises groups of runs, each with other settings.

    Args:
      groups: at least one, with different names.
      first: name of the baseline; by default that of the first group.

    Returns:
      The value of `summarize_sweep`.

    Raises:
      InputError: if files are missing or damaged.
    """
    first = first or groups[0].name
    found = {group.name: group.runs for group in groups}
    rows = _ensembles(groups)
    scored = {
        name: comparisons.score_runs(of, _students(of)) for name, of in found.items()
    }
    notes: list[str] = []
    if any(share_teachers(group.runs) for group in groups):
        notes.append(
            "Runs of one setting share their teachers, so the errors exclude the "
            "variation between teachers."
        )
    same_tests, same_validation = _same_images(groups, notes)
    differences = {}
    if same_tests and first not in found:
        notes.append(f"No run of the first setting, {first}, is finished: no Δ.")
    elif same_tests:
        differences = _differences(scored, first)
    elif len(found) > 1:
        notes.append(
            "Test images differ between settings, so settings are not compared."
        )
    for name, of in found.items():
        for row in _means(of, list(scored[name])):
            student = row["model"]
            row["validation_cnll"] = comparisons.validation_cnll(scored[name][student])
            if (name, student) in differences:
                row["difference"] = differences[name, student]
            rows.append({"setting": name, **row})
    result = {
        "settings": [
            {
                "name": group.name,
                "values": group.values,
                "runs": [run.name for run in group.runs],
                "seeds": [run.seed for run in group.runs],
            }
            for group in groups
        ],
        "rows": rows,
        "notes": notes,
    }
    if not same_validation:
        notes.append(
            "Validation images differ between settings, so no best one is marked."
        )
        return result
    return result | _mark_best(rows, notes)


def _students(of: Sequence[runs.Run]) -> list[str]:
    return list(dict.fromkeys(name for run in of for name in run.student_names))


def _means(of: Sequence[runs.Run], names: Sequence[str]) -> list[Row]:
    """Returns a row of facts and quantities for each of these models."""
    facts = {row["model"]: row for run in reversed(of) for row in run.rows}
    means = over_seeds({run.seed: run.rows for run in of}, ("model",), _FIELDS)
    return [
        {k: facts[row["model"]][k] for k in _FACTS if k in facts[row["model"]]} | row
        for row in means
        if row["model"] in names
    ]


def _ensembles(groups: Sequence[runs.Group]) -> list[Row]:
    """Returns rows of DE-1 and DE-M, once for settings that share teachers."""
    found = {group.name: group.runs for group in groups}
    teachers = {group.name: group.teachers for group in groups}
    # Teachers count as shared if a setting only lacks seeds of the others.
    most = max(teachers.values(), key=len)
    shared = all(set(of) <= set(most) for of in teachers.values())
    rows = []
    for name in [next(n for n in found if teachers[n] == most)] if shared else found:
        sizes = [
            r["num_members"] for r in found[name][0].rows if r["kind"] != "student"
        ]
        names = list(dict.fromkeys(("DE-1", f"DE-{max(sizes)}")))
        where = {} if shared else {"setting": name}
        rows += [where | row for row in _means(found[name], names)]
    return rows


def _differences(
    scored: Mapping[str, Mapping[str, Mapping[int, Scored]]], first: str
) -> dict[tuple[str, str], Row]:
    """Returns differences from the first setting by setting and student."""
    result = {}
    for student in scored.get(first, ()):
        of = {n: scores[student] for n, scores in scored.items() if student in scores}
        for row in comparisons.compare_students(of, list(of), [first]):
            pair = {key: row[key] for key in ("cnll", "accuracy")}
            result[row["model"], student] = pair
    return result


def _same_images(groups: Sequence[runs.Group], notes: list[str]) -> tuple[bool, bool]:
    """Returns whether test and validation images are the same in all settings.

    Adds to `notes` if they differ though the settings do not.
    """
    first = groups[0]
    same_settings = all(group.data == first.data for group in groups)
    labels = [group.runs[0].test_labels() for group in groups]
    same_tests = all(np.array_equal(labels[0], other) for other in labels)
    if len({group.values.get("data.path") for group in groups}) > 1:
        pairs = [(a, b) for group in groups for a in first.runs for b in group.runs]
        if any(runs.have_other_images(a, b) for a, b in pairs):
            return False, False
        return same_tests, same_settings and not any(
            a.seed == b.seed and runs.have_other_images(a, b, "validation")
            for a, b in pairs
        )
    if same_settings:
        notes += runs.note_other_images([run for of in groups for run in of.runs])
    return same_tests, same_settings


def _data_settings(point: Point) -> dict[str, Any]:
    """Returns the settings that decide which images a run uses and how."""
    data = point.config.data.to_dict()
    return {key: data[key] for key in data if key not in DATA_LOCATION}


def _mark_best(rows: Sequence[Row], notes: list[str]) -> dict[str, Row]:
    """Marks each student's best row among rows with the most seeds.

    Where their seeds differ, adds to `notes` how the means are compared.
    """
    students = [row for row in rows if row.get("kind") == "student"]
    if not students:
        return {}
    most = max(len(row["seeds"]) for row in students)
    whole = [row for row in students if len(row["seeds"]) == most]

    def lowest(of: Sequence[Row]) -> Row:
        return of[lowest_mean({i: r["validation_cnll"] for i, r in enumerate(of)})]

    for name in dict.fromkeys(row["model"] for row in whole):
        of = [row for row in whole if row["model"] == name]
        if len({row["validation_cnll"]["mean"] for row in of}) > 1:
            lowest(of)["best"] = True
    best = lowest(whole)
    shared = shared_seeds(row["validation_cnll"] for row in whole)
    if len(shared) < most:
        by = f"over the seeds {', '.join(shared)}, which all have"
        notes.append(
            "The seeds of the settings differ: the best one on validation images has "
            f"the lowest mean {by if shared else 'of each over its own'}."
        )
    keys = ("setting", "model", "validation_cnll")
    return {"best": {key: best[key] for key in keys}}


def _missing(points: Sequence[Point], done: Sequence[Point]) -> list[str]:
    missing = [p.directory for p in points if not any(p is other for other in done)]
    if not missing:
        return []
    return [f"Left out because unfinished: {', '.join(missing)}."]
