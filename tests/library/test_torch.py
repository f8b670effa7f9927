"""Tests of PyTorch modules as teachers, compared with autograd."""

import sys

import documents
import jax
import numpy as np
import pytest
from deployed_page import deploy
from foreign_networks import K, LinenNet, X, one_step

from edp import ensemble, export
from edp.errors import InputError
from edp.metrics import uncertainty
from edp.models import aten, from_torch

OWN = documents.ROOT / "docs/your-own-ensemble.md"


def test_pytorch_that_does_not_import_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"PyTorch cannot .*pip install torch"):
        ensemble.teachers_from_torch([lambda x: x])


def build_torch(torch, seed, activation=None):
    torch.manual_seed(seed)
    norm = torch.nn.BatchNorm2d(4)
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 2)
    for tensor in (norm.bias.data, norm.running_mean):
        tensor.normal_()

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.norm, self.drop = norm, torch.nn.Dropout2d(0.5)
            self.head = torch.nn.Linear(4, K)

        def forward(self, x):
            x = (activation or torch.nn.functional.relu)(self.norm(self.conv(x)))
            x = self.drop(torch.nn.functional.avg_pool2d(x, 3))
            return self.head(x.view(x.size(0), -1))

    return Net()


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.mark.long
def test_torch_teachers_agree_with_autograd(torch):
    nets = [build_torch(torch, seed) for seed in range(5)]
    assert nets[0].training  # is left as it is
    listed = ensemble.teachers_from_torch(nets, mean=MEAN, std=STD)
    dicts = [{f"module.{k}": v for k, v in n.state_dict().items()} for n in nets]
    loaded = ensemble.teachers_from_torch(nets[0], dicts, mean=MEAN, std=STD)
    assert nets[0].training and listed.num_members == loaded.num_members == 5
    model = from_torch.TorchModel(nets[0], mean=MEAN, std=STD)
    variables = ensemble.stack([model.variables(n.state_dict()) for n in nets])

    def gradient(all_logits):
        def total(x):
            logits = all_logits(x)
            return (logits**2).sum(), logits

        return jax.jit(jax.grad(total, has_aux=True))(X)

    x = torch.tensor(np.asarray(X), requires_grad=True)
    normalised = (x - torch.tensor(MEAN)) / torch.tensor(STD)
    logits = torch.stack([n.eval()(normalised.permute(0, 3, 1, 2)) for n in nets])
    (logits**2).sum().backward()
    for strategy in ("vmap", "unroll"):
        stacked = ensemble.teachers_from_variables(model, variables, strategy=strategy)
        for teachers in (listed, loaded, stacked):
            grad, found = gradient(teachers.all_logits)
            np.testing.assert_allclose(found, logits.detach(), atol=1e-4)
            np.testing.assert_allclose(grad, x.grad, atol=1e-4)
    one = jax.jit(stacked.member_logits)(3, X[:1])
    np.testing.assert_allclose(one, logits[3, :1].detach(), atol=1e-4)
    before, after, metrics = one_step(stacked, LinenNet, "disagreement")
    assert np.isfinite(metrics["loss"])
    # The same members, so the same student.
    _, same, _ = one_step(listed, LinenNet, "disagreement")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        after.params,
        same.params,
    )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, after.params)
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.long
def test_the_page_makes_torch_teachers(torch):
    block = documents.files(OWN)["torch_teachers.py"]
    assert len([line for line in block.splitlines() if line.strip()]) <= 26
    names = {}
    exec(block, names)
    assert np.isfinite(names["metrics"]["loss"])
    expected = names["teachers"].all_logits(names["batch"]["image"])
    exec(documents.files(OWN)["torch_arguments.py"], names)
    found = names["teachers"].all_logits(names["batch"]["image"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.long
def test_five_torch_networks_become_a_deployed_student(torch, tmp_path, monkeypatch):
    torch.manual_seed(0)
    nets = [
        torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3), torch.nn.Flatten(), torch.nn.Linear(288, 10)
        )
        for _ in range(5)
    ]
    names = deploy(nets, tmp_path, monkeypatch)
    assert names["teachers"].num_members == 5


