"""Tests of the classification of image files by an artifact."""

import shutil
import subprocess
import sys

import documents
import numpy as np
import pytest
from exported_runs import NAMES, WITHOUT_EDP, read_csv
from PIL import Image

from edp.errors import InputError
from edp.export import classify_files, loader
from edp.runtime import storage


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
    rows = read_csv(out)
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
    text = documents.files(documents.ROOT / "docs/deploying.md")["classify.py"]
    (artifact / "classify.py").write_text(f"{WITHOUT_EDP}{text}")
    done = subprocess.run(
        [sys.executable, artifact / "classify.py", *paths],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    wanted = [
        [row["file"], *row["class"].split(), row["probability"]]
        for row in read_csv(out)
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
