"""Tests workdirs in an object store, simulated by a restricted directory."""

import errno
import json
import pathlib
import shutil

import numpy as np
import pytest
from etils.epath import gpath
from seed_runs import make_predictions, make_run

from edp import report
from edp.data import splits
from edp.errors import InputError
from edp.evaluation import predictions
from edp.report.seeds import runs, summary, tables
from edp.runtime import storage
from edp.runtime.stage import Stage


class Store:
    """Object store: reads and writes whole files; has no directories or renames."""

    def __init__(self, root):
        self.root = root
        self.writes = []

    def _local(self, path):
        text = str(path)
        assert text.startswith("gs://bucket/"), text
        return self.root / text.removeprefix("gs://bucket/")

    def open(self, path, mode):
        local = self._local(path)
        assert mode in ("r", "rb", "w", "wb"), mode
        if "w" in mode:
            self.writes.append(str(path))
            local.parent.mkdir(parents=True, exist_ok=True)
        return local.open(mode)

    def exists(self, path):
        return self._local(path).exists()

    def isdir(self, path):
        return self._local(path).is_dir()


@pytest.fixture
def store(tmp_path, monkeypatch):
    store = Store(tmp_path / "bucket")
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", store)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    return store


def test_local_paths_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.as_path("~/runs") == tmp_path / "runs"
    assert storage.as_path("a/gs:/b") == pathlib.Path("a/gs:/b")
    local = storage.as_path(tmp_path)
    assert isinstance(local, pathlib.Path) and not storage.is_remote(local)
    assert storage.absolute(pathlib.Path("x")) == pathlib.Path("x").absolute()


def test_paths_of_a_store_keep_their_scheme():
    path = storage.as_path("gs://bucket/run")
    assert storage.is_remote(path) and str(path) == "gs://bucket/run"
    assert str(storage.absolute(path) / "students") == "gs://bucket/run/students"
    assert (
        str(storage.as_path(path)) == "gs://bucket/run" and path.parent.name == "bucket"
    )
    for other in ("ftp://host/run", "http://x"):
        with pytest.raises(InputError, match=r"accepted: a path, or .*gs://"):
            storage.as_path(other)


def test_stages_are_kept_in_a_store(store):
    path = storage.as_path("gs://bucket/run/teachers")
    stage = Stage(path, {"seed": 0, "shape": (1, 2)})
    assert stage.record is None
    stage.begin()
    for epoch in (1, 2, 3):
        storage.append_line(stage.log, json.dumps({"epoch": epoch, "step": 4 * epoch}))
    training_log = stage.log.read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in training_log] == [1, 2, 3]
    stage.complete({"train_seconds": 1.0, "num_params": 3})
    assert stage.record["train_seconds"] == 1.0
    # Each file in one write, under its own name.
    assert store.writes == [
        f"gs://bucket/run/teachers/{name}"
        for name in ("settings.json", *["metrics.jsonl"] * 3, "complete.json")
    ]
    with pytest.raises(
        InputError, match="gs://bucket/run/teachers was made with other"
    ):
        Stage(path, {"seed": 1, "shape": (1, 2)})


def test_arrays_are_read_from_a_store(store):
    path = storage.as_path("gs://bucket/run/predictions/x.npz")
    made = make_predictions(0, 1.0)
    predictions.save_predictions(path, made)
    for name in (path, str(path)):
        read = predictions.load_predictions(name)
        np.testing.assert_array_equal(read.test_probs, made.test_probs)
        assert storage.read_npz(name).keys() == set(made._fields)
    assert splits.stored_labels("gs://bucket/run/split.npz") == {}
    with pytest.raises(InputError, match=r"gs://bucket/other\.npz does not exist"):
        storage.read_npz("gs://bucket/other.npz")


@pytest.mark.parametrize("compress", [False, True])
def test_npz_files_are_written_atomically_and_read_by_name(
    tmp_path, monkeypatch, compress
):
    path = tmp_path / "new" / "x.npz"
    written = {"a": np.arange(3, dtype=np.int16), "b": np.array(["x", "yz"])}
    storage.write_npz(path, written, compress=compress)
    found = storage.read_npz(path)
    assert list(found) == ["a", "b"] and found["a"].dtype == np.int16
    np.testing.assert_array_equal(found["b"], written["b"])
    assert list(storage.read_npz(path, ["b"])) == ["b"]
    with pytest.raises(
        InputError, match=r"x\.npz cannot be read as an .npz.*'c is not"
    ):
        storage.read_npz(path, ["c"])

    def full_disk(file):
        raise OSError(errno.ENOSPC, "no space left")

    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(storage.os, "fsync", full_disk)
        storage.write_npz(path, {"a": np.zeros(9)})
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    np.save(tmp_path / "y.npy", written["a"])
    with pytest.raises(InputError, match=r"y\.npy cannot be read as an .npz"):
        storage.read_npz(tmp_path / "y.npy")


def test_a_report_and_a_summary_of_a_store(store, tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"run{seed}", seed)
        shutil.copytree(tmp_path / f"run{seed}", store.root / f"run{seed}")
    path = report.write_report("gs://bucket/run0")
    assert str(path) == "gs://bucket/run0/report.html" and "<html" in path.read_text()
    assert (store.root / "run0/figures/cnll.svg").exists()
    report.write_report(tmp_path / "run0")
    same = (tmp_path / "run0/report.html").read_text()
    assert path.read_text() == same
    found = runs.read_runs(["gs://bucket/run0", "gs://bucket/run1"])
    files = tables.write_summary(
        summary.summarize_runs(found), storage.as_path("gs://bucket/s")
    )
    assert all((store.root / "s" / name).exists() for name in files)


def test_an_unreachable_store_is_one_line(monkeypatch):
    class Down:
        def exists(self, path):
            raise self.error

    down = Down()
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", down)
    path = storage.as_path("gs://bucket/run")
    down.error = PermissionError("no credentials")
    with pytest.raises(InputError, match="workdir='gs://bucket/run' cannot be used: P"):
        storage.check_writable(path)
    down.error = ImportError("gcsfs")
    with pytest.raises(InputError, match=r"needs gcsfs: pip install gcsfs"):
        storage.check_writable(path)
