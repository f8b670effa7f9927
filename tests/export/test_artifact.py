"""Tests of exported programs: equal predictions, without this project."""

import contextlib
import csv
import functools
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys

import documents
import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image
from untrained_runs import finish_student, finish_teachers

from edp import export, metrics, students
from edp.errors import InputError
from edp.evaluation import measures, prediction_sets, predictions, results
from edp.evaluation.predictor import Predictors
from edp.experiment import open_run, restore
from edp.experiment.create import create_experiment, record_run
from edp.export import classify_files, from_run, loader, targets
from edp.metrics import conformal, uncertainty
from edp.runtime import storage
from tests.configs import tiny

ROOT = pathlib.Path(__file__).parents[2]
NAMES = tuple(f"class {k}" for k in range(10))
TEMPERATURE = 0.7
# The start of a program that may import jax, numpy, flatbuffers and Pillow only.
WITHOUT_EDP = (
    "import sys\n"
    "for name in ('edp', 'flax', 'optax', 'orbax', 'chex', 'ml_collections',"
    " 'sklearn', 'absl'):\n"
    "    sys.modules[name] = None\n"
)


def create_evaluated(directory, kinds, **teachers):
    """Evaluates a run of networks with random weights."""
    config = tiny.get_config()
    config.data.test_size = 256
    config.data.validation_size, config.data.calibration_size = 50, 10
    config.teachers.update(teachers)
    config.model.dropout_rate = 0.2 if "kind" in teachers else None
    default = config.students.single_none
    config.students = ml_collections.ConfigDict()
    for kind in kinds:
        config.students[kind] = default.copy_and_resolve_references()
        config.students[kind].student = kind
    experiment = create_experiment(config, directory)
    record_run(experiment)

    finish_teachers(experiment.run, 0)
    for kind in kinds:
        finish_student(experiment.run, kind, 0)
    # A temperature fitted to random networks would make all classes equally likely.
    predictors = Predictors(experiment)
    rows = results.collect_rows(experiment, predictors)
    rows = [{**row, "temperature": TEMPERATURE} for row in rows]
    for row in rows:
        row.pop("temperature_at_bound", None)
    measured = measures.write_measures(experiment, predictors)
    measures.add_set_scores(rows, measured)
    storage.write_json(directory / "results.json", rows)
    np.savez(directory / "gallery.npz", class_names=np.array(NAMES))
    return experiment


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return create_evaluated(tmp_path_factory.mktemp("run"), students.STUDENTS)


@pytest.fixture(scope="module")
def exported(experiment, tmp_path_factory):
    """Exports every predictor from the workdir alone; returns artifacts by name."""
    root = tmp_path_factory.mktemp("exported")
    opened = open_run.open_run(experiment.run.workdir)
    names = ["teachers", *students.STUDENTS]
    assert all(from_run.export_predictor(opened, name, root / name) for name in names)
    return {name: root / name for name in names}


def in_process(experiment, name):
    """Returns member probabilities of the test images, and the uncertainty scores."""
    path = experiment.run.workdir / f"predictions/{name}.npz"
    probs = predictions.load_predictions(path).test_probs
    if name == "teachers":
        images = experiment.data.dataset.test.images
        return probs, uncertainty.all_scores(
            Predictors(experiment)[name].logits(images)
        )
    student, variables = restore.load_student(experiment.run, None, name)
    x = experiment.data.dataset.test.images.astype(np.float32) / 255
    return probs, jax.jit(student.uncertainty)(variables, x)


@pytest.mark.parametrize("name", ["teachers", *students.STUDENTS])
def test_exported_predictions_are_those_of_the_evaluation(name, experiment, exported):
    images = experiment.data.dataset.test.images
    probs, scores = in_process(experiment, name)
    wanted = metrics.apply_temperature(
        probs.astype(np.float64).mean(axis=0), TEMPERATURE
    )
    assert np.ptp(wanted, axis=0).max() > 0.02  # networks that tell images apart
    # The sampler's 13 steps amplify rounding.
    rtol, atol = (1e-3, 1e-4) if name == "flow" else (1e-5, 1e-5)
    predict, metadata = loader.load(exported[name])
    assert next(iter(metadata["outputs"])) == "probs"
    for size in (1, 7, 256):
        found = predict(images[:size])
        assert found.keys() == metadata["outputs"].keys() == {"probs", *scores}
        np.testing.assert_allclose(found["probs"], wanted[:size], rtol=0, atol=atol)
        for key, values in scores.items():
            assert found[key].shape == (size,)
            np.testing.assert_allclose(
                found[key], values[:size], rtol=rtol, atol=atol, err_msg=key
            )


