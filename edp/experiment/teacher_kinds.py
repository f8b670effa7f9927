"""Kinds of teachers: what is trained, what is kept of it, and the M members it makes.

A new kind is a line in `KINDS`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from edp import ensemble
from edp.runtime import best_epoch

# (of_each) -> what chooses epochs by the validation accuracy of the members; None
# where the last is to be kept. See `selection.by_accuracy`.
ByAccuracy = Callable[[bool], best_epoch.Selection | None]


class Kind(NamedTuple):
    """A kind of teachers. Its variables have a leading axis, of all that is kept.

    Attributes:
      num_trained: M -> how many networks are trained.
      num_kept: M -> how many networks' variables are kept.
      select: (M, number of epochs, `ByAccuracy`) -> the selection of epochs.
      teachers: (model, variables, M, key of all masks, strategy=, mesh=) ->
        `ensemble.Teachers`.
      training: settings -> those that the optimizer reads.
      faults: the whole configuration -> what in it this kind cannot be trained with.
    """

    num_trained: Callable[[int], int]
    num_kept: Callable[[int], int]
    select: Callable[[int, int, ByAccuracy], best_epoch.Selection | None]
    teachers: Callable[..., ensemble.Teachers]
    training: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda section: section
    faults: Callable[[Mapping[str, Any]], Iterator[str]] = lambda values: iter(())


def of(teachers: Mapping[str, Any]) -> Kind:
    """The kind that the settings of `teachers` name; of old ones, the only one then."""
    return KINDS[teachers.get("kind", "deep")]


def _all(num_members: int) -> int:
    return num_members


def _one(num_members: int) -> int:
    del num_members
    return 1


def _stacked(model, variables, num_members, key, *, strategy, mesh):
    del num_members, key
    return ensemble.teachers_from_variables(
        model, variables, strategy=strategy, mesh=mesh
    )


def _masked(model, variables, num_members, key, *, strategy, mesh):
    return ensemble.teachers_from_masks(
        model,
        ensemble.select(variables, 0),
        jax.random.split(key, num_members),
        strategy=strategy,
        mesh=mesh,
    )


def _cycles(section: Mapping[str, Any]) -> dict[str, Any]:
    return {**section, "schedule": "cyclic", "cycles": section["num_members"]}


def _faults_of_snapshots(values: Mapping[str, Any]) -> Iterator[str]:
    teachers = values["teachers"]
    num_epochs, num_members = teachers["num_epochs"], teachers["num_members"]
    if num_epochs % num_members:
        yield (
            f"teachers.num_epochs={num_epochs} must be a multiple of "
            f"teachers.num_members={num_members} for snapshots, of a cycle each"
        )
    yield from _faults_of_one_network(values)
    if teachers["select"] != "last":
        yield (
            f"teachers.select={teachers['select']!r} must be last for snapshots, which "
            "are those of the ends of the cycles"
        )


def _faults_of_dropout(values: Mapping[str, Any]) -> Iterator[str]:
    rate = values["model"].get("dropout_rate")
    if not rate:
        yield (
            f"model.dropout_rate={rate!r} must be above 0 for teachers.kind='dropout', "
            "whose members differ in nothing else"
        )
    yield from _faults_of_one_network(values)


def _faults_of_one_network(values: Mapping[str, Any]) -> Iterator[str]:
    teachers = values["teachers"]
    if teachers["bootstrap"]:
        yield (
            f"teachers.bootstrap=True must be False for teachers.kind="
            f"{teachers['kind']!r}, of which one network is trained"
        )


KINDS: dict[str, Kind] = {
    # M networks, each from a start of its own (Lakshminarayanan et al., 2017).
    "deep": Kind(
        num_trained=_all,
        num_kept=_all,
        select=lambda m, num_epochs, by_accuracy: by_accuracy(True),
        teachers=_stacked,
    ),
    # One network at the end of each of M cycles of the learning rate (Huang et al.,
    # *Snapshot Ensembles*, 2017, arXiv 1704.00109).
    "snapshot": Kind(
        num_trained=_one,
        num_kept=_all,
        select=lambda m, num_epochs, by_accuracy: best_epoch.snapshots(m, num_epochs),
        teachers=_stacked,
        training=_cycles,
        faults=_faults_of_snapshots,
    ),
    # One network trained with dropout, under M masks that are drawn once (Gal and
    # Ghahramani, *Dropout as a Bayesian Approximation*, 2016, arXiv 1506.02142).
    "dropout": Kind(
        num_trained=_one,
        num_kept=_one,
        select=lambda m, num_epochs, by_accuracy: by_accuracy(False),
        teachers=_masked,
        faults=_faults_of_dropout,
    ),
}
