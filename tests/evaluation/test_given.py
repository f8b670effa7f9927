"""Tests of predictions made elsewhere: their files, their checks and their rows."""

import json
import subprocess
import sys

import documents
import numpy as np
import pytest

from edp.errors import InputError
from edp.evaluation import given, scoring
from edp.runtime import storage

M, K = 3, 4
SIZES = {"validation": 20, "test": 30}


def arrays(student=True):
    """Returns logits of the ensemble, and probabilities of a student `kd`."""
    rng = np.random.default_rng(0)
    result = {}
    for split, size in SIZES.items():
        labels = np.arange(size) % K
        logits = np.eye(K)[labels] + rng.normal(size=(M, size, K))
        result[f"{split}_labels"] = labels
        result[f"{split}_logits"] = logits.astype(np.float32)
        if student:
            result[f"kd/{split}_probs"] = softmax(logits[0])
    return result


def softmax(logits):
    exponentials = np.exp(logits.astype(float))
    return exponentials / exponentials.sum(-1, keepdims=True)


def write(path, values, layout):
    if layout == "file":
        np.savez(path.with_suffix(".npz"), **values)
        return path.with_suffix(".npz")
    path.mkdir()
    if layout == "npy":
        (path / "kd").mkdir()
        for name, value in values.items():
            np.save(path / f"{name}.npy", value)
    else:  # as `predictions/` of a run
        own = {k.removeprefix("kd/"): v for k, v in values.items() if "/" in k}
        labels = {k: v for k, v in values.items() if "labels" in k}
        np.savez(path / "kd.npz", **own, **labels)
        np.savez(
            path / "teachers.npz", **{k: v for k, v in values.items() if "/" not in k}
        )
        (path / "made_from.json").write_text("{}")
    return path


@pytest.mark.parametrize("layout", ["file", "npy", "npz"])
def test_rows_are_those_of_a_run_with_the_same_predictions(tmp_path, layout):
    values = arrays()
    found = given.read_given(write(tmp_path / "p", values, layout))
    assert list(found) == ["teachers", "kd"]
    assert found["kd"].inference_cost == 1.0
    rows = given.score_given(found)
    assert [row["model"] for row in rows] == ["DE-1", "DE-2", "DE-3", "kd"]
    probs = softmax(values["test_logits"])
    np.testing.assert_allclose(found["teachers"].predictions.test_probs, probs, 1e-5)
    pooled = probs.mean(0)
    labels = values["test_labels"]
    assert rows[2]["accuracy"] == np.mean(pooled.argmax(-1) == labels)
    nll = -np.log(pooled[np.arange(30), labels]).mean()
    assert rows[2]["nll"] == pytest.approx(nll, rel=1e-5)
    assert [row["inference_cost"] for row in rows] == [1, 2, 3, 1]
    # The same scores as in a run, without what only a run knows.
    expected = scoring.ensemble_rows(
        found["teachers"].predictions, seed=0, costs=[{}] * M
    )
    for row, other in zip(rows[:M], expected, strict=True):
        assert other.items() - row.items() == {("seed", 0)}
    assert not {"seed", "num_params", "train_seconds", "perturbation"} & rows[3].keys()
    assert rows[3]["gap_closed"] == pytest.approx(
        (rows[0]["cnll"] - rows[3]["cnll"]) / (rows[0]["cnll"] - rows[2]["cnll"])
    )


def set_in(name, place, value):
    def change(values):
        values[name] = np.array(values[name])
        values[name][place] = value

    return change