def test_the_metadata_say_what_it_is(experiment, exported):
    metadata = json.loads((exported["hydra"] / "metadata.json").read_text())
    assert metadata["classes"] == list(NAMES)
    assert metadata["input"] == {"shape": ["batch", 8, 8, 1], "dtype": "uint8"}
    assert metadata["preparation"] == {"resize": "whole", "downsample": 1}
    assert metadata["outputs"]["probs"]["shape"] == ["batch", 10]
    assert metadata["temperature"] == TEMPERATURE
    rows = json.loads((experiment.run.workdir / "results.json").read_text())
    assert [metadata["metrics"]] == [row for row in rows if row["model"] == "hydra"]
    assert metadata["config"] == json.loads(
        (experiment.run.workdir / "config.json").read_text()
    )
    assert metadata["student"] == "hydra" and metadata["platforms"][1] == "cuda"
    teachers = json.loads((exported["teachers"] / "metadata.json").read_text())
    assert teachers["metrics"]["model"] == "DE-2" and "student" not in teachers


def test_the_loader_needs_nothing_of_this_project(experiment, exported):
    source = (exported["single"] / "load.py").read_text()
    assert len(source.splitlines()) < 85
    program = (
        f"{WITHOUT_EDP}sys.modules['PIL'] = None\n"
        "import load, numpy\n"
        "predict, metadata = load.load()\n"
        "found = predict(numpy.load(sys.argv[1]))\n"
        "numpy.save(sys.argv[2], found['probs'])\n"
    )
    directory = exported["single"].parent
    images = experiment.data.dataset.test.images[:7]
    np.save(directory / "images.npy", images)
    subprocess.run(
        [sys.executable, "-c", program, "../images.npy", "../probs.npy"],
        cwd=exported["single"],
        check=True,
    )
    predict, _ = loader.load(exported["single"])
    probs = np.load(directory / "probs.npy")
    np.testing.assert_allclose(probs, predict(images)["probs"], atol=1e-5)


def test_a_reader_that_is_too_old_is_told_what_it_needs(exported, tmp_path):
    shutil.copytree(exported["single"], tmp_path / "copy")
    path, metadata = tmp_path / "copy/model.jax", tmp_path / "copy/metadata.json"
    program = path.read_bytes()
    start = program.index(b"ML\xefR") + 20  # of the serialised program: beyond repair
    path.write_bytes(program[:start] + b"\xff" * 8 + program[start + 8 :])
    versions = storage.read_json(metadata)["versions"]
    assert versions["jax"] == jax.__version__ and versions["calling_convention"] >= 10
    versions["jax"] = "99.1"
    found = storage.read_json(metadata) | {"versions": versions}
    storage.write_json(metadata, found)
    with pytest.raises(ValueError, match=r"deserialize.*it needs jax >= 99.1, which"):
        loader.load(tmp_path / "copy")


