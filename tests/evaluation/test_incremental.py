"""Tests what is evaluated again: retrained networks, other data and settings."""

import functools
import shutil
import types

import numpy as np
import pytest
from shifted_runs import evaluate, make_config, read_rows
from untrained_runs import finish_student

from edp.evaluation import incremental, results
from edp.evaluation.predictor import Predictors
from edp.experiment import restore
from edp.experiment.create import create_experiment


def watch(monkeypatch):
    """Records the names of the predictors that are loaded from now on."""
    loaded = []

    def load(which, run, mesh, name):
        loaded.append(name)
        return which(run, mesh, name)

    for which in ("load_predictor", "load_student"):
        watched = functools.partial(load, getattr(restore, which))
        monkeypatch.setattr(restore, which, watched)
    return loaded


def copy(evaluated, directory):
    """Returns the evaluated run with a copy of its workdir."""
    workdir = shutil.copytree(evaluated.run.workdir, directory)
    return evaluated._replace(run=evaluated.run._replace(workdir=workdir))


def test_nothing_is_evaluated_twice(evaluated, monkeypatch):
    files = [evaluated.run.workdir / name for name in ("ood.json", "corruptions.json")]
    before = [(file.stat().st_mtime_ns, file.read_bytes()) for file in files]
    loaded = watch(monkeypatch)
    evaluate(evaluated)
    assert "plain" in Predictors(evaluated)  # looks at the record alone
    assert loaded == []
    assert [(file.stat().st_mtime_ns, file.read_bytes()) for file in files] == before


def test_a_retrained_student_is_evaluated_anew(evaluated, tmp_path, monkeypatch):
    evaluated = copy(evaluated, tmp_path / "run")
    files = ("ood.json", "corruptions.json")
    before = [read_rows(evaluated, file) for file in files]
    finish_student(evaluated.run, "plain", 7)
    loaded = watch(monkeypatch)
    evaluate(evaluated)
    for file, old in zip(files, before, strict=True):
        new = read_rows(evaluated, file)
        assert list(new) == list(old)
        for key, row in new.items():
            assert (row == old[key]) == (key[0] != "plain")
    assert set(loaded) == {"plain"}


@pytest.mark.parametrize("compare_with_teachers", [False, True])
def test_new_teachers_make_rows_that_compare_with_them_again(
    compare_with_teachers, tmp_path
):
    def write(teachers, student):
        ids = {"teachers": teachers, "plain": student}
        records = {name: {"id": training} for name, training in ids.items()}
        networks = types.SimpleNamespace(records=records, data_digests={})
        made = []

        def evaluate(names):
            made.extend(names)
            return {name: [{"model": name}] for name in names}

        path = tmp_path / "rows.json"
        incremental.write_rows(
            *(networks, path, {}, "", evaluate),
            compare_with_teachers=compare_with_teachers,
        )
        return made

    assert write("a", "b") == ["teachers", "plain"]
    assert write("a", "b") == [] and write("a", "c") == ["plain"]
    again = ["teachers", "plain"] if compare_with_teachers else ["teachers"]
    assert write("d", "c") == again and write("d", "c") == []


def test_other_test_data_at_the_same_path_make_all_again(evaluated, tmp_path):
    same = copy(evaluated, tmp_path / "run")
    dataset = evaluated.data.dataset
    labels = (dataset.test.labels + 1) % 10
    dataset = dataset._replace(
        test=dataset.test._replace(labels=labels),
        full_test=dataset.full_test._replace(labels=labels),
    )
    changed = same._replace(data=same.data._replace(dataset=dataset))
    names = ("plain", "be")

    def load(experiment):
        networks = Predictors(experiment)
        return [results.load_predictions(experiment, networks, n) for n in names]

    before = [load(same), *(read_rows(same, f) for f in ("corruptions.json",))]
    evaluate(changed)
    after = [load(changed), *(read_rows(same, f) for f in ("corruptions.json",))]
    for old, new in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(new.test_labels, labels)
        np.testing.assert_array_equal(old.test_probs, new.test_probs)
    assert list(before[1]) == list(after[1])
    assert all(row != after[1][key] for key, row in before[1].items())


def test_other_settings_make_all_anew_and_fewer_students_leave_the_rest(
    evaluated, unseen, tmp_path
):
    directory = shutil.copytree(evaluated.run.workdir, tmp_path / "run")
    config = make_config(unseen, corruptions=("contrast",), ood_sets=("noise",))
    del config.students.be
    before = [read_rows(evaluated, file) for file in ("ood.json", "corruptions.json")]
    experiment = create_experiment(config, directory)
    evaluate(experiment)
    unseen_rows, corrupted = (
        read_rows(experiment, file) for file in ("ood.json", "corruptions.json")
    )
    for found, old in zip((unseen_rows, corrupted), before, strict=True):
        assert found.keys() < old.keys() and "be" not in {key[0] for key in found}
        for key in found:
            if "mean" not in key:
                assert found[key] == old[key]
    assert (
        corrupted["DE-3", "mean", 4]["nll"] == corrupted["DE-3", "contrast", 4]["nll"]
    )
    files = [directory / file for file in ("ood.json", "corruptions.json")]
    kept = [file.read_bytes() for file in files]
    # Without sets and corruptions, the files are kept.
    config = make_config(unseen, corruptions=(), ood_sets=())
    evaluate(create_experiment(config, directory))
    assert [file.read_bytes() for file in files] == kept
