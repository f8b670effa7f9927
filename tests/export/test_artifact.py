"""Tests of artifacts of a program of one's own."""

import functools

import jax
import numpy as np
import pytest
from exported_runs import read_csv
from PIL import Image

from edp import export
from edp.errors import InputError
from edp.export import classify_files
from edp.runtime import storage


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
    found = [row["class"] for row in read_csv(out)]
    assert found == ["abc"[p.argmax()] for p in wanted]
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
