"""Tests that runs to summarize are read, and that those that do not fit are refused."""

import json
import shutil

import pytest
from seed_runs import make_predictions, rewrite, set_in, without

from edp.errors import InputError
from edp.evaluation.predictions import save_predictions
from edp.report.seeds import runs, summary, sweep_results


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config", set_in("data", train_size=4), "\\(data.train_size is 80 and 4\\)"),
        (
            "config",
            lambda c: c["students"]["be_none"].update(alpha=0.5),
            "students.be_none.alpha is None and 0.5",
        ),
        ("config", lambda c: c.update(seed=0), "run0 and .*run1 both have seed=0"),
        ("config", lambda c: [], "config.json is damaged; accepted: a JSON object"),
        (
            "results",
            lambda rows: {"model": 1},
            "results.json does not contain a list of rows",
        ),
        ("results", without(0, "model"), "has a row without a model"),
        (
            "analysis",
            lambda a: a.update(students=3),
            "analysis.json does not contain a list of rows",
        ),
        ("analysis", lambda a: a.update(notes="x"), "has invalid notes"),
        (
            "analysis",
            lambda a: [1],
            "analysis.json is damaged; accepted: a JSON object",
        ),
    ],
)
def test_runs_that_do_not_fit_are_refused(copies, file, change, message):
    rewrite(copies[1] / f"{file}.json", change)
    with pytest.raises(InputError, match=message):
        runs.read_runs(copies)


def test_other_data_at_another_path_are_noted(copies):
    """The path may differ, as between machines, but not the test images."""

    def notes(digest, **data):
        rewrite(copies[1] / "config.json", set_in("data", path="/other", **data))
        for path, own in zip(copies, ("one", digest), strict=True):
            index = {"data sha256": {"validation": path.name, "test": own}}
            (path / "predictions/made_from.json").write_text(json.dumps(index))
        found = summary.summarize_runs(runs.read_runs(copies))["notes"]
        groups = runs.read_groups(copies)
        assert found == sweep_results.summarize_groups(groups)["notes"]
        return found

    assert notes("one") == []
    (note,) = notes("two")
    assert note.startswith("The test images of run0 and run1 differ, though the labels")
    # Digests of streamed images are others.
    assert notes("two", stream=True) == []
    (copies[0] / "predictions/made_from.json").unlink()  # of an old version
    assert summary.summarize_runs(runs.read_runs(copies))["notes"] == []


@pytest.mark.parametrize("split", ["test", "validation"])
def test_settings_of_other_data_at_another_path(copies, split):
    """As of a sweep over data.path; the runs have the same seed and labels."""
    groups = []
    for path in copies:
        rewrite(path / "config.json", lambda c: c.update(seed=0))
        digests = {"validation": "one", "test": "one", split: path.name}
        index = path / "predictions/made_from.json"
        index.write_text(json.dumps({"data sha256": digests}))
        own = {"name": path.name, "values": {"data.path": path.name}}
        groups += [g._replace(**own) for g in runs.read_groups([path])]
    result = sweep_results.summarize_groups(groups)
    assert "best" not in result
    assert any("difference" in row for row in result["rows"]) == (split != "test")
    notes = [note.partition(" differ between")[0] for note in result["notes"]]
    wanted = ["Test images"] * (split == "test") + ["Validation images"]
    assert [note for note in notes if "images" in note] == wanted


def test_what_may_differ(copies):
    def change(config):
        config |= {"teachers_workdir": "elsewhere", "checkpoint_minutes": 1.0}
        config["data"]["data_dir"] = "there"
        return config

    rewrite(copies[1] / "config.json", change)
    assert [run.seed for run in runs.read_runs(reversed(copies))] == [0, 1]


def test_students_that_the_first_run_lacks_are_compared(workdirs, tmp_path):
    copies = [shutil.copytree(path, tmp_path / path.name) for path in workdirs]
    rewrite(copies[0] / "config.json", without("students", "be_none"))
    assert len(runs.read_runs(copies)) == 3
    rewrite(
        copies[2] / "config.json", lambda c: c["students"]["be_none"].update(alpha=0.5)
    )
    with pytest.raises(
        InputError, match=r"run1 and .*run2 .*be_none.alpha is None and"
    ):
        runs.read_runs(copies)


