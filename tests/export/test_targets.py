"""Tests of the runtimes that a program is exported for."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from export_runtimes import require
from small_programs import CLASSES, labelled_examples, small_program, write

from edp import export
from edp.errors import InputError
from edp.export import loader, onnx_graph, targets

RUNTIMES = [name for name in export.TARGETS if name != "jax"]


@pytest.fixture(scope="module")
def examples():
    return labelled_examples()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["tflite"]}, r"to='tflite' is no target; accepted: jax, onnx, op"),
        (
            {"targets": ["onnx"], "precision": "int4"},
            r"precision='int4' is not known; ",
        ),
        ({"targets": ["jax"], "precision": "int8"}, r"needs another target than jax"),
        (
            {"targets": ["onnx"], "precision": "bfloat16"},
            r"precision='bfloat16' is not possible with to='onnx'; accepted: "
            r"precision=float32, float16, int8; or to=jax,openvino",
        ),
        (
            {"targets": ["jax"], "precision": "bfloat16"},
            r"precision='bfloat16' needs images to calibrate with, and examples=None",
        ),
        ({"max_nll_increase": 0.1}, r"max_nll_increase=0.1 needs labelled images"),
        ({"web_runtime": "ort"}, r"web_runtime='ort' is no directory; accepted: an"),
        (
            {"targets": ["web"], "batch_size": 4},
            r"batch_size=4 does not go with the target 'web'",
        ),
    ],
)
def test_bad_settings_are_refused_before_any_work(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export.write_artifact(
            pytest.fail, (8, 8, 1), tmp_path / "out", classes=CLASSES, **options
        )


def test_every_loader_is_a_program_of_its_own():
    for name, target in export.TARGETS.items():
        if target.loader is None:
            continue
        source = targets.loader_source(target.loader).decode()
        compile(source, name, "exec")
        assert len(source.splitlines()) < 105 and "edp" not in source
        assert "def load(" in source and "def prediction_sets(" in source


def test_a_program_of_one_batch_size_accepts_no_other(examples, tmp_path):
    metadata = write(tmp_path / "out", examples, batch_size=30)
    assert metadata["input"]["shape"] == [30, 8, 8, 1]
    assert metadata["outputs"]["probs"]["shape"] == [30, 3]
    # Of 100 images, the last batch is filled up.
    assert metadata["checks"]["jax"]["images"] == 100
    assert set(metadata["checks"]) == {"jax"}
    classify, _ = loader.load(tmp_path / "out")
    images = examples.train[:30]
    wanted = jax.jit(small_program())(images)
    np.testing.assert_allclose(classify(images)["probs"], wanted["probs"], atol=1e-5)
    with pytest.raises(ValueError, match="30"):
        classify(images[:29])


def test_batches_of_a_fixed_size_repeat_the_last_image():
    images = np.arange(7)
    found = [list(batch) for batch in onnx_graph.batches(images, 3)]
    assert found == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    found = [list(batch) for batch in onnx_graph.batches(images, None, 3)]
    assert found == [[0, 1, 2], [3, 4, 5], [6]]


# ONNX Runtime in float32 is quick: where it is installed, it is always tested.
CASES = [
    pytest.param(*case, marks=() if case == ("onnx", "float32") else pytest.mark.long)
    for case in [(n, p) for n in RUNTIMES for p in export.TARGETS[n].precisions]
]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_a_target_predicts_as_jax_does(name, precision, examples, tmp_path):
    require(name)
    forks = []
    os.register_at_fork(before=lambda: forks.append(name))
    metadata = write(tmp_path / "out", examples, name, precision=precision)
    checked = metadata["checks"]
    assert metadata["targets"] == ["jax", name]
    reference = ["float32"] if precision == "bfloat16" else []
    assert list(checked) == [*reference, "jax", name]
    if precision == "float32":
        assert checked[name]["largest_difference"] < 1e-5
    else:
        assert 0 < checked[name]["largest_difference"] < 0.05
        assert checked[name]["nll"] == pytest.approx(checked["jax"]["nll"], abs=0.01)
        assert checked[name]["mutual_information"] == pytest.approx(
            checked["jax"]["mutual_information"], rel=0.1
        )
    assert not forks  # JAX has threads
    classify = targets.load(name, tmp_path / "out")
    reference, _ = loader.load(tmp_path / "out")
    tolerance = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.05, "int8": 0.2}[
        precision
    ]
    for size in (1, 7, 256):
        images = np.resize(examples.train, (size, 8, 8, 1))
        found, wanted = classify(images), reference(images)
        assert found.keys() == wanted.keys()
        for key, values in wanted.items():
            assert found[key].shape == values.shape
            np.testing.assert_allclose(found[key], values, atol=tolerance, err_msg=key)
        half = precision == "bfloat16"  # of all operations, in OpenVINO
        np.testing.assert_allclose(
            found["probs"].sum(1), 1, atol=0.02 if half else 1e-5
        )
        assert found["mutual_information"].min() > (-0.02 if half else -1e-5)
    for images in (np.zeros((0, 8, 8, 1), np.uint8), examples.train / 255):
        with pytest.raises(Exception, match=r"accepted: |data type|uint8"):
            classify(images.astype(np.float32) if len(images) else images)
    if precision == "int8":
        size = 1 if name == "web" else 3
        fixed = write(
            tmp_path / "3", examples, name, precision=precision, batch_size=size
        )
        assert fixed["checks"][name]["nll"] == pytest.approx(
            checked[name]["nll"], abs=2e-3
        )
        shutil.rmtree(tmp_path / "3")
        with pytest.raises(InputError, match="max_nll_increase=-1 is less than"):
            write(
                tmp_path / "other",
                examples,
                name,
                precision=precision,
                max_nll_increase=-1.0,
            )
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_artifact_is_complete_only_with_the_same_settings(
    examples, tmp_path, monkeypatch
):
    # Without a converter: the file of the target stands for a model.
    target = targets.Target((), lambda source: {"model.x": b"x"}, None)
    monkeypatch.setitem(targets.TARGETS, "web", target)
    classify = jax.jit(small_program())
    monkeypatch.setattr(targets, "load", lambda name, place: classify)
    out = tmp_path / "out"

    def again(*names, **options):
        options = {"details": {"size": (8, 8)}, "examples": examples, **options}
        return export.write_artifact(
            small_program(),
            (8, 8, 1),
            out,
            classes=CLASSES,
            targets=names,
            **options,
        )

    assert again("web") and not again("web", max_nll_increase=0.1)
    # The program for JAX alone, which `launch.predict` asks for, is there.
    assert not again("jax", examples=None)
    with pytest.raises(InputError, match="an artifact with another web_runtime"):
        again("web", web_runtime="ort/")
    with pytest.raises(InputError, match="max_nll_increase=-1 is less than"):
        again("web", max_nll_increase=-1.0)
    (out / "model.x").write_bytes(b"y")
    assert not again("jax", examples=None)
    with pytest.raises(InputError, match=r"with a damaged model\.x\)"):
        again("web")


@pytest.mark.long
@pytest.mark.parametrize("name", ["onnx", "openvino", "litert"])
def test_a_loader_needs_only_its_runtime(name, examples, tmp_path):
    require(name)
    metadata = write(tmp_path / "out", examples, name)
    metadata["prediction_sets"] = {
        "score": "thr",
        "thresholds": [{"coverage": 0.9, "threshold": 0.1}],
    }
    fitted = {"score": "thr", "thresholds": [{"coverage": 0.9, "threshold": 0.6}]}
    metadata["target_prediction_sets"] = {name: fitted}
    (tmp_path / "out/metadata.json").write_text(json.dumps(metadata))
    np.save(tmp_path / "images.npy", examples.train[:7])
    module = export.TARGETS[name].loader
    program = (
        "import sys\n"
        "for name in ('edp', 'jax', 'flax', 'onnx', 'jax2onnx', 'tensorflow', 'absl'):"
        "\n"
        "    sys.modules[name] = None\n"
        f"import {module} as load, numpy\n"
        "classify, metadata = load.load()\n"
        "found = classify(numpy.load('../images.npy'))\n"
        "sets = load.prediction_sets(found['probs'], metadata, 0.9)\n"
        "numpy.savez('../found.npz', sets=sets, **found)\n"
    )
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path += {sys.path!r}\n{program}"],
        cwd=tmp_path / "out",
        check=True,
    )
    found = np.load(tmp_path / "found.npz")
    reference, _ = loader.load(tmp_path / "out")
    wanted = reference(examples.train[:7])
    np.testing.assert_allclose(found["probs"], wanted["probs"], atol=1e-4)
    likely = np.asarray(wanted["probs"]) >= 0.4
    likely[np.arange(7), np.asarray(wanted["probs"]).argmax(1)] = True
    np.testing.assert_array_equal(found["sets"], likely)
