"""Tests the commands as processes on small runs."""

import json
import math
import re
import shutil

import numpy as np
import pytest
from finished_runs import (
    STAGES,
    STUDENTS,
    assert_same_run,
    programs_compiled,
    read_log,
    read_rows,
    steps_compiled,
    variables,
)
from launching import UNSHIFTED, snapshot, succeed, tiny

SCORES = ("accuracy", "nll", "brier", "ece", "aurc", "cnll", "cbrier", "cece")
SCORES += ("temperature",)
DIVERSITY = ("pairwise_kl", "disagreement_rate", "mutual_information")


def test_run_leaves_its_files(finished):
    stage = {"settings.json", "metrics.jsonl", "complete.json"}
    expected = {"config.json", "run.json", "split.npz", "results.json", "results.md"}
    expected |= {"report.html", "analysis.json", "gallery.npz"}
    expected |= {"data.json", "ood.json", "corruptions.json", "measures.json"}
    expected |= {f"{at}/{name}" for at in STAGES for name in stage}
    expected |= {f"predictions/{name}.npz" for name in ("teachers", *STUDENTS)}
    expected |= {f"corruptions/{name}.npz" for name in STUDENTS}
    expected |= {f"students/{name}/teachers.json" for name in STUDENTS}
    figures = ["cnll", "pareto", "risk_coverage", "training_loss", "training_accuracy"]
    figures += [f"reliability_{name}" for name in ("DE-2", *STUDENTS)]
    for name in ("pairwise_kl", "disagreement_rate", "variance", "error"):
        figures.append(f"diversity_{name}")
    figures += [f"step_size_{name}" for name in ("pairwise_kl", "error")]
    figures += ["corruptions_accuracy", "corruptions_cnll"]
    expected |= {f"figures/{name}.svg" for name in figures}
    found = {
        path
        for path in snapshot(finished)
        if "/checkpoints/" not in path and "/variables/" not in path
    }
    assert found == expected | {"predictions/made_from.json"}
    for name in ("checkpoints", "variables"):
        assert all((finished / stage / name).is_dir() for stage in STAGES)
    assert "<html" in (finished / "report.html").read_text()
    assert (finished / "results.md").read_text().count("DE-2") >= 1
    config = json.loads((finished / "config.json").read_text())
    assert config["teachers"]["num_members"] == 2 and config["model"]["depth"] is None
    assert json.loads((finished / "run.json").read_text())["backend"] == "cpu"


def test_rows_are_complete_and_follow_from_the_predictions(finished):
    rows = read_rows(finished)
    assert [row["model"] for row in rows] == ["DE-1", "DE-2", *STUDENTS]
    params = rows[0]["num_params"]
    for row in rows:
        assert all(
            math.isfinite(value) for value in row.values() if not isinstance(value, str)
        )
        assert row["seed"] == 0 and row["train_seconds"] > 0 and row["dee"] >= 0
        assert all(row[name] >= 0 for name in SCORES)
        assert (row["num_members"] > 1) == all(name in row for name in DIVERSITY)
        assert "gap_closed" in row
    for size, row in enumerate(rows[:2], 1):
        assert row["kind"] == "ensemble" and "student" not in row
        assert row["num_members"] == row["inference_cost"] == size
        assert row["num_params"] == params * size
        for name in ("train_flops", "inference_flops"):
            assert row[name] == size * rows[0][name] > 0
    of_students = [(row["student"], row["perturbation"]) for row in rows[2:]]
    assert of_students == [
        ("batch_ensemble", "disagreement"),
        ("single", "conf_ods"),
        ("single", "none"),
    ]
    assert [row["num_members"] for row in rows[2:]] == [2, 1, 1]
    assert [row["inference_cost"] for row in rows[2:]] == [2, 1, 1]
    assert params < rows[2]["num_params"] < 2 * params
    assert rows[3]["num_params"] == rows[4]["num_params"] == params
    image = rows[0]["inference_flops"]
    assert [row["inference_flops"] for row in rows[2:]] == [2 * image, image, image]
    training = [row["train_flops"] for row in rows[2:]]
    assert training == sorted(training, reverse=True) and training[2] > 0

    for name, row in zip(["teachers", *STUDENTS], rows[1:], strict=True):
        with np.load(finished / "predictions" / f"{name}.npz") as file:
            assert file["validation_probs"].shape == (row["num_members"], 40, 10)
            probs, labels = file["test_probs"], file["test_labels"]
        assert probs.shape == (row["num_members"], 60, 10)
        assert probs.dtype == np.float32
        pooled = probs.astype(float).mean(axis=0)
        assert row["accuracy"] == np.mean(pooled.argmax(-1) == labels)
        nll = -np.log(pooled[np.arange(60), labels]).mean()
        np.testing.assert_allclose(row["nll"], nll, rtol=1e-6)


