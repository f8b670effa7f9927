"""Kinds of teachers: networks trained, networks kept, and the M members of these.

A new kind is a line in `KINDS`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from edp import ensemble
from edp.models.prior import RandomizedPrior
from edp.runtime import best_epoch, rng, swag

Section = Mapping[str, Any]
# (of_each) -> selection of epochs by the members' validation accuracy; None keeps the
# last. See `best_epoch.by_accuracy`.
ByAccuracy = Callable[[bool], best_epoch.Selection | None]


class Kind(NamedTuple):
    """A kind of teachers. The leading axis of its variables is the networks kept.

    Attributes:
      num_trained: (m, section) -> number of networks trained for m of the members.
      num_kept: (m, section) -> number of networks whose variables are kept for them.
      select: (section, `ByAccuracy`) -> the selection of epochs.
      teachers: (model, variables, M, key of the masks, strategy=, mesh=) ->
        `ensemble.Teachers`. Member 0 has the first variables kept.
      first_rngs: (M, key of the masks) -> the random streams of member 0, or None.
      network: (build_model, section) -> the network of a member, of which each forward
        pass costs `passes` of a plain one.
      finish: (what `select` kept, section, M, key, refresh) -> the variables of the
        networks kept. `refresh` recomputes the statistics of batch normalisation.
      passes: forward passes of a plain network in one of `network`; None: their ratio
        of operations, as counted.
      training: the `teachers` section -> the settings of its optimizer.
      faults: the configuration -> its faults for this kind.

    A section is the `teachers` section, or that part of it that the teachers depend on,
    without settings that did not exist when they were trained.
    """

    num_trained: Callable[[int, Section], int]
    num_kept: Callable[[int, Section], int]
    select: Callable[[Section, ByAccuracy], best_epoch.Selection | None]
    teachers: Callable[..., ensemble.Teachers]
    network: Callable[[Callable[..., Any], Section], Any] = lambda build, _: build()
    finish: Callable[..., Any] = lambda kept, *_: kept
    passes: int | None = 1
    first_rngs: Callable[..., dict[str, jax.Array] | None] = lambda m, key: None
    training: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda section: section
    faults: Callable[[Mapping[str, Any]], Iterator[str]] = lambda values: iter(())


def of(teachers: Mapping[str, Any]) -> Kind:
    """Returns the kind of a `teachers` section; 'deep' where an old one has none."""
    return KINDS[teachers.get("kind", "deep")]


def _all(num_members: int, section: Section) -> int:
    del section
    return num_members


def _one(num_members: int, section: Section) -> int:
    del num_members, section
    return 1


def _networks(num_members: int, section: Section) -> int:
    """Returns how many networks the members are masks or samples of."""
    return min(num_members, section.get("networks", 1))


def _stacked(model, variables, num_members, key, *, strategy, mesh):
    del num_members, key
    return ensemble.teachers_from_variables(
        model, variables, strategy=strategy, mesh=mesh
    )


def _masked(model, variables, num_members, key, *, strategy, mesh):
    num_networks = jax.tree.leaves(variables)[0].shape[0]
    one = num_networks == 1  # computed without copies for each member
    return ensemble.teachers_from_masks(
        model,
        ensemble.select(variables, 0) if one else variables,
        jax.random.split(key, num_members),
        num_networks=None if one else num_networks,
        strategy=strategy,
        mesh=mesh,
    )


def _first_mask(num_members, key):
    return {"dropout": jax.random.split(key, num_members)[0]}


def _with_prior(build_model, section):
    scale = section.get("prior_scale", 1.0)
    return RandomizedPrior(build_model(), build_model(), scale)


def _narrow(build_model, section):
    """Builds a network whose channels are α/M of a plain one's."""
    share = section.get("packed_width", 2.0) / section["num_members"]
    return build_model(width_factor=share)


def _cycles(section: Section) -> dict[str, Any]:
    return {**section, "schedule": "cyclic", "cycles": section["num_members"]}


def _ends_of_cycles(section: Section) -> tuple[int, ...]:
    num_members = section["num_members"]
    length = section["num_epochs"] // num_members
    return tuple(length * m for m in range(1, num_members + 1))


def _last_epochs(section: Section) -> tuple[int, ...]:
    """Returns the epochs that a checkpoint ensemble keeps."""
    num_epochs, between = section["num_epochs"], section.get("epochs_between", 1)
    return tuple(
        num_epochs - between * m for m in reversed(range(section["num_members"]))
    )


def _swag(section: Section) -> dict[str, Any]:
    """Returns the section with every setting of SWAG, and its schedule."""
    num_epochs = section["num_epochs"]
    defaults = {
        "swag_start": num_epochs - num_epochs // 4 + 1,
        "swag_rank": 20,
        "swag_scale": 1.0,
        "swag_learning_rate": 0.05,
    }
    chosen = {
        name: default if section.get(name) is None else section[name]
        for name, default in defaults.items()
    }
    return {**section, **chosen, "schedule": "cosine_then_constant"}


def _moments(section: Section, by_accuracy: ByAccuracy) -> best_epoch.Selection:
    del by_accuracy
    own = _swag(section)
    start = own["swag_start"]
    rank = min(own["swag_rank"], own["num_epochs"] - start + 1)
    return swag.collect(start, rank)


def _samples(moments, section, num_members, key, refresh):
    scale = _swag(section)["swag_scale"]
    key = rng.stream(key, "samples")
    return refresh(swag.draw(moments, key, num_members, scale))