def test_the_splits_of_the_run_are_the_examples(experiment):
    opened = open_run.open_run(experiment.run.workdir)
    examples = from_run.load_examples(opened)
    dataset = experiment.data.dataset
    chosen = np.arange(100) * 256 // 100
    np.testing.assert_array_equal(examples.held_out.images, dataset.test.images[chosen])
    np.testing.assert_array_equal(examples.held_out.labels, dataset.test.labels[chosen])
    for found, wanted in zip(examples.validation, dataset.validation, strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(examples.train, dataset.train.images)
    for found, wanted in zip(examples.calibration, dataset.calibration, strict=True):
        np.testing.assert_array_equal(found, wanted)
    everything = from_run.load_examples(opened, held_out=None).held_out
    np.testing.assert_array_equal(everything.labels, dataset.test.labels)


def test_images_of_another_kind_are_refused(exported):
    predict, _ = loader.load(exported["single"])
    with pytest.raises(ValueError, match=r"value >= 1 for dimension variable 'batch'"):
        predict(np.zeros((0, 8, 8, 1), np.uint8))
    for images in (np.zeros((1, 8, 8, 1), np.float32), np.zeros((1, 8, 9, 1), "u1")):
        with pytest.raises((ValueError, TypeError)):
            predict(images)


def test_without_a_converter_onnx_is_told_what_it_needs(
    experiment, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    opened = open_run.open_run(experiment.run.workdir)
    with pytest.raises(InputError, match=r"pip install jax2onnx onnxruntime"):
        from_run.export_predictor(opened, "single", tmp_path / "out", targets=["onnx"])
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("name", ["teachers", *students.STUDENTS])
def test_other_runtimes_predict_the_same(name, experiment, exported, tmp_path):
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    wanted = ["onnx", "openvino"] if importlib.util.find_spec("openvino") else ["onnx"]
    opened = open_run.open_run(experiment.run.workdir)
    from_run.export_predictor(opened, name, tmp_path / "out", targets=wanted)
    predict, metadata = loader.load(exported[name])
    for target in wanted:
        classify = targets.load(target, tmp_path / "out")
        for size in (1, 7, 256):
            images = experiment.data.dataset.test.images[:size]
            found, reference = classify(images), predict(images)
            for key in metadata["outputs"]:
                np.testing.assert_allclose(
                    found[key], reference[key], rtol=1e-4, atol=1e-4, err_msg=key
                )


@pytest.mark.long
@pytest.mark.parametrize("networks", [1, 3])
def test_masks_of_teachers_with_dropout_are_exported(networks, tmp_path):
    experiment = create_evaluated(
        tmp_path / "run", ["single"], kind="dropout", num_members=3, networks=networks
    )
    from_run.export_predictor(
        open_run.open_run(experiment.run.workdir), "teachers", tmp_path / "out"
    )
    predict, metadata = loader.load(tmp_path / "out")
    images = experiment.data.dataset.test.images
    probs, scores = in_process(experiment, "teachers")
    assert metadata["metrics"]["model"] == "DE-3" and scores["pairwise_kl"].max() > 0.01
    np.testing.assert_allclose(
        predict(images)["probs"],
        metrics.apply_temperature(probs.astype(np.float64).mean(0), TEMPERATURE),
        atol=1e-5,
    )


def test_a_temperature_at_its_bound_is_named(experiment, exported, capfd):
    path = experiment.run.workdir / "results.json"
    before = path.read_bytes()
    opened = open_run.open_run(experiment.run.workdir)
    for at_bound in (False, True):
        rows = json.loads(before)
        for row in rows:
            row.pop("temperature_at_bound", None)
            row |= {"temperature_at_bound": True} if at_bound else {}
        storage.write_json(path, rows)
        with contextlib.suppress(InputError):  # the row is part of the artifact
            from_run.export_predictor(opened, "single", exported["single"])
        words = "single: its temperature, 0.7, is a bound"
        assert (words in capfd.readouterr().err) == at_bound
    path.write_bytes(before)


def test_the_same_again_is_complete_and_nothing_is_overwritten(experiment, exported):
    opened = open_run.open_run(experiment.run.workdir)
    before = (exported["single"] / "model.jax").stat().st_mtime_ns
    assert not from_run.export_predictor(opened, "single", exported["single"])
    with pytest.raises(
        InputError,
        match=r"something else \(an artifact with another .*training.*; accepted: an",
    ):
        from_run.export_predictor(opened, "hydra", exported["single"])
    assert (exported["single"] / "model.jax").stat().st_mtime_ns == before
    assert sorted(p.name for p in exported["single"].iterdir()) == [
        "load.py",
        "metadata.json",
        "model.jax",
    ]
    assert not list(exported["single"].parent.glob(".*"))


def test_a_program_of_ones_own_becomes_an_artifact(photos, tmp_path):
    weights = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)

    def probs_fn(variables, x):
        return jax.nn.softmax(x.reshape(x.shape[0], -1) @ variables)[None]

    def scores_fn(variables, x):
        return {"own": x.mean((1, 2, 3))}

    program = export.create_program(probs_fn, scores_fn, weights, 1.0)
    write = functools.partial(export.write_artifact, program, (8, 8, 1))
    data = export.serialize(program, (8, 8, 1))
    assert __file__.encode() not in data  # no path of the machine that exports
    with pytest.raises(InputError, match="classes has 2 names; accepted: 3, as many"):
        write(tmp_path / "own", classes=["a", "b"])
    assert not (tmp_path / "own").exists()
    assert write(tmp_path / "own", classes=["a", "b", "c"])
    assert not write(tmp_path / "own", classes=["a", "b", "c"])
    with pytest.raises(InputError, match="already holds something else"):
        write(tmp_path / "own", classes=["a", "b", "d"])
    for other in (weights + 1e-3, weights):  # new weights; the same, traced elsewhere
        again = functools.partial(
            export.write_artifact,
            export.create_program(probs_fn, scores_fn, other, 1.0),
            *((8, 8, 1), tmp_path / "own"),
            classes=["a", "b", "c"],
        )
        if other is weights:
            assert not again()
            continue
        with pytest.raises(InputError, match=r"own'.*weights\); accepted.* Remove"):
            again()
    model = tmp_path / "own/model.jax"
    assert model.read_bytes() == data
    model.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"a damaged model\.jax"):
        again()
    model.write_bytes(data)
    # It classifies image files, like an artifact of a run.
    paths, out = [photos / f"b/{i}.png" for i in (0, 1)], tmp_path / "out.csv"
    options = {"batch_size": 2, "skip": pytest.fail}
    assert classify_files.predict_files(tmp_path / "own", paths, out, **options) == 2
    x = np.stack([np.asarray(Image.open(path), np.float32) / 255 for path in paths])
    wanted = np.asarray(probs_fn(weights, x)[0])
    assert [row["class"] for row in read(out)] == ["abc"[p.argmax()] for p in wanted]
    metadata = storage.read_json(tmp_path / "own/metadata.json")
    del metadata["preparation"]
    storage.write_json(tmp_path / "own/metadata.json", metadata)
    with pytest.raises(InputError, match=r"metadata.json does not have preparation"):
        classify_files.predict_files(
            tmp_path / "own", paths, tmp_path / "2.csv", **options
        )


