"""The predictors of a run, and files of rows about each of them that are made once."""

import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from edp import data
from edp.experiment import restore
from edp.experiment.create import Experiment
from edp.runtime import multihost, storage

Rows = list[dict[str, Any]]
Records = Mapping[str, Mapping[str, Any]]  # by predictor: what its stage recorded
# By model, such as DE-1, groups of a predictor's members; what is told of a model is
# the mean over its groups.
Groups = Mapping[str, Sequence[slice]]


def member_groups(experiment: Experiment, name: str) -> Groups:
    """The models that a predictor is: of the teachers DE-1 and DE-M."""
    if name != "teachers":
        return {name: [slice(None)]}
    num_members = experiment.num_members
    singles = [slice(i, i + 1) for i in range(num_members)]
    return {"DE-1": singles, f"DE-{num_members}": [slice(None)]}


def mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each field."""
    return {key: float(np.mean([v[key] for v in values])) for key in values[0]}


def test_subset(experiment: Experiment, size: int) -> np.ndarray:
    """Indices of `size` test examples, each class in proportion, or of all.

    The same in every run, whatever its seed.
    """
    labels = experiment.dataset.test.labels
    return data.fixed_subset(labels, "test_size", min(size, len(labels)))


def progress(items: Sequence, label: str) -> Iterator:
    """Goes through items with a bar on a terminal; of several processes one's."""
    shown = multihost.is_first() and sys.stderr.isatty()
    return iter(tqdm.tqdm(items, label, dynamic_ncols=True, disable=not shown))


def write_rows(
    experiment: Experiment,
    path: pathlib.Path,
    depends: Mapping[str, Any],
    protocol: str,
    evaluate: Callable[[Records], Mapping[str, Rows]],
) -> None:
    """Evaluates the predictors of which `path` does not have the latest training.

    The file holds `rows` of the teachers and of every completed student, the
    `protocol`, and `made_from`: the settings, and by predictor which training.

    Args:
      experiment: the run.
      path: of the JSON.
      depends: settings that all rows depend on; where they change, all are made anew.
      protocol: what the rows are, in words.
      evaluate: predictors -> the rows of each. Rows tell their `model`.
    """
    records = {"teachers": restore.teachers_record(experiment)}
    for name in experiment.config.students:
        if record := restore.student_stage(experiment, name).record:
            records[name] = record
    ids = {name: record["id"] for name, record in records.items()}
    # Through JSON, as it is read back.
    made_from = json.loads(json.dumps({**depends, "predictors": ids}))
    stored = multihost.from_first(storage.read_mapping(path) if path.exists() else {})
    before = stored.get("made_from", {})
    if before == made_from:
        return
    kept: dict[str, Rows] = {name: [] for name in ids}
    if {**before, "predictors": ids} == made_from:
        for row in stored["rows"]:
            name = row["model"] if row["model"] in before["predictors"] else "teachers"
            if name in ids and ids[name] == before["predictors"][name]:
                kept[name].append(row)
    kept |= evaluate({name: records[name] for name, rows in kept.items() if not rows})
    rows = [row for name in ids for row in kept[name]]
    value = {"made_from": made_from, "protocol": protocol, "rows": rows}
    storage.write_json(path, value)