@pytest.mark.long
def test_torch_teachers_become_a_program_of_any_batch_size(torch):
    model = from_torch.TorchModel(build_torch(torch, 0))
    variables = model.variables()

    def probs(variables, x):
        return jax.nn.softmax(model.apply(variables, x))[None]

    def scores(variables, x):
        return uncertainty.scores(probs(variables, x))

    program = export.create_program(probs, scores, variables, 1.0)
    data = export.serialize(program, X.shape[1:])
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 5, 3), np.uint8)
    found = jax.export.deserialize(bytearray(data)).call(images)["probs"]
    expected = probs(variables, images.astype(np.float32) / 255)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.long
def test_each_operator_agrees_with_torch(torch):
    """The check of `TorchModel` raises where logits or gradients differ."""
    f = torch.nn.functional
    layers = {
        "activations": lambda x: (
            f.gelu(x)
            + f.gelu(x, approximate="tanh")
            + f.elu(x, 0.5)
            + f.leaky_relu(x, 0.2)
            + f.hardtanh(x, -0.3, 0.4)
            + f.softplus(x, 2.0)
            + f.silu(x)
            + f.mish(x)
            + x.clamp(-0.2, 0.3)
            + torch.tanh(x) / (1 + torch.exp(-x))
        ),
        "pools": lambda x: (
            f.pad(f.max_pool2d(x, 2, ceil_mode=True), (0, 1, 1, 0))
            + f.avg_pool2d(x, 3, 1, 1)
            + f.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        ),
        "shapes": lambda x: (
            torch.cat(x.chunk(2, 1)[::-1], 1).transpose(2, 3).unsqueeze(1).squeeze(1)
            + x[:, 1:2].expand(-1, 4, -1, -1)
            + x.select(1, 0).unsqueeze(1)
        ),
        "norms": lambda x: f.group_norm(f.layer_norm(f.normalize(x), x.shape[1:]), 2),
        "reductions": lambda x: x / x.std((2, 3), keepdim=True) + x.sum(1, True),
        "attention": lambda x: f.scaled_dot_product_attention(x, x, x),
        "groups": lambda x: f.conv2d(x, torch.ones(4, 2, 3, 3), padding=1, groups=2),
    }
    for name, layer in layers.items():
        model = from_torch.TorchModel(build_torch(torch, 0, layer))
        logits = jax.jit(model.apply)(model.variables(), X)
        assert logits.shape == (6, K), name


@pytest.mark.long
def test_modules_that_jax_cannot_compute(torch):
    def logits(net, **settings):
        model = from_torch.TorchModel(net, **settings)
        return model.apply(model.variables(), X)

    fold = torch.nn.Upsample(scale_factor=1.0, mode="bicubic")
    with pytest.raises(InputError, match=r"Net uses aten.*no JAX counterpart"):
        logits(build_torch(torch, 0, fold))
    with pytest.raises(InputError, match=r"its gradients in JAX differ from PyTorch's"):
        logits(build_torch(torch, 0, lambda x: x.detach() + x))
    with pytest.raises(
        InputError, match=r"returns 1 values of shapes .*logits \[B, K\]"
    ):
        logits(torch.nn.Conv2d(3, K, 3))
    with pytest.raises(InputError, match=r"cannot be traced with torch\.export"):
        logits(torch.nn.Linear(7, K))
    with pytest.raises(InputError, match=r"accepted: a torch\.nn\.Module"):
        ensemble.teachers_from_torch([lambda x: x])
    with pytest.raises(InputError, match=r"mean=None and std=.* go together"):
        logits(build_torch(torch, 0), std=STD)
    net = build_torch(torch, 0)
    wrong = {**net.state_dict(), "head.bias": torch.zeros(7)}
    with pytest.raises(InputError, match=r"does not fit the module: .*head\.bias"):
        from_torch.TorchModel(net).variables(wrong)
    wrong["head.bias"] = torch.tensor([0, 0, 0, float("nan")])
    with pytest.raises(InputError, match=r"head\.bias of the module is not finite"):
        from_torch.TorchModel(net).variables(wrong)


def test_images_of_integers_are_refused():
    model = object.__new__(from_torch.TorchModel)  # without PyTorch
    with pytest.raises(InputError, match=r"dtype uint8; accepted: floating-point"):
        model.apply({}, np.zeros((1, 5, 5, 3), np.uint8))


def test_operators_are_named_as_in_aten():
    assert list(aten.OPERATORS) == sorted(aten.OPERATORS)
    assert aten.implementation("aten.relu.default") is aten.OPERATORS["relu"]
    assert aten.implementation("other.relu.default") is None
    assert aten.implementation("aten.nothing.default") is None
