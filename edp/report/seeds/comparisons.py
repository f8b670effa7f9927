"""Paired comparisons of students over seeds and over test images."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.evaluation import predictions
from edp.evaluation.image_scores import ImageScores
from edp.report.evidence import Scored, differs, score_images, score_members
from edp.report.rows import largest_ensemble
from edp.report.seeds.aggregate import Row, lowest_mean, quantity
from edp.report.seeds.runs import Run


def score_runs(
    runs: Sequence[Run], names: Sequence[str]
) -> dict[str, dict[int, Scored]]:
    """Returns image scores by student and seed, for the runs that have the student.

    Raises:
      InputError: if test labels differ from those of the first run, or predictions
        are missing, damaged, or not those of the run's rows.
    """
    scored: dict[str, dict[int, Scored]] = {name: {} for name in names}
    first = None
    for run in runs:
        for name in run.student_names:
            path = run.predictions(name)
            of = predictions.load_predictions(path)
            first = first or (path, of.test_labels)
            if not np.array_equal(of.test_labels, first[1]):
                raise InputError(
                    f"{path} and {first[0]} have different test labels; accepted: runs "
                    "with the same test images"
                )
            scored[name][run.seed] = score_images(of)
            _check_row(run, name, path, scored[name][run.seed])
    return scored


def _check_row(run: Run, model: str, path: pathlib.Path, found: Scored) -> None:
    """Checks that predictions give the calibrated NLL of a row of the run."""
    if differs(model, found, run.rows):
        raise InputError(
            f"{path} does not give the cNLL of {model} in results.json, which is of "
            "another training or of other data; launch.evaluate writes the rows again"
        )


def compare_students(
    scored: Mapping[str, Mapping[int, Scored | ImageScores]],
    names: Sequence[str],
    baselines: Sequence[str],
) -> list[Row]:
    """Compares each student with each baseline on the seeds that have both.

    Returns:
      `comparisons` of `summarize_runs`.
    """
    rows, columns = [], []
    for baseline in baselines:
        for name in names:
            ours, theirs = scored[name], scored[baseline]
            seeds = [seed for seed in ours if seed in theirs]
            if name == baseline or not seeds:
                continue
            row = {"baseline": baseline, "model": name, "seeds": seeds}
            for metric, field in (("cnll", "nll"), ("accuracy", "correct")):
                differences = {
                    s: getattr(ours[s], field) - getattr(theirs[s], field)
                    for s in seeds
                }
                means = {s: float(d.mean()) for s, d in differences.items()}
                p = metrics.paired_p_value(list(means.values()))
                row[metric] = quantity(means) | ({} if p is None else {"p": p})
                columns.append(np.mean(list(differences.values()), axis=0))
            rows.append(row)
    if rows:
        ends = metrics.bootstrap_intervals(np.stack(columns, axis=1)).T.tolist()
        for row in rows:
            row["cnll"]["interval"], row["accuracy"]["interval"] = ends[:2]
            del ends[:2]
    return rows


def compare_corrupted(
    runs: Sequence[Run], names: Sequence[str], baselines: Sequence[str]
) -> list[Row]:
    """Compares students as `compare_students`, on each set of corrupted images.

    Returns:
      `corrupted_comparisons` of `summarize_runs`.

    Raises:
      InputError: if the sets of two students differ in size, or a file is damaged.
    """
    by_set: dict[str, dict[str, dict[int, ImageScores]]] = {}
    for run in runs:
        for name in run.student_names:
            for corruption, scores in run.corrupted(name).items():
                of = by_set.setdefault(corruption, {n: {} for n in names})
                of[name][run.seed] = scores
    rows = []
    for corruption, scored in by_set.items():
        sizes = {len(s.nll) for of in scored.values() for s in of.values()}
        if len(sizes) > 1:
            raise InputError(
                f"corruptions/*.npz of these runs have {corruption!r} of "
                f"{' and '.join(map(str, sorted(sizes)))} images; accepted: the same "
                "number; evaluate all of them with the same settings"
            )
        rows += [
            {"corruption": corruption, **row}
            for row in compare_students(scored, names, baselines)
        ]
    return rows


def ensemble_gap(runs: Sequence[Run], size: int | None = None) -> Row | None:
    """Returns the cNLL of DE-m minus that of DE-1, by the teachers' predictions.

    Args:
      runs: the runs.
      size: m; None for the whole ensemble. DE-m of a smaller one is the mean over the
        sets of m members in a row, the first following the last: as many as members,
        while its row is the mean over all sets.

    Returns:
      A quantity over seeds with the `interval` of the bootstrap over test images;
      None if a run has no predictions of its teachers, or of one network or fewer
      than m.

    Raises:
      InputError: if predictions are damaged, or not those of the run's rows.
    """
    differences = {}
    for run in runs:
        path = run.predictions("teachers")
        if not path.exists():
            return None
        of = predictions.load_predictions(path)
        number = len(of.test_probs)
        if number < 2 or number < (size or 0):
            return None
        ensemble = score_images(of)
        for row in largest_ensemble(run.rows):
            _check_row(run, row["model"], path, ensemble)
        nll = ensemble.nll
        if size is not None and size < number:
            nll = np.mean([s.nll for s in map(score_images, _in_rows(of, size))], 0)
        differences[run.seed] = nll - score_members(of).nll
    column = np.mean(list(differences.values()), axis=0)[:, None]
    ends = metrics.bootstrap_intervals(column)[:, 0].tolist()
    means = {seed: float(d.mean()) for seed, d in differences.items()}
    return quantity(means) | {"interval": ends}


def _in_rows(
    of: predictions.Predictions, size: int
) -> Iterator[predictions.Predictions]:
    """Yields the predictions of each `size` members in a row, cyclically."""
    number = len(of.test_probs)
    for start in range(number):
        members = (start + np.arange(size)) % number
        yield of._replace(
            validation_probs=of.validation_probs[members],
            test_probs=of.test_probs[members],
        )


def validation_cnll(of: Mapping[int, Scored]) -> Row:
    """Returns the validation cNLL of a student over seeds."""
    return quantity({seed: scored.validation_cnll for seed, scored in of.items()})


def best_plain(
    scored: Mapping[str, Mapping[int, Scored]], names: Sequence[str]
) -> Row | None:
    """Returns the best plain student by validation cNLL, among those in most runs.

    Students that exist in different runs are compared on the seeds that all have.

    Args:
      scored: of `score_runs`.
      names: the plain students.

    Returns:
      `best_plain` of `summarize_runs`; None without names.
    """
    most = max((len(scored[name]) for name in names), default=0)
    cnll = {n: validation_cnll(scored[n]) for n in names if len(scored[n]) == most}
    if not cnll:
        return None
    best = lowest_mean(cnll)
    return {"model": best, "validation_cnll": cnll[best]}