def swap(old, new):
    return lambda values: values.update({new: values.pop(old)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.pop("test_labels"), "test_labels is missing"),
        (lambda v: v.pop("test_logits"), "neither test_probs nor test_logits given"),
        (
            lambda v: v.update(test_probs=v["test_logits"]),
            "both test_probs and test_logits given",
        ),
        (swap("test_labels", "test_label"), "named test_label; did you mean test_lab"),
        (swap("test_logits", "test_probs"), r"test_probs\[0, 0\] has the entry -"),
        (
            set_in("kd/test_probs", (7, 1), 0.9),
            r"kd/test_probs\[0, 7\] sums to 1\..*accepted: rows of probabilities",
        ),
        (swap("kd/test_probs", "kd/test_logits"), "kd/test_logits holds probabilities"),
        (set_in("test_logits", (1, 2, 0), np.nan), r"test_logits\[1, 2\] is .*nan"),
        (set_in("test_labels", 3, K), "test_labels has values from 0 to 4; .*0 to 3"),
        (
            lambda v: v.update(test_labels=v["test_labels"].astype(float)),
            r"test_labels is float64 of shape \(30,\); accepted: integers",
        ),
        (
            lambda v: v.update(test_logits=v["test_logits"][0]),
            r"test_logits has shape \(30, 4\); accepted: \[M, N, K\], the mem",
        ),
        (
            lambda v: v.update(test_logits=v["test_logits"][:, :29]),
            r"the ensemble: test_labels must be \[N\]",
        ),
        (
            lambda v: v.update({"kd/test_probs": v["kd/test_probs"][:29]}),
            r"kd/test_labels must be \[N\]",
        ),
        (
            lambda v: v.update({"kd/test_labels": v["test_labels"][::-1]}),
            "kd/test_labels differ from test_labels of the ensemble",
        ),
        (
            lambda v: v.update(
                {f"kd/{s}_probs": np.full((n, 2), 0.5) for s, n in SIZES.items()}
            ),
            "kd/test_probs has 2 classes, the ensemble 4",
        ),
        (lambda v: v.update({"DE-1/test_probs": v["kd/test_probs"]}), "student 'DE-1'"),
        (
            lambda v: v.update({"kd/inference_cost": np.array(0)}),
            "kd/inference_cost=.*above 0",
        ),
    ],
)
def test_faulty_arrays_are_named(tmp_path, change, words):
    values = arrays()
    change(values)
    path = write(tmp_path / "p", values, "file")
    with pytest.raises(InputError, match=f"predictions='.*p.npz': .*{words}"):
        given.read_given(path)


def test_missing_files_and_empty_directories_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file or directory"):
        given.read_given(tmp_path / "none")
    with pytest.raises(InputError, match=r"it has no arrays; accepted: \.npy files"):
        given.read_given(tmp_path)


def test_log_probabilities_are_logits(tmp_path):
    values = arrays(student=False)
    for split in SIZES:
        probs = softmax(values[f"{split}_logits"])
        probs[0, 0] = [0.0, 0.5, 0.5, 0.0]
        with np.errstate(divide="ignore"):
            values[f"{split}_logits"] = np.log(probs)
    found = given.read_given(write(tmp_path / "p", values, "file"))
    probs = found["teachers"].predictions.test_probs
    np.testing.assert_allclose(probs[0, 0], [0.0, 0.5, 0.5, 0.0], rtol=1e-6)


def evaluate(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "launch.evaluate", *map(str, arguments)],
        cwd=documents.ROOT,
        env=documents.environment(),
        capture_output=True,
        text=True,
    )


def test_the_command_writes_table_and_report(tmp_path):
    source = write(tmp_path / "p", arrays(), "file")
    workdir = tmp_path / "mine"
    done = evaluate(f"--predictions={source}", f"--workdir={workdir}")
    assert done.returncode == 0, done
    assert "DE-3" in done.stdout and f"Report: {workdir}/report.html" in done.stdout
    rows = json.loads((workdir / "results.json").read_text())
    assert rows == given.score_given(given.read_given(workdir / "predictions"))
    assert "kd" in (workdir / "results.md").read_text()
    figures = {path.name for path in (workdir / "figures").iterdir()}
    assert {"cnll.svg", "reliability_kd.svg"} <= figures
    # A run's workdir is never written to.
    (workdir / "config.json").write_text("{}")
    done = evaluate(f"--predictions={source}", f"--workdir={workdir}")
    assert done.returncode == 2 and "is that of a run; accepted: a new" in done.stderr


@pytest.mark.parametrize(
    "name", ["results.json", "report.html", "predictions/teachers.npz"]
)
def test_files_of_others_are_not_replaced(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('[{"model": "bert"}]')
    top = name.partition("/")[0]
    with pytest.raises(InputError, match=f"holds {top}, which would be replaced"):
        given.check_workdir(tmp_path, tmp_path / "p.npz")


def test_the_given_file_is_not_replaced(tmp_path):
    (tmp_path / "predictions").mkdir()
    source = write(tmp_path / "predictions" / "teachers", arrays(), "file")
    linked = tmp_path / "link.npz"
    linked.symlink_to(source)
    for path in (source, source.parent, linked):
        with pytest.raises(InputError, match="is in the workdir"):
            given.check_workdir(tmp_path, path)


def test_an_earlier_evaluation_is_replaced(tmp_path):
    rows = given.score_given(given.read_given(write(tmp_path / "p", arrays(), "file")))
    workdir = tmp_path / "mine"
    storage.write_json(workdir / "results.json", rows)
    (workdir / "predictions").mkdir()
    given.check_workdir(workdir, tmp_path / "p.npz")
    # Rows of a run have a seed.
    storage.write_json(workdir / "results.json", [{**rows[0], "seed": 0}])
    with pytest.raises(InputError, match=r"holds results\.json, predictions, which"):
        given.check_workdir(workdir, tmp_path / "p.npz")
