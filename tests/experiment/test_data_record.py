"""Tests that digests, not paths, identify the data of a run."""

import json
import shutil

import jax
import numpy as np
import pytest
from digit_files import digits_by_class, write_folder, write_npz

from edp.errors import InputError
from edp.experiment import data_record, step_inputs
from edp.experiment.create import create_experiment, record_run
from edp.runtime.stage import Stage
from tests.configs import tiny


def make_config(path, **data):
    config = tiny.get_config("single_none")
    config.data.update(path=str(path), test_size=None, **data)
    config.data.update(train_size=60, validation_size=40)
    config.evaluation.update(ood_sets=(), corruptions=())
    return config


def begin(config, workdir):
    """Begins the teachers' stage without training."""
    experiment = create_experiment(config, workdir)
    record_run(experiment)
    Stage(experiment.run.teachers_dir, experiment.run.teacher_dependencies).begin()
    return experiment


def test_the_same_arrays_elsewhere_are_accepted_and_others_refused(tmp_path):
    parts = digits_by_class()
    write_npz(tmp_path, parts)
    npz, workdir = tmp_path / "digits.npz", tmp_path / "run"
    config = make_config(npz, source="npz")
    run = begin(config, workdir).run
    settings = json.loads((run.teachers_dir / "settings.json").read_text())
    assert "path" not in settings["data"] and settings["data"]["source"] == "npz"
    elsewhere = tmp_path / "mounted" / "other.npz"
    elsewhere.parent.mkdir()
    shutil.copy(npz, elsewhere)
    create_experiment(make_config(elsewhere, source="npz"), workdir)
    # A workdir whose stages depended on the path, and one without digests.
    settings["data"]["path"] = str(npz)
    (run.teachers_dir / "settings.json").write_text(json.dumps(settings))
    create_experiment(make_config(elsewhere, source="npz"), workdir)
    (workdir / "data.json").rename(tmp_path / "data.json")
    create_experiment(config, workdir)
    (tmp_path / "data.json").rename(workdir / "data.json")

    for images in (images for images, _ in parts.values()):
        images[5] ^= 1
    write_npz(elsewhere.parent, parts)
    changed = make_config(elsewhere.parent / "digits.npz", source="npz")
    with pytest.raises(InputError, match=r"digits\.npz are not .*\(train differ from"):
        create_experiment(changed, workdir)
    # Neither are they the data of another run's teachers.
    changed.teachers_workdir = str(workdir)
    (run.teachers_dir / "complete.json").write_text("{}")
    with pytest.raises(InputError, match=r"are not those that .*run was begun with"):
        create_experiment(changed, tmp_path / "students")
    parts["train"][0][5] ^= 1  # the test images alone: evaluation remakes its files
    write_npz(elsewhere.parent, parts)
    changed.teachers_workdir = None
    create_experiment(changed, workdir)


def test_a_streamed_folder_may_be_given_in_another_way(tmp_path, monkeypatch):
    write_folder(tmp_path, digits_by_class())
    monkeypatch.chdir(tmp_path)
    root, workdir = tmp_path / "digits", tmp_path / "run"
    begin(make_config(root, source="folder", stream=True), workdir)
    for path in (f"{root}/", "digits", "./digits/."):
        create_experiment(make_config(path, source="folder", stream=True), workdir)
    # With the other `data.stream` too; likewise in a run begun in memory.
    in_memory, loaded = make_config(root, source="folder"), tmp_path / "loaded"
    create_experiment(in_memory, workdir)
    begin(in_memory, loaded)
    streamed = make_config(root, source="folder", stream=True)
    create_experiment(streamed, loaded)
    image = root / "train/3/040.png"
    shutil.copy(root / "train/3/041.png", image)
    for config in (streamed, in_memory):
        for begun in (workdir, loaded):
            with pytest.raises(InputError, match=r"differ from .*data\.json"):
                create_experiment(config, begun)


def test_soft_labels_of_the_training_images(tmp_path):
    write_npz(tmp_path, digits_by_class())
    config = make_config(tmp_path / "digits.npz", source="npz")
    workdir, students = tmp_path / "run", tmp_path / "students"
    run = begin(config, workdir).run
    number = len(digits_by_class()["train"][1])
    rows = np.random.default_rng(0).uniform(size=(number, 10))
    rows[np.arange(number), digits_by_class()["train"][1]] += 10
    rows /= rows.sum(axis=1, keepdims=True)
    np.save(tmp_path / "soft.npy", rows)
    config.data.soft_labels = str(tmp_path / "soft.npy")
    with pytest.raises(InputError, match=r"\(soft_labels differ from"):
        create_experiment(config, workdir)
    # Students may have soft labels where their teachers, of another run, had none.
    (run.teachers_dir / "complete.json").write_text("{}")
    config.teachers_workdir = str(workdir)
    experiment = begin(config, students)
    own = rows[experiment.data.dataset.trained]
    for shape in ((5,), (2, 5)):  # one batch; a batch per member
        indices = np.arange(60)[-np.prod(shape) :].reshape(shape)
        batch = step_inputs.make_batch(
            jax.random.key(0),
            experiment.data.train,
            indices,
            augment=step_inputs.create_augment(config.data),
            mesh=None,
        )
        np.testing.assert_allclose(batch["label"], own[indices], rtol=1e-6)
        assert batch["image"].shape == (*shape, 8, 8, 1)
    # A copy elsewhere is accepted; without soft labels the workdir is not continued.
    shutil.copy(tmp_path / "soft.npy", tmp_path / "copy.npy")
    config.data.soft_labels = str(tmp_path / "copy.npy")
    create_experiment(config, students)
    config.data.soft_labels = None
    with pytest.raises(InputError, match=r"\(soft_labels differ from"):
        create_experiment(config, students)


def test_a_digest_of_many_files_covers_an_even_part(tmp_path, monkeypatch):
    from edp import data

    labels = np.arange(25, dtype=np.int32)
    split = data.Split(np.zeros((25, 2, 2, 1), np.uint8), labels)
    monkeypatch.setattr(data_record, "_MOST_FILES", 10)
    spread = data_record._spread(split)
    assert spread.labels.tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24]
    monkeypatch.setattr(data_record, "_MOST_FILES", 25)
    assert len(data_record._spread(split).labels) == 25