def test_a_program_of_one_batch_size_is_told(tmp_path):
    program = export.create_program(
        lambda w, x: jax.nn.softmax(x.reshape(len(x), -1) @ w)[None],
        lambda w, x: {},
        np.zeros((64, 3), np.float32),
        1.0,
    )
    with pytest.raises(InputError, match=r"batches of any size.*x\.shape\[0\], not"):
        export.write_artifact(program, (8, 8, 1), tmp_path / "own", classes="abc")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_program_is_not_laid_to_the_batch_size():
    def program(images):
        raise KeyError("no such layer")

    with pytest.raises(KeyError, match="no such layer"):
        export.serialize(program, (8, 8, 1))


def test_what_cannot_be_exported_is_told(experiment, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"there is no .*config.json; accepted: the"):
        open_run.open_run(tmp_path)
    opened = open_run.open_run(experiment.run.workdir)
    with pytest.raises(
        InputError, match="student='sngle' does not exist in this run; acc"
    ):
        from_run.export_predictor(opened, "sngle", out)
    index = experiment.run.workdir / "predictions/made_from.json"
    made_from = storage.read_json(index)
    storage.write_json(index, {**made_from, "hydra": "another training"})
    with pytest.raises(InputError, match="hydra is not evaluated since it was trained"):
        from_run.export_predictor(opened, "hydra", out)
    storage.write_json(index, made_from)
    complete = experiment.run.workdir / "students/hydra/complete.json"
    complete.rename(complete.with_suffix(".gone"))
    with pytest.raises(InputError, match="student='hydra' is not trained yet"):
        from_run.export_predictor(opened, "hydra", out)
    complete.with_suffix(".gone").rename(complete)
    assert not out.exists()


# --- Image files ------------------------------------------------------------


