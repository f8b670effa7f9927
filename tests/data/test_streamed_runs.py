"""Tests of runs on streamed datasets."""

import contextlib
import itertools
import json
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from launching import Commands, tiny
from streamed_sets import make_config

from edp.experiment.create import create_experiment
from edp.runtime import loop
from launch import distill, train_teachers
from launch.cli import signals


def stop_after(monkeypatch, dispatches):
    """Interrupts the next training after a number of steps."""

    @contextlib.contextmanager
    def stop_requests():
        asked = itertools.count()
        yield lambda: next(asked) >= dispatches

    monkeypatch.setattr(signals, "stop_requests", stop_requests)


def train(tfds_dir, workdir, **settings):
    """Trains teachers and a student; returns the variables of both and their logs."""
    config = make_config(tfds_dir, stream=settings.pop("stream"))
    config.update(settings)
    experiment = create_experiment(config, workdir)
    train_teachers.train_teachers(experiment)
    distill.distill_student(experiment, "single_none")
    return results(workdir)


def results(workdir):
    found = []
    for stage in ("teachers", "students/single_none"):
        with ocp.StandardCheckpointer() as checkpointer:
            found.append(checkpointer.restore(workdir / stage / "variables"))
        log = (workdir / stage / "metrics.jsonl").read_text().splitlines()
        found.append([json.loads(line) for line in log])
    return found


def test_neither_streaming_nor_dispatching_changes_a_result(
    tfds_dir, tmp_path, monkeypatch
):
    """An interruption within an epoch changes nothing, also with bootstrap samples."""
    sampled = {"teachers": {"bootstrap": True}}
    expected = train(tfds_dir, tmp_path / "in_memory", stream=False, **sampled)
    streamed = {"stream": True, "steps_per_dispatch": 2, **sampled}
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(loop.Interrupted, match="step 2 of 8"):
            train(tfds_dir, tmp_path / "streamed", **streamed)
    found = train(tfds_dir, tmp_path / "streamed", **streamed)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        found,
        expected,
    )
    assert "tensorflow" not in sys.modules


@pytest.mark.long
def test_a_run_on_photos_of_any_size(tfds_dir, tmp_path):
    workdir = tmp_path / "run"
    settings = {
        "source": "tfds",
        "name": "edp_photos",
        "data_dir": tfds_dir,
        "image_shape": "(16, 12, 3)",
        "num_classes": 3,
        "train_size": 20,
        "validation_size": 4,
        "test_size": 8,
        "stream": True,
        "resize": "random_crop",
        "num_workers": 1,
    }
    flags = [f"--config.data.{name}={value}" for name, value in settings.items()]
    flags += ["--config.teachers.batch_size=8", "--config.distill.batch_size=8"]
    done = Commands(tmp_path / "compiled").run(
        "run", *tiny(workdir, "single_gaussian"), *flags
    )
    assert done.code == 0, done
    rows = json.loads((workdir / "results.json").read_text())
    assert [row["model"] for row in rows] == ["DE-1", "DE-2", "single_gaussian"]
    with np.load(workdir / "predictions" / "teachers.npz") as file:
        assert file["test_probs"].shape == (2, 8, 3)
    with np.load(workdir / "split.npz") as file:
        assert len(file["train_labels"]) == 24 and len(file["test_labels"]) == 8
    assert (workdir / "report.html").exists()
