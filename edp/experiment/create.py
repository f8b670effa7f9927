"""Experiment: a run with its data and its devices, created from its configuration."""

import functools
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from edp import data
from edp.data import corruption_files
from edp.errors import InputError
from edp.experiment import data_record, preconditions, provenance, settings
from edp.experiment.run import Run, create_run, find_teachers
from edp.runtime import multihost, sharding, storage


class RunData(NamedTuple):
    """The data of a run.

    Attributes:
      dataset: labels in host memory, images there or on disk.
      ood_sets: by the names of `evaluation.ood_sets`, images of the shape of
        `dataset.full_test`, read when they are indexed.
      corrupted_sets: by name, the folders of `evaluation.corruptions`.
      soft_labels: of `evaluation.soft_labels`, float64 [N, K] of the test images; None
        without them.
      train: the training split on the device, (images uint8, labels [N] or soft
        labels [N, K]); None where it is streamed.
      digests: of the data that training depends on; see `data_record`.
      drawn_split: the bytes of `split.npz`, where a new split was drawn.
    """

    dataset: data.Dataset
    ood_sets: Mapping[str, data.Records]
    corrupted_sets: Mapping[str, corruption_files.CorruptedSets]
    soft_labels: np.ndarray | None
    train: tuple[jax.Array, jax.Array] | None
    digests: Mapping[str, str]
    drawn_split: bytes | None = None


class Experiment(NamedTuple):
    """A run that can be trained and evaluated.

    Attributes:
      run: its specification.
      data: its data.
      mesh: its devices, or None for one device.
      shared: what stages of this process share, by what it depends on: the jitted
        initialisations of students, operations counted, `clean_targets`.
    """

    run: Run
    data: RunData
    mesh: jax.sharding.Mesh | None
    shared: dict[Any, Any]


def create_experiment(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Experiment:
    """Checks a configuration, opens the data and places the training split.

    A single process writes nothing; `record_run` writes.

    Args:
      config: a configuration that `validate.check` accepts.
      workdir: the directory of the run.

    Raises:
      InputError: if the workdir, a setting or the data are at fault; names them.
    """
    storage.check_writable(workdir)
    provenance.check_workdir(workdir)
    provenance.check_version(workdir)
    provenance.check_hardware(workdir)
    teachers = find_teachers(config, workdir)
    student_settings = settings.resolve_students(config)
    preconditions.check_stages(config, workdir, teachers.dependencies, student_settings)
    mesh = sharding.create_mesh(config.mesh.member, config.mesh.data)
    num_members = teachers.dependencies["teachers"]["num_members"]
    sharding.check_divides(mesh, sharding.MEMBER, "teachers.num_members", num_members)
    preconditions.check_model(config)
    # A student must not see the images that its teachers were validated on, so the
    # split is that of the teachers, wherever they were trained.
    stored = teachers.workdir / "split.npz"
    with multihost.first_then_others(), tempfile.TemporaryDirectory() as scratch:
        drawn = pathlib.Path(scratch) / "split.npz"
        options = {
            "seed": teachers.dependencies["seed"],
            "split_path": stored if stored.exists() else drawn,
        }
        dataset = data.create_dataset(config.data, **options)
        training_labels = None
        if path := config.data.get("soft_labels"):
            training_labels = data.read_training_labels(path, dataset)
        digests = data_record.training_digests(dataset, training_labels)
        other = functools.partial(
            data_record.other_digests, dataset, config.data, **options
        )
        for place in dict.fromkeys((teachers.workdir, workdir)):
            data_record.check(place, digests, config.data, other, own=place == workdir)
        ood_sets = _open_ood_sets(config)
        corrupted_sets = corruption_files.open_all_corrupted(
            config.evaluation.corruptions,
            image_shape=tuple(config.data.image_shape),
            class_names=dataset.class_directories or dataset.class_names,
        )
        soft_labels = None
        if path := config.evaluation.get("soft_labels"):
            soft_labels = data.read_soft_labels(path, dataset)
        run = create_run(
            config,
            workdir,
            teachers,
            student_settings,
            num_train=len(dataset.train.labels),
            class_names=dataset.class_names,
        )
        preconditions.check_sizes(run, mesh)
        preconditions.check_students(run)
        split = drawn.read_bytes() if drawn.exists() else None
        if jax.process_count() > 1:  # spares the others from drawing it again
            _write_split(workdir, split)
    train = None
    if not config.data.stream:
        train = tuple(dataset.train)
        if training_labels is not None:
            train = train[0], training_labels
        train = sharding.put(train, mesh)
    run_data = RunData(
        dataset, ood_sets, corrupted_sets, soft_labels, train, digests, split
    )
    return Experiment(run, run_data, mesh, {})


def _open_ood_sets(config: ml_collections.ConfigDict) -> dict[str, data.Records]:
    return {
        name: data.open_foreign(
            name,
            size=config.evaluation.ood_size,
            image_shape=tuple(config.data.image_shape),
            data_dir=config.data.data_dir,
        )
        for name in config.evaluation.ood_sets
    }


def record_run(experiment: Experiment) -> None:
    """Writes `config.json`, `run.json` and, where missing, `split.npz`, `data.json`.

    The caller is about to write results and holds their lock: a command that is
    refused leaves the files of the run as they are.

    Raises:
      InputError: if they cannot be written.
    """
    directory = experiment.run.workdir
    text = experiment.run.config.to_json(indent=2) + "\n"
    try:
        _write_split(directory, experiment.data.drawn_split)
        data_record.write(directory, experiment.data.digests)
        storage.write_text(directory / "config.json", text)
        provenance.record(directory)
    except OSError as error:
        raise InputError(
            f"workdir={str(directory)!r} cannot be used: {error}"
        ) from error


def _write_split(directory: pathlib.Path, split: bytes | None) -> None:
    path = directory / "split.npz"
    if split is not None and not path.exists():
        storage.write_bytes(path, split)
