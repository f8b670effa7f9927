"""Files of rows about each predictor of a run, each computed once per training."""

import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from edp import data
from edp.evaluation.predictor import TEACHERS, Predictors
from edp.experiment.create import Experiment
from edp.runtime import multihost, storage

Rows = list[dict[str, Any]]


def mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each field."""
    return {key: float(np.mean([v[key] for v in values])) for key in values[0]}


def test_subset(experiment: Experiment, size: int) -> np.ndarray:
    """Returns the indices of `size` test examples, stratified by class, or of all.

    They are the same in every run, whatever its seed.
    """
    labels = experiment.data.dataset.test.labels
    return data.fixed_subset(labels, "test_size", min(size, len(labels)))


def progress(items: Sequence, label: str) -> Iterator:
    """Iterates over items; the first process shows a progress bar on a terminal."""
    shown = multihost.is_first() and sys.stderr.isatty()
    return iter(tqdm.tqdm(items, label, dynamic_ncols=True, disable=not shown))


def write_rows(
    predictors: Predictors,
    path: pathlib.Path,
    depends: Mapping[str, Any],
    protocol: str,
    evaluate: Callable[[Sequence[str]], Mapping[str, Rows]],
    *,
    compare_with_teachers: bool = False,
) -> Rows:
    """Evaluates the predictors whose latest training `path` does not have.

    The file holds the `rows` of the teachers and of every completed student, the
    `protocol`, and `made_from`: the settings, the digests of the data, and by
    predictor the `id` of its training.

    Args:
      predictors: the completed networks.
      path: the JSON file.
      depends: settings that all rows depend on; a change recomputes all rows.
      protocol: what the rows are, in words.
      evaluate: names of predictors -> the rows of each. A row names its `model`.
      compare_with_teachers: whether the rows of students depend on the teachers' too;
        new teachers then recompute all rows.

    Returns:
      The rows of all predictors, in every process.
    """
    ids = {name: record["id"] for name, record in predictors.records.items()}
    # Through JSON, to compare equal to what is read back.
    depends = {**depends, "data": predictors.data_digests}
    made_from = json.loads(json.dumps({**depends, "predictors": ids}))
    # One decision for all processes, whose copies of the data may differ.
    made_from = multihost.from_first(made_from)
    stored = multihost.from_first(storage.read_mapping(path) if path.exists() else {})
    before = stored.get("made_from", {})
    if before == made_from:
        return stored["rows"]
    kept: dict[str, Rows] = {name: [] for name in ids}
    same_teachers = before.get("predictors", {}).get(TEACHERS) == ids[TEACHERS]
    is_kept = same_teachers or not compare_with_teachers
    if is_kept and {**before, "predictors": ids} == made_from:
        for row in stored["rows"]:
            name = row["model"] if row["model"] in before["predictors"] else TEACHERS
            if name in ids and ids[name] == before["predictors"][name]:
                kept[name].append(row)
    if missing := [name for name, rows in kept.items() if not rows]:
        kept |= evaluate(missing)
    rows = [row for name in ids for row in kept[name]]
    value = {"made_from": made_from, "protocol": protocol, "rows": rows}
    storage.write_json(path, value)
    return rows
