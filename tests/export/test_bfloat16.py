"""Tests of programs that compute their layers in bfloat16."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_programs import labelled_examples, small_program, write

from edp.errors import InputError
from edp.export import loader, targets
from edp.export.bfloat16 import to_bfloat16
from edp.models import native
from edp.runtime import storage


def test_layers_round_their_operands_and_nothing_else():
    # 1 + 2^-9 lies between two numbers of bfloat16, and rounds to 1.
    weights = np.float32([[1 + 2**-9], [1.0]])
    program = to_bfloat16(lambda x: x @ weights + np.float32(2**-9))
    x = np.float32([[1.0, 0.0], [3.0, 2**-12]])
    np.testing.assert_array_equal(
        program(x),
        [[1 + 2**-9], [3 + 2**-12 + 2**-9]],  # accumulated in float32
    )
    (dot,) = (e for e in jax.make_jaxpr(program)(x).eqns if "dot" in str(e.primitive))
    assert {v.aval.dtype for v in dot.invars} == {jnp.dtype(jnp.bfloat16)}


def test_an_artifact_in_bfloat16_is_compared_with_float32(tmp_path):
    examples = labelled_examples()
    metadata = write(tmp_path / "out", examples, "jax", precision="bfloat16")
    write(tmp_path / "float32", examples, "jax")
    sizes = [(tmp_path / n / "model.jax").stat().st_size for n in ("out", "float32")]
    assert sizes[0] < 0.9 * sizes[1]
    checked = metadata["checks"]
    assert list(checked) == ["float32", "jax"]
    assert checked["float32"]["largest_difference"] == 0
    assert 1e-5 < checked["jax"]["largest_difference"] < 0.02
    assert abs(checked["jax"]["nll"] - checked["float32"]["nll"]) < 1e-3
    factor = metadata["temperature_factors"]["jax"]
    # Multiplying the logarithms by the factor gives the program before the refit.
    classify, _ = loader.load(tmp_path / "out")
    found = np.log(classify(examples.held_out.images)["probs"]) * factor
    with native.disabled():
        lowered = jax.jit(to_bfloat16(small_program()))
        wanted = lowered(examples.held_out.images)["probs"]
    np.testing.assert_allclose(jax.nn.softmax(found), wanted, atol=5e-3)
    program = (tmp_path / "out/model.jax").read_bytes()
    write(tmp_path / "out", examples, "jax", precision="bfloat16")
    assert (tmp_path / "out/model.jax").read_bytes() == program
    with pytest.raises(InputError, match="an artifact with another precision, sha256"):
        write(tmp_path / "out", examples, "jax")
    # As earlier versions wrote of an artifact for other targets.
    path = tmp_path / "float32/metadata.json"
    metadata = storage.read_mapping(path)
    storage.write_json(path, {**metadata, "temperature_factor": 1.5})
    written = write(tmp_path / "float32", examples, "jax")
    assert written["temperature_factor"] == 1.5


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install jax2onnx .*openvino"):
        targets.check_settings(["openvino"], "bfloat16")