def test_other_sets_and_corruptions_are_evaluated(finished):
    models = {"DE-1", "DE-2", *STUDENTS}
    for file, name in (("ood.json", "noise"), ("corruptions.json", "contrast")):
        rows = json.loads((finished / file).read_text())["rows"]
        assert {row["model"] for row in rows} == models
        assert {row.get("set", row.get("corruption")) for row in rows} >= {name}
    results = {row["model"]: row for row in read_rows(finished)}
    clean = {row["model"]: row for row in rows if row["corruption"] == "none"}
    for model in models:  # the whole test set is used
        for key in ("accuracy", "nll", "cnll", "ece"):
            np.testing.assert_allclose(
                clean[model][key], results[model][key], rtol=1e-6
            )
    report = (finished / "report.html").read_text()
    assert ">noise</h3>" in report and "accuracy, % by severity" in report


def test_running_again_trains_predicts_and_analyses_nothing(copied, server):
    before = snapshot(copied)
    done = succeed(server.run("run", *tiny(copied)))
    assert done.stderr == ""
    assert (
        "teachers: complete" in done.stdout and "single_none: complete" in done.stdout
    )
    after = snapshot(copied)
    made_anew = {"config.json", "results.json", "results.md", "report.html"}
    made_anew |= {path for path in before if path.startswith("figures/")}
    assert after.keys() == before.keys()
    rewritten = {path for path in after if after[path][0] != before[path][0]}
    assert rewritten == made_anew
    changed = {path for path in after if after[path][1] != before[path][1]}
    assert changed == set()


def test_an_added_student_is_the_only_one_trained(copied, server):
    before = snapshot(copied)
    more = ",".join([*STUDENTS, "single_gaussian"])
    done = succeed(server.run("run", *tiny(copied, more)))
    epochs = re.findall(r"^(\S+)  epoch", done.stderr, re.M)
    assert epochs == ["single_gaussian"] * 3
    after = snapshot(copied)
    kept = [path for path in before if path.split("/")[0] in ("teachers", "students")]
    kept += [f"predictions/{name}.npz" for name in ("teachers", *STUDENTS)]
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
    rows = {row["model"]: row for row in read_rows(copied)}
    assert set(rows) == {"DE-1", "DE-2", *STUDENTS, "single_gaussian"}
    # Students start equal and differ only in their settings.
    logs = [
        read_log(copied / "students" / n) for n in ("single_gaussian", "single_none")
    ]
    assert logs[0] != logs[1]
    np.testing.assert_allclose(logs[0][0]["loss"], logs[1][0]["loss"], rtol=0.05)


def test_single_commands_make_what_run_makes(finished, server, tmp_path):
    workdir = tmp_path / "run"
    done = succeed(server.run("train_teachers", *tiny(workdir), log_compiles=True))
    assert steps_compiled(done) == 1
    assert not (workdir / "students").exists()

    only = [*tiny(workdir), "--only=single_none"]
    done = succeed(server.run("distill", *only, log_compiles=True))
    assert steps_compiled(done) == 1
    assert [path.name for path in (workdir / "students").iterdir()] == ["single_none"]
    first = snapshot(workdir / "students")

    done = succeed(server.run("evaluate", *tiny(workdir)))
    assert "be_disagreement: not trained yet" in done.stdout
    assert [r["model"] for r in read_rows(workdir)] == ["DE-1", "DE-2", "single_none"]
    # A stage that was only read is not begun, and accepts other settings.
    assert snapshot(workdir / "students") == first

    done = succeed(server.run("distill", *tiny(workdir), log_compiles=True))
    assert steps_compiled(done) == 2
    # Both students read the data in the same order; one is initialised as single_none.
    assert programs_compiled(done).count("create_state") == 2
    assert programs_compiled(done).count("inputs_of") == 1
    assert "single_none: complete" in done.stdout
    assert first.items() <= snapshot(workdir / "students").items()
    succeed(server.run("evaluate", *tiny(workdir)))
    assert not (workdir / "report.html").exists()
    done = succeed(server.run("report", *tiny(workdir)))
    assert (workdir / "report.html").exists() and "DE-2" in done.stdout
    assert_same_run(workdir, finished)