@pytest.fixture
def photos(experiment, tmp_path):
    """Writes the run's first test images, and other files."""
    folder = tmp_path / "photos"
    (folder / "b/.cache").mkdir(parents=True)
    for i, image in enumerate(experiment.data.dataset.test.images[:5]):
        Image.fromarray(image[..., 0]).save(folder / f"b/{i}.png")
    Image.new("RGB", (20, 12), (200, 10, 10)).save(folder / "a.JPG")
    (folder / "b/2b.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    (folder / "b/.cache/x.png").write_bytes(b"hidden")
    return folder


def read(out):
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_image_files_are_classified_as_arrays_are(
    experiment, exported, photos, tmp_path
):
    paths = classify_files.find_images([photos])
    names = [str(path.relative_to(photos)) for path in paths]
    assert names == ["a.JPG", "b/0.png", "b/1.png", "b/2.png", "b/2b.png"] + [
        f"b/{i}.png" for i in (3, 4)
    ]
    skipped, out = [], tmp_path / "out.csv"
    number = classify_files.predict_files(
        exported["single"],
        paths,
        out,
        batch_size=3,
        skip=skipped.append,
        coverage=0.9,
    )
    assert number == 6 and len(skipped) == 1 and str(paths[4]) in skipped[0]
    rows = read(out)
    assert [row["file"] for row in rows] == [str(p) for p in paths if p != paths[4]]
    predict, metadata = loader.load(exported["single"])
    probs = np.asarray(
        predict(experiment.data.dataset.test.images[:5])["probs"], np.float64
    )
    sets = loader.prediction_sets(probs, metadata, 0.9)
    for row, p, chosen in zip(rows[1:], probs, sets, strict=True):
        listed = row["set"].split("|")
        assert listed[0] == row["class"] and len(listed) == chosen.sum()
        assert set(listed) == {NAMES[k] for k in np.flatnonzero(chosen)}
        assert row["class"] == NAMES[p.argmax()]
        assert float(row["probability"]) == pytest.approx(p.max(), abs=1e-5)
        assert float(row["entropy"]) == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
    # Resized and made greyscale, as images of OOD sets are in the evaluation.
    grey = Image.open(paths[0]).convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    (p,) = np.asarray(predict(np.asarray(grey)[None, ..., None])["probs"])
    assert float(rows[0]["probability"]) == pytest.approx(p.max(), abs=1e-5)


@pytest.mark.parametrize("score", conformal.SCORES)
def test_the_sets_of_the_loader_are_those_of_the_metrics(score):
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(6), size=300), rng.integers(6, size=100)
    fitted = prediction_sets.fit_thresholds(probs[:100], labels, score, (0.9, 0.5))
    metadata = {"prediction_sets": fitted}
    for one in fitted["thresholds"]:
        sets = loader.prediction_sets(np.float32(probs), metadata, one["coverage"])
        scores = conformal.SCORES[score](probs)
        expected = metrics.prediction_sets(scores, one["threshold"])
        np.testing.assert_array_equal(sets, expected)
    assert len(fitted["thresholds"]) == 2 and fitted["calibration_size"] == 100
    with pytest.raises(ValueError, match=r"coverage=0.8 .* accepted: 0.9, 0.5"):
        loader.prediction_sets(probs, metadata, 0.8)


def test_a_coverage_without_a_threshold_is_refused(exported, photos, tmp_path):
    paths = classify_files.find_images([photos])
    options = {"batch_size": 3, "skip": pytest.fail, "coverage": 0.95}
    with pytest.raises(InputError, match=r"coverage=0.95 .* accepted: 0.9; .*set_cov"):
        classify_files.predict_files(
            exported["single"], paths, tmp_path / "out.csv", **options
        )


