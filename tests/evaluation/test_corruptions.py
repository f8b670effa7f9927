"""Tests of evaluation on OOD sets and corrupted images, with random weights."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
import sklearn.metrics

from configs import default
from edp import data, ensemble, metrics
from edp.data import corruptions as image_corruptions
from edp.errors import InputError
from edp.evaluation import analysis, corruptions, image_scores, ood, results
from edp.evaluation.predictor import Predictors
from edp.experiment import restore, validate
from edp.experiment.create import create_experiment
from edp.metrics import uncertainty
from edp.runtime import checkpoint
from edp.runtime.stage import Stage

STUDENTS = {"plain": "single", "be": "batch_ensemble"}
NUM_UNSEEN, NUM_CORRUPTED = 25, 30


def make_config(unseen, **settings):
    """Configures three members and two students on digits of 4x4 pixels."""
    config = default.get_config()
    config.data.update(train_size=80, validation_size=40, test_size=60, downsample=2)
    config.model.width = 4
    config.teachers.num_members = 3
    for section in (config.teachers, config.distill):
        section.batch_size = 20
    config.evaluation.update(batch_size=16, diversity_size=20, gallery_size=1)
    config.evaluation.update(ood_sets=("noise", str(unseen)), ood_size=NUM_UNSEEN)
    config.evaluation.corruptions = ("contrast", "gaussian_noise")
    config.evaluation.corruption_size = NUM_CORRUPTED
    config.evaluation.update(settings)
    del config.students.single_none
    for name, kind in STUDENTS.items():
        config.students[name] = default.student(config, student=kind)
    return config


def finish_teachers(run, seed):
    model = run.build_model()
    keys = jax.random.split(jax.random.key(seed), run.num_members)
    variables = jax.jit(ensemble.init, static_argnums=0)(model, keys, run.example)
    stage = Stage(run.teachers_dir, run.teacher_dependencies)
    stage.begin()
    restore.complete(stage, variables, {"train_seconds": 1.0}, run.num_members)


def finish_student(run, name, seed):
    student = restore.create_student(run, name)
    init = jax.jit(lambda key, x: student.finalise(student.init(key, x)))
    variables = init(jax.random.key(seed), run.example)
    stage = restore.student_stage(run, name)
    stage.begin()
    restore.complete(stage, variables, {"train_seconds": 1.0}, 1)


def evaluate(experiment):
    """Runs the two evaluations tested here."""
    predictors = Predictors(experiment)
    ood.write_detection(experiment, predictors)
    corruptions.write_robustness(experiment, predictors)


def read_rows(experiment, file):
    value = json.loads((experiment.run.workdir / file).read_text())
    return {
        tuple(v for v in row.values() if not isinstance(v, float)): row
        for row in value["rows"]
    }


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """Writes an .npz of colour images that are larger than digits."""
    images = np.random.default_rng(1).integers(0, 90, (40, 10, 12, 3), np.uint8)
    path = tmp_path_factory.mktemp("sets") / "dark.npz"
    np.savez(path, test_images=images, test_labels=np.zeros(40, int))
    return path


@pytest.fixture(scope="module")
def evaluated(unseen, tmp_path_factory):
    """Evaluates a run of networks with random weights."""
    directory = tmp_path_factory.mktemp("run")
    experiment = create_experiment(make_config(unseen), directory)
    finish_teachers(experiment.run, 0)
    for i, name in enumerate(STUDENTS):
        finish_student(experiment.run, name, i)
    evaluate(experiment)
    return experiment


def chosen(experiment, size):
    """Returns the indices of the test images used."""
    return data.fixed_subset(experiment.data.dataset.test.labels, "", size)


def load(experiment, name):
    """Returns images -> probabilities [S, N, K], compiled apart from `Predictors`."""
    probs_fn, variables = restore.load_predictor(experiment.run, None, name)
    return functools.partial(restore.create_predict(probs_fn, 16), variables)


def stored(experiment, name, part, indices=slice(None)):
    """Reads probabilities and labels from `predictions/`."""
    with np.load(experiment.run.workdir / "predictions" / f"{name}.npz") as file:
        return file[f"{part}_probs"][:, indices], file[f"{part}_labels"][indices]


def test_detection_is_that_of_scikit_learn(evaluated, unseen):
    rows = read_rows(evaluated, "ood.json")
    groups = {"DE-1": [[0], [1], [2]], "DE-3": [[0, 1, 2]]}
    seen = 0
    run = evaluated.run
    model, variables = restore.load_teachers(run, None)
    teacher_logits = functools.partial(
        restore.create_predict(restore.teacher_logits(run, None, model), 16), variables
    )
    for predictor in ("teachers", *STUDENTS):
        predict = load(evaluated, predictor)
        test = chosen(evaluated, NUM_UNSEEN)
        test_images = evaluated.data.dataset.test.images[test]
        inside, _ = stored(evaluated, predictor, "test", test)
        for name in ("noise", str(unseen)):
            foreign = data.open_foreign(name, size=NUM_UNSEEN, image_shape=(8, 8, 1))
            foreign = data.downsample(foreign[:], 2)
            outside = predict(foreign)
            of_student = {predictor: [range(len(inside))]}
            models = groups if predictor == "teachers" else of_student
            for model, members in models.items():
                pairs = [
                    (uncertainty.scores(inside[m]), uncertainty.scores(outside[m]))
                    for m in map(list, members)
                ]
                if predictor == "teachers":
                    logits = [teacher_logits(x) for x in (test_images, foreign)]
                    pairs = [
                        tuple(
                            s | uncertainty.logit_scores(z[m])
                            for s, z in zip(pair, logits, strict=True)
                        )
                        for pair, m in zip(pairs, map(list, members), strict=True)
                    ]
                for kind in pairs[0][0]:
                    row = rows[model, name, kind]
                    found = [row["auroc"], row["aupr"], row["fpr95"]]
                    expected = [scikit_learn(a[kind], b[kind]) for a, b in pairs]
                    np.testing.assert_allclose(found, np.mean(expected, 0), atol=1e-6)
                    seen += 1
    # Of probabilities, two scores of one network and four of several; two of logits,
    # checked for the teachers.
    assert len(rows) == 2 * (4 + 6 + 4 + 6)
    assert seen == 2 * (4 + 6 + 2 + 4)


def scikit_learn(inside, outside):
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    score = -np.concatenate([inside, outside]).astype(float)
    fpr, tpr, _ = sklearn.metrics.roc_curve(truth, score, drop_intermediate=False)
    return (
        sklearn.metrics.roc_auc_score(truth, score),
        sklearn.metrics.average_precision_score(truth, score),
        fpr[np.argmax(tpr >= 0.95)],
    )


def test_detection_by_hand():
    inside = [{"entropy": np.array([0.1, 0.2])}, {"entropy": np.array([0.5, 0.1])}]
    outside = [{"entropy": np.array([0.3, 0.9])}, {"entropy": np.array([0.2, 0.4])}]
    found = ood.detection(inside, outside)["entropy"]
    # All four pairs in order; then two of four.
    assert found["auroc"] == pytest.approx((1 + 0.5) / 2)
    # To accept all insiders is to accept none of the others; then both.
    assert found["fpr95"] == pytest.approx((0 + 1) / 2)
    assert found["aupr"] == pytest.approx((1 + (1 + 2 / 4) / 2) / 2)


def test_clean_rows_are_the_results_on_the_same_images(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    indices = chosen(evaluated, NUM_CORRUPTED)
    temperatures = {
        row["model"]: row["temperature"]
        for row in results.collect_rows(evaluated, Predictors(evaluated))
    }
    for model, name in (("DE-3", "teachers"), ("plain", "plain"), ("be", "be")):
        probs, labels = stored(evaluated, name, "test", indices)
        pooled = probs.astype(float).mean(0)
        row = rows[model, "none", 0]
        assert row["accuracy"] == np.mean(pooled.argmax(-1) == labels)
        nll = -np.log(pooled[np.arange(len(labels)), labels]).mean()
        assert row["nll"] == pytest.approx(nll, rel=1e-6)
        calibrated = metrics.apply_temperature(pooled, temperatures[model])
        expected = metrics.nll(calibrated, labels)
        assert row["cnll"] == pytest.approx(expected, rel=1e-6)
        assert row["ece"] == pytest.approx(metrics.ece(pooled, labels), abs=1e-6)


def test_images_are_corrupted_at_full_size(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    indices = chosen(evaluated, NUM_CORRUPTED)
    full = evaluated.data.dataset.full_test.images[indices]
    assert full.shape[1:] == (8, 8, 1)
    predict = load(evaluated, "teachers")
    for name, severity in (("contrast", 5), ("gaussian_noise", 2)):
        images = image_corruptions.corrupt(name, full, severity)
        images = images.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4)) / 255
        probs = predict(np.float32(images))
        labels = evaluated.data.dataset.test.labels[indices]
        members = [metrics.nll(p, labels) for p in probs]
        # Bytes are rounded, and these means are not.
        row = rows["DE-3", name, severity]
        assert row["nll"] == pytest.approx(metrics.nll(probs.mean(0), labels), rel=1e-2)
        row = rows["DE-1", name, severity]
        assert row["nll"] == pytest.approx(np.mean(members), rel=1e-2)
        clean = rows["DE-1", "none", 0]["nll"]
        assert abs(row["nll"] - clean) > 3e-2 * clean or name != "contrast"


def test_soft_labels_of_one_class_each_are_the_labels(evaluated):
    test = evaluated.data.dataset.test
    soft = np.eye(10)[test.labels]
    of_people = evaluated._replace(data=evaluated.data._replace(soft_labels=soft))
    rows = results.collect_rows(of_people, Predictors(of_people))
    assert len(rows) == 5
    for row in rows:
        assert row["soft_nll"] == pytest.approx(row["nll"])
        assert row["soft_kl"] == pytest.approx(row["nll"], abs=1e-9)
    probs, labels = stored(evaluated, "plain", "test")
    missing = 1 - probs[0, np.arange(len(labels)), labels].mean()
    (plain,) = (row for row in rows if row["model"] == "plain")
    assert plain["soft_tv"] == pytest.approx(missing, rel=1e-5)
    assert "soft_nll" not in results.collect_rows(evaluated, Predictors(evaluated))[0]


def test_one_network_is_the_mean_over_the_members(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    probs, labels = stored(
        evaluated, "teachers", "test", chosen(evaluated, NUM_CORRUPTED)
    )
    fitted = [
        metrics.fit_temperature(p, y).temperature
        for validation, y in [stored(evaluated, "teachers", "validation")]
        for p in validation
    ]
    scores = {
        "accuracy": [metrics.accuracy(p, labels) for p in probs],
        "nll": [metrics.nll(p, labels) for p in probs],
        "ece": [metrics.ece(p, labels) for p in probs],
        "cnll": [
            metrics.nll(metrics.apply_temperature(p, t), labels)
            for p, t in zip(probs, fitted, strict=True)
        ],
    }
    for key, values in scores.items():
        assert np.std(values) > 0
        found = rows["DE-1", "none", 0][key]
        assert found == pytest.approx(np.mean(values), rel=1e-6)


def test_mean_rows_are_means_over_corruptions(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    models = ("DE-1", "DE-3", *STUDENTS)
    assert len(rows) == len(models) * (1 + 2 * 5 + 5)
    for model in models:
        for severity in image_corruptions.SEVERITIES:
            both = [
                rows[model, n, severity]
                for n in evaluated.run.config.evaluation.corruptions
            ]
            for key in ("accuracy", "nll", "cnll", "ece"):
                expected = np.mean([row[key] for row in both])
                assert rows[model, "mean", severity][key] == pytest.approx(expected)


def test_scores_of_each_image_are_means_over_corruptions(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    path = evaluated.run.workdir / "corruptions.json"
    ids = json.loads(path.read_text())["made_from"]["predictors"]
    labels = evaluated.data.dataset.test.labels[chosen(evaluated, NUM_CORRUPTED)]
    temperatures = {
        row["model"]: row["temperature"]
        for row in results.collect_rows(evaluated, Predictors(evaluated))
    }
    files = sorted(p.stem for p in (evaluated.run.workdir / "corruptions").iterdir())
    assert files == sorted(STUDENTS)  # members of the teachers have no file
    full = evaluated.data.dataset.full_test.images
    full = full[chosen(evaluated, NUM_CORRUPTED)]
    for name in STUDENTS:
        of_student = image_scores.path_of(evaluated.run.workdir, name)
        scores = image_scores.load(of_student, ids[name])
        assert list(scores) == ["mean"]
        # On average those of the rows.
        for field, key in (("nll", "cnll"), ("correct", "accuracy")):
            means = [rows[name, "mean", s][key] for s in image_corruptions.SEVERITIES]
            assert getattr(scores["mean"], field).shape == (NUM_CORRUPTED,)
            found = getattr(scores["mean"], field).mean()
            assert found == pytest.approx(np.mean(means), rel=1e-5)
        # Image by image.
        correct, nll, predict = 0, 0, load(evaluated, name)
        for corruption in evaluated.run.config.evaluation.corruptions:
            for severity in image_corruptions.SEVERITIES:
                images = image_corruptions.corrupt(corruption, full, severity)
                probs = predict(data.downsample(images, 2)).astype(float).mean(0)
                correct += (probs.argmax(-1) == labels) / 10
                probs = metrics.apply_temperature(probs, temperatures[name])
                nll -= np.log(probs[np.arange(NUM_CORRUPTED), labels]) / 10
        np.testing.assert_allclose(scores["mean"].correct, correct, atol=1e-6)
        np.testing.assert_allclose(scores["mean"].nll, nll, rtol=1e-4)
        assert image_scores.load(of_student, "another training") == {}


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


def test_each_network_is_loaded_and_compiled_once(unseen, tmp_path, monkeypatch):
    config = make_config(unseen, corruptions=("contrast",))
    config.students.tempered = default.student(config, student="single")
    config.students.again = default.student(config, student="single")
    config.students.tempered.temperature = 3.0
    experiment = create_experiment(config, tmp_path / "run")
    finish_teachers(experiment.run, 0)
    for seed, name in enumerate(config.students):
        finish_student(experiment.run, name, seed)
    checked, compiled = [], []
    check, compile_one = checkpoint.check_variables, restore.create_predict
    monkeypatch.setattr(
        checkpoint, "check_variables", lambda p: checked.append(p) or check(p)
    )
    monkeypatch.setattr(
        restore,
        "create_predict",
        lambda *a, **options: compiled.append(options) or compile_one(*a, **options),
    )
    predictors = Predictors(experiment)
    assert list(predictors) == ["teachers", *config.students] and not checked
    results.collect_rows(experiment, predictors)
    analysis.write_analysis(experiment, predictors)
    ood.write_detection(experiment, predictors)
    corruptions.write_robustness(experiment, predictors)
    assert len(checked) == len(set(checked)) == 5
    # The teachers' probabilities and logits; for `plain` (and `again`), `tempered` and
    # `be`, probabilities and scores.
    assert len(compiled) == 8
    assert all(options == {"runs_briefly": True} for options in compiled)
    # A shared program predicts with the student's own variables, kept on the host.
    images = experiment.data.dataset.test.images
    plain, again = (predictors[name] for name in ("plain", "again"))
    np.testing.assert_array_equal(
        again.predict(images), load(experiment, "again")(images)
    )
    assert np.abs(again.predict(images) - plain.predict(images)).max() > 1e-3
    leaves = jax.tree.leaves(again.variables)
    assert leaves and all(isinstance(leaf, np.ndarray) for leaf in leaves)


def test_nothing_is_evaluated_twice(evaluated, monkeypatch):
    files = [evaluated.run.workdir / name for name in ("ood.json", "corruptions.json")]
    before = [(file.stat().st_mtime_ns, file.read_bytes()) for file in files]
    loaded = watch(monkeypatch)
    evaluate(evaluated)
    assert "plain" in Predictors(evaluated)  # looks at the record alone
    assert loaded == []
    assert [(file.stat().st_mtime_ns, file.read_bytes()) for file in files] == before


def test_a_retrained_student_is_evaluated_anew(evaluated, monkeypatch):
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


def test_other_test_data_at_the_same_path_make_all_again(evaluated, tmp_path):
    directory = shutil.copytree(evaluated.run.workdir, tmp_path / "run")
    same = evaluated._replace(run=evaluated.run._replace(workdir=directory))
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


def test_published_corruptions_are_scored_beside_the_computed(
    evaluated, unseen, tmp_path
):
    directory = shutil.copytree(evaluated.run.workdir, tmp_path / "run")
    full = evaluated.data.dataset.full_test
    for name in ("contrast", "fog"):
        images = [
            image_corruptions.corrupt(name, full.images, severity)
            for severity in image_corruptions.SEVERITIES
        ]
        (tmp_path / "Digits-C").mkdir(exist_ok=True)
        np.save(tmp_path / "Digits-C" / f"{name}.npy", np.concatenate(images))
    labels = tmp_path / "Digits-C" / "labels.npy"
    np.save(labels, np.tile(full.labels, 5))
    names = ("contrast", "gaussian_noise", f"{tmp_path}/Digits-C/")
    config = make_config(unseen, corruptions=names)
    validate.check(config)
    before = read_rows(evaluated, "corruptions.json")
    experiment = create_experiment(config, directory)
    evaluate(experiment)
    rows = read_rows(experiment, "corruptions.json")
    assert before.items() <= rows.items()
    added = {key[1] for key in rows.keys() - before.keys()}
    assert added == {f"Digits-C/{name}" for name in ("contrast", "fog", "mean")}
    for key, row in before.items():
        if key[1] == "contrast":
            one, other, mean = (
                rows[key[0], f"Digits-C/{name}", key[2]]
                for name in ("contrast", "fog", "mean")
            )
            for score in ("accuracy", "nll", "cnll", "ece"):
                assert one[score] == row[score]
                assert mean[score] == pytest.approx((one[score] + other[score]) / 2)
    # Keyed by their content; and faults are found as the run is opened.
    np.save(labels, np.tile((full.labels + 1) % 10, 5))
    evaluate(create_experiment(config, directory))
    key = ("plain", "Digits-C/contrast", 3)
    assert read_rows(experiment, "corruptions.json")[key] != rows[key]
    np.save(labels, np.tile(full.labels + 1, 5))
    with pytest.raises(InputError, match=r"labels\.npy has labels 1 to 10"):
        create_experiment(config, directory)
    np.save(labels, np.tile(full.labels, 5))
    config.evaluation.corruptions = (*names, "other/Digits-C")
    with pytest.raises(InputError, match="two folders named 'Digits-C'"):
        create_experiment(config, directory)


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


def test_a_set_that_is_not_there_is_told_before_anything_is_written(tmp_path):
    config = make_config(tmp_path / "none.npz")
    with pytest.raises(InputError, match=r"none\.npz does not exist"):
        create_experiment(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