@pytest.mark.parametrize("file", ["ood", "corruptions", "measures", "analysis"])
def test_files_of_another_training_are_left_out(file, copies):
    is_analysis = file == "analysis"
    rows = [{"model": "single_ods", "inputs": "test", "auroc": 0.5}]
    value = {
        "diversity" if is_analysis else "rows": rows,
        "made_from": {"predictors": {"single_ods": "first"}},
    }
    for path in copies:
        (path / f"{file}.json").write_text(json.dumps(value))
        index = path / "predictions" / "made_from.json"
        index.write_text(json.dumps({"single_ods": "first"}))

    def read():
        found = runs.read_runs(copies)
        return found, [r.diversity if is_analysis else getattr(r, file) for r in found]

    assert read()[1] == [rows, rows]
    # Retrained, and evaluated without what the file is about, which is then kept.
    index.write_text(json.dumps({"single_ods": "second"}))
    (kept, other), found = read()
    assert found == [rows, []]
    assert kept.notes == [] and other.corrupted_ids == {}
    assert other.notes == [
        f"Left out of run1: {file}.json is of another training or of other data than "
        "the predictions (single_ods); launch.evaluate computes it again."
    ]


@pytest.mark.parametrize(
    ("file", "key", "one", "other"),
    [
        ("corruptions", "corruption_size", 500, 1000),
        ("corruptions", "corruptions", ["fog"], ["fog", "snow"]),
        ("ood", "ood_size", 500, 1000),
        ("measures", "set_coverages", [0.9], [0.8]),
        ("analysis", "diversity_size", 500, 1000),
    ],
)
def test_rows_of_different_evaluations_are_refused(file, key, one, other, copies):
    """The settings of the runs are equal: later ones, that kept the file."""
    for path, value in zip(copies, (one, other), strict=True):
        text = json.dumps({"rows": [], "made_from": {key: value}})
        (path / f"{file}.json").write_text(text)
    message = f"run0 and .*run1 .* \\({key} of {file}.json is "
    with pytest.raises(InputError, match=message):
        runs.read_runs(copies)
    (copies[1] / f"{file}.json").write_text('{"rows": []}')  # of an earlier version
    assert len(runs.read_runs(copies)) == 2


def test_students_of_different_teachers_elsewhere_are_not_averaged(copies):
    def distil(path, seed, **teachers):
        rewrite(path / "config.json", lambda c: c.update(teachers_workdir=f"t{seed}"))
        of = {"num_members": 4, "groups": {"a": {"seed": seed, "teachers": teachers}}}
        settings = {"from": {"seed": seed, "teachers": of}}
        path = path / "students/single_none/settings.json"
        path.write_text(json.dumps(settings))

    for seed, path in enumerate(copies):
        distil(path, seed, mixup_alpha=1.0)
    (group,) = runs.read_groups(copies)
    assert [run.seed for run in group.runs] == [0, 1]
    distil(copies[1], 1)
    key = "from.teachers.groups.a.teachers.mixup_alpha"
    with pytest.raises(InputError, match=f"{key} is 1.0 and None"):
        runs.read_runs(copies)
    assert [g.values for g in runs.read_groups(copies)] == [{key: "1.0"}, {key: "None"}]
    # Unknown for a run without its students' settings.
    (copies[1] / "students/single_none/settings.json").unlink()
    assert len(runs.read_runs(copies)) == 2


def test_missing_files_and_names_are_refused(copies):
    with pytest.raises(InputError, match="workdirs is empty"):
        runs.read_runs([])
    read = runs.read_runs(copies)
    with pytest.raises(
        InputError, match=r"baseline=kd is no student.*single_none, be_n"
    ):
        summary.summarize_runs(read, ["kd"])
    other = make_predictions(1, 2.2)
    other = other._replace(test_labels=other.test_labels[::-1])
    save_predictions(copies[1] / "predictions/single_ods.npz", other)
    with pytest.raises(InputError, match=r"run1.*different test labels"):
        summary.summarize_runs(read)
    # The student was retrained, and its row is that of the first training.
    save_predictions(copies[1] / "predictions/single_ods.npz", make_predictions(1, 2.5))
    with pytest.raises(InputError, match=r"single_ods\.npz does not give the cNLL of"):
        summary.summarize_runs(read)
    (copies[0] / "predictions/be_none.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"be_none\.npz does not hold predictions"):
        summary.summarize_runs(read)
    (copies[0] / "students/be_none/metrics.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.jsonl is not JSON Lines"):
        summary.summarize_runs(read)
    (copies[0] / "results.json").unlink()
    with pytest.raises(InputError, match=r"there is no .*results\.json.*finished by"):
        runs.read_runs(copies)