@pytest.mark.parametrize(
    "preparation",
    [
        None,
        {"resize": "whole", "downsample": 2},
        {"resize": "central_crop", "downsample": 1},
        {"resize": "central_crop", "downsample": 2},
    ],
)
def test_the_program_that_the_docs_show_says_the_same(
    preparation, exported, photos, tmp_path
):
    """Classifies image files of several sizes without this project."""
    artifact = tmp_path / "artifact"
    shutil.copytree(exported["single"], artifact)
    if preparation is not None:
        metadata = storage.read_json(artifact / "metadata.json")
        metadata["preparation"] = preparation
        storage.write_json(artifact / "metadata.json", metadata)
    pixels = np.random.default_rng(0).integers(256, size=(37, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "c.png")
    paths = [photos / "a.JPG", photos / "b/0.png", photos / "c.png"]
    out = tmp_path / "out.csv"
    classify_files.predict_files(artifact, paths, out, batch_size=3, skip=pytest.fail)
    text = documents.files(ROOT / "docs/deploying.md")["classify.py"]
    (artifact / "classify.py").write_text(f"{WITHOUT_EDP}{text}")
    done = subprocess.run(
        [sys.executable, artifact / "classify.py", *paths],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    wanted = [
        [row["file"], *row["class"].split(), row["probability"]] for row in read(out)
    ]
    said = [line.split() for line in done.stdout.splitlines()]
    assert [words[:-1] for words in said] == [words[:-1] for words in wanted]
    np.testing.assert_allclose(
        [float(words[-1]) for words in said],
        [float(words[-1]) for words in wanted],
        atol=1e-4,
    )


def test_what_the_run_did_to_its_images_is_done(exported, tmp_path):
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(256, size=(48, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    metadata = {
        "input": {"shape": ["batch", 8, 8, 1]},
        "preparation": {"resize": "central_crop", "downsample": 2},
    }
    (image,) = classify_files._Images([path], metadata)[0:1]
    box = (2, 10, 30, 38)  # 224/256 of the shorter side, in the middle
    cropped = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR, box)
    squares = np.asarray(cropped, float).reshape(8, 2, 8, 2)
    np.testing.assert_array_equal(image[..., 0], np.rint(squares.mean(axis=(1, 3))))


def test_bad_input_of_predict_is_told(exported, photos, tmp_path):
    out = tmp_path / "out.csv"
    options = {"batch_size": 8, "skip": lambda line: None}
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"there are no images in .*empty; acc"):
        classify_files.find_images([empty])
    number = classify_files.predict_files(
        exported["single"], [photos / "b/2b.png", tmp_path / "gone.png"], out, **options
    )
    assert number == 0 and not out.exists()
    with pytest.raises(InputError, match=r"artifact='.*photos' cannot be loaded"):
        classify_files.predict_files(photos, [photos / "a.JPG"], out, **options)
    out.write_text("mine")
    with pytest.raises(InputError, match=r"out.csv' exists already"):
        classify_files.predict_files(
            exported["single"], [photos / "a.JPG"], out, **options
        )
    assert out.read_text() == "mine"


def command(name, *flags):
    return subprocess.run(
        [sys.executable, "-m", f"launch.{name}", *map(str, flags)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_commands(experiment, photos, tmp_path):
    artifact, out = tmp_path / "artifact", tmp_path / "out.csv"
    flags = [
        f"--workdir={experiment.run.workdir}",
        "--student=dirichlet",
        f"--out={artifact}",
    ]
    done = command("export", *flags)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == f"dirichlet: {artifact} (0.0 MB)\n"
    done = command("predict", f"--artifact={artifact}", f"--out={out}", photos)
    assert done.returncode == 0, done
    assert done.stdout == f"6 of 7 images classified, 1 skipped: {out}\n"
    warning, skipped = done.stderr.splitlines()
    assert warning.startswith(f"warning: {photos}: 1 files are left out (1 .txt)")
    assert skipped.startswith(f"skipped: cannot read the image {photos}/b/2b.png")
    assert len(read(out)) == 6


def test_the_best_student_by_validation_is_exported_and_predicts(
    experiment, photos, tmp_path
):
    copy, out = tmp_path / "run", tmp_path / "out.csv"
    shutil.copytree(experiment.run.workdir, copy)
    rows = json.loads((copy / "results.json").read_text())
    cnll = {}
    for name in students.STUDENTS:
        of = predictions.load_predictions(copy / f"predictions/{name}.npz")
        pooled = metrics.apply_temperature(
            of.validation_probs.mean(0, dtype=float), TEMPERATURE
        )
        chosen = pooled[np.arange(len(pooled)), of.validation_labels]
        cnll[name] = -np.log(chosen).mean()
    best = min(cnll, key=cnll.get)
    # Whatever the test images say.
    for row in rows:
        row["cnll"] = 0.0 if row["model"] != best else 9.0
    (copy / "results.json").write_text(json.dumps(rows))
    flags = [f"--workdir={copy}", "--student=best", f"--out={out}", photos / "a.JPG"]
    done = command("predict", *flags)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"{best}: {copy}/exported/{best}\n1 of 1 images")
    assert (copy / f"exported/{best}/model.jax").exists() and len(read(out)) == 1
    done = command("export", *flags[:2])
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout == f"{best}: {copy}/exported/{best} (complete)\n"
    done = command("predict", *flags[:2], f"--artifact={copy}", photos)
    assert done.returncode == 2 and "--student does not go with" in done.stderr