def _faults_of_swag(values: Mapping[str, Any]) -> Iterator[str]:
    teachers = values["teachers"]
    own = _swag(teachers)
    start, num_epochs = own["swag_start"], own["num_epochs"]
    if not 2 <= start < num_epochs:
        yield (
            f"teachers.swag_start={teachers['swag_start']} of teachers.num_epochs="
            f"{num_epochs} collects weights from epoch {start} on; accepted: 2 to "
            f"{num_epochs - 1}, for at least two epochs"
        )
    peak, rate = own["learning_rate"], own["swag_learning_rate"]
    if rate > peak:  # as the default is of SGD
        yield (
            f"teachers.swag_learning_rate={rate} must be at most "
            f"teachers.learning_rate={peak}, from which the rate falls to it"
        )
    if own["swag_rank"] < 2:
        yield f"teachers.swag_rank={own['swag_rank']} must be at least 2"
    if teachers.get("ema_decay") is not None:
        yield (
            f"teachers.ema_decay={teachers['ema_decay']} must be None for "
            "teachers.kind='swag', which averages the weights itself"
        )
    yield from _faults_of_networks(teachers)
    if teachers["networks"] == 1:
        yield from _faults_of_one_network(values)
    yield from _faults_of_selection(teachers)


def _faults_of_checkpoints(values: Mapping[str, Any]) -> Iterator[str]:
    teachers = values["teachers"]
    if _last_epochs(teachers)[0] < 1:
        needed = 1 + (teachers["num_members"] - 1) * teachers["epochs_between"]
        yield (
            f"teachers.num_epochs={teachers['num_epochs']} must be at least {needed} "
            f"for {teachers['num_members']} checkpoints with teachers.epochs_between="
            f"{teachers['epochs_between']}"
        )
    yield from _faults_of_one_network(values)
    yield from _faults_of_selection(teachers)


def _faults_of_snapshots(values: Mapping[str, Any]) -> Iterator[str]:
    teachers = values["teachers"]
    num_epochs, num_members = teachers["num_epochs"], teachers["num_members"]
    if num_epochs % num_members:
        yield (
            f"teachers.num_epochs={num_epochs} must be a multiple of "
            f"teachers.num_members={num_members} for snapshots, of a cycle each"
        )
    yield from _faults_of_one_network(values)
    yield from _faults_of_selection(teachers)


def _faults_of_selection(teachers: Section) -> Iterator[str]:
    if teachers["select"] != "last":
        yield (
            f"teachers.select={teachers['select']!r} must be last for teachers.kind="
            f"{teachers['kind']!r}, whose epochs are fixed"
        )


def _faults_of_dropout(values: Mapping[str, Any]) -> Iterator[str]:
    rate, teachers = values["model"].get("dropout_rate"), values["teachers"]
    networks, num_members = teachers["networks"], teachers["num_members"]
    yield from _faults_of_networks(teachers)
    if not rate and networks < num_members:
        yield (
            f"model.dropout_rate={rate!r} must be above 0 for teachers.kind='dropout', "
            "whose members differ in nothing else"
        )
    if networks == 1:
        yield from _faults_of_one_network(values)


def _faults_of_networks(teachers: Section) -> Iterator[str]:
    networks, num_members = teachers["networks"], teachers["num_members"]
    if num_members % networks:
        yield (
            f"teachers.networks={networks} must divide teachers.num_members="
            f"{num_members}, so that each network has as many members"
        )


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
        select=lambda section, by_accuracy: by_accuracy(True),
        teachers=_stacked,
    ),
    # One network at the end of each of M cycles of the learning rate (Huang et al.,
    # *Snapshot Ensembles*, 2017, arXiv 1704.00109).
    "snapshot": Kind(
        num_trained=_one,
        num_kept=_all,
        select=lambda section, by_accuracy: best_epoch.at(_ends_of_cycles(section)),
        teachers=_stacked,
        training=_cycles,
        faults=_faults_of_snapshots,
    ),
    # One network after each of the last epochs of one training (Chen, Lundberg, Lee,
    # *Checkpoint Ensembles*, 2017, arXiv 1710.03282).
    "checkpoint": Kind(
        num_trained=_one,
        num_kept=_all,
        select=lambda section, by_accuracy: best_epoch.at(_last_epochs(section)),
        teachers=_stacked,
        faults=_faults_of_checkpoints,
    ),
    # M networks, each beside a frozen network of its own at its random start (Osband et
    # al., 2018, arXiv 1806.03335).
    "prior": Kind(
        num_trained=_all,
        num_kept=_all,
        select=lambda section, by_accuracy: by_accuracy(True),
        teachers=_stacked,
        network=_with_prior,
        passes=2,
    ),
    # M narrow networks, with α/M of the channels each (Laurent et al.,
    # *Packed-Ensembles*, 2023, arXiv 2210.09184); α = M is `deep`.
    "packed": Kind(
        num_trained=_all,
        num_kept=_all,
        select=lambda section, by_accuracy: by_accuracy(True),
        teachers=_stacked,
        network=_narrow,
        passes=None,
    ),
    # Networks trained with dropout, under M masks that are drawn once: one network (Gal
    # and Ghahramani, *Dropout as a Bayesian Approximation*, 2016, arXiv 1506.02142), or
    # several (stochastic ensembles).
    "dropout": Kind(
        num_trained=_networks,
        num_kept=_networks,
        select=lambda section, by_accuracy: by_accuracy(False),
        teachers=_masked,
        first_rngs=_first_mask,
        faults=_faults_of_dropout,
    ),
    # Samples of the distribution of the weights in the last epochs of one training
    # (Maddox et al., 2019, arXiv 1902.02476), or of several (Wilson and Izmailov,
    # *MultiSWAG*, 2020, arXiv 2002.08791).
    "swag": Kind(
        num_trained=_networks,
        num_kept=_all,
        select=_moments,
        teachers=_stacked,
        finish=_samples,
        training=_swag,
        faults=_faults_of_swag,
    ),
}