@pytest.mark.long
def test_the_best_epochs_are_kept(server, tmp_path):
    workdir = tmp_path / "run"
    flags = [*tiny(workdir, "be_disagreement"), "--config.model.batchnorm_groups=2"]
    # Validation images on which the last epoch is not the best.
    for section in ("teachers", "distill"):
        flags.append(f"--config.{section}.select=best")
        # At this learning rate the teachers' accuracies fluctuate.
        flags.append(f"--config.{section}.learning_rate=0.5")
    succeed(server.run("run", *flags))
    stages = {"teachers": "teachers", "be_disagreement": "students/be_disagreement"}
    epochs = {}
    for name, stage in stages.items():
        record = json.loads((workdir / stage / "complete.json").read_text())
        logged = [row["validation_accuracy"] for row in read_log(workdir / stage)]
        with np.load(workdir / "predictions" / f"{name}.npz") as file:
            predicted = file["validation_probs"].argmax(-1)
            accuracies = (predicted == file["validation_labels"]).mean(-1)
        epochs[name], accuracy = record["selected_epoch"], record["validation_accuracy"]
        if name == "teachers":
            assert accuracy == accuracies.tolist()
            assert max(logged) <= np.mean(accuracy)
        else:
            assert accuracy == accuracies.mean() == max(logged)
            assert epochs[name] == 1 + logged.index(accuracy)
    assert epochs["teachers"] != [3, 3]  # otherwise the last epoch would be the best


OTHER_KINDS = {
    "bridge": "bridge",
    "flow": "flow",
    "dirichlet": "dirichlet",
    "functional": "functional",
    "hydra": "hydra",
    "latent": "latent_batch_ensemble",
    "mimo": "mimo",
    "packed": "packed",
}


@pytest.mark.parametrize(
    "names",
    [
        # One with a frozen member and AdamW, two members of its own, the best epoch.
        ["bridge", "hydra", "latent"],
        pytest.param(list(OTHER_KINDS), marks=pytest.mark.long),
    ],
    ids=["three", "all"],
)
def test_the_other_kinds_of_student_train_go_on_and_are_reported(
    names, finished, server, tmp_path
):
    kinds = {name: OTHER_KINDS[name] for name in names}
    first, again = tmp_path / "run", tmp_path / "again"
    # The finished run is evaluated on shifted inputs.
    flags = [f"--config.teachers_workdir={finished}", *UNSHIFTED]
    succeed(server.run("run", *tiny(first, ",".join(kinds)), *flags))
    rows = read_rows(first)[2:]
    assert {row["model"]: row["student"] for row in rows} == kinds
    costs = {row["model"]: row["inference_cost"] for row in rows}
    # Counted, with the frozen member and the steps of two samples.
    assert 1 < costs.pop("bridge") < 1.1
    assert "flow" not in costs or 2 < costs.pop("flow") < 3
    assert costs == {n: {"functional": 8, "packed": 2}.get(n, 1) for n in costs}  # α²/M
    compared = json.loads((first / "analysis.json").read_text())["students"]
    page = (first / "report.html").read_text()
    for name in kinds:
        assert name in page and any(row["model"] == name for row in compared)
    with np.load(first / "predictions/hydra.npz") as file:
        heads = file["test_probs"]
    assert len(heads) == 2 and np.abs(heads[0] - heads[1]).max() > 1e-4  # they diverged
    # A finished latent BatchEnsemble is a plain network.
    latent, plain = (
        {name: x[:2] for name, x in variables(stage).items()}
        for stage in (first / "students/latent", finished / "students/single_none")
    )
    assert latent == plain

    shutil.copytree(first, again)
    for name in kinds:  # as if the run had ended in the last epoch
        stage = again / "students" / name
        (stage / "complete.json").unlink()
        shutil.rmtree(stage / "variables")
        shutil.rmtree(stage / "checkpoints/12")
    succeed(server.run("distill", *tiny(again, ",".join(kinds)), *flags))
    for name in kinds:
        stages = [workdir / "students" / name for workdir in (first, again)]
        assert variables(stages[0]) == variables(stages[1])
        assert read_log(stages[0]) == read_log(stages[1])
