"""Teachers of other frameworks as on the page, and teachers without gradients."""

import documents
import jax
import numpy as np
import pytest
from deployed_page import PAGE, deploy
from flax import nnx
from foreign_networks import K, LinenNet, NNXNet, X, one_step

from edp import ensemble, perturbations
from edp.errors import InputError


@pytest.mark.long
@pytest.mark.parametrize("package", ["equinox", "keras"])
def test_teachers_of_another_framework(package, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip(package)
    names = documents.run_python(PAGE)
    exec(documents.files(PAGE)[f"{package}_teachers.py"], names)
    teachers, stacked = names["teachers"], names["stacked"]
    images = names["images"]
    assert teachers.differentiable
    logits = teachers.all_logits(images)
    assert logits.shape == (3, 16, 10)
    np.testing.assert_allclose(stacked.all_logits(images), logits, atol=1e-5)
    _, metrics = names["one_step"](teachers)
    _, same = names["one_step"](stacked)
    np.testing.assert_allclose(metrics["loss"], same["loss"], atol=1e-5)


def test_five_nnx_networks_become_a_deployed_student(tmp_path, monkeypatch, capsys):
    nets = [NNXNet(nnx.Rngs(m), channels=1, num_classes=10) for m in range(5)]
    for net in nets:
        net.eval()
    line = "teachers = ensemble.teachers_from_"
    replaced = f"{line}torch(nets, **norm)", f"{line}functions(nets)"
    deploy(nets, tmp_path, monkeypatch, replaced)
    assert "teachers" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(perturbations.PERTURBATIONS))
def test_perturbations_say_that_they_need_gradients(name):
    exported = jax.export.export(jax.jit(lambda x: x[:, 0, :K, 0] * 9))
    call = jax.export.deserialize(exported(X).serialize()).call
    teachers = ensemble.teachers_from_functions([call, call], differentiable=False)
    if not perturbations.PERTURBATIONS[name].uses_gradients:
        one_step(teachers, LinenNet, name)
        return
    words = f"perturbation='mixup.{name}' needs gradients .*: none, gaussian, mixup"
    with pytest.raises(InputError, match=words):
        one_step(teachers, LinenNet, f"mixup+{name}")
    # And that it is so: JAX itself cannot.
    with pytest.raises(ValueError, match="No VJP is available"):
        one_step(ensemble.teachers_from_functions([call, call]), LinenNet, name)
