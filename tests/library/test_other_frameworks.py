"""Teachers and students from other frameworks, and teachers without gradients."""

import sys

import documents
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn import datasets

from edp import distill, ensemble, export, metrics, perturbations, students
from edp.errors import InputError
from edp.metrics import uncertainty
from edp.models import aten, from_nnx, from_torch

PAGE = documents.ROOT / "docs/other-frameworks.md"
OWN = documents.ROOT / "docs/your-own-ensemble.md"
K = 4
X = jax.random.uniform(jax.random.key(0), (6, 5, 5, 3))
LABELS = jnp.arange(6) % K


def one_step(teachers, build, perturbation="none"):
    settings = {"student": "single", "perturbation": perturbation, "alpha": 0.5}
    settings |= {"temperature": 2.0, "step_size": 0.05}
    student = students.create_student(
        settings, build, num_members=teachers.num_members, training_steps=1
    )
    perturb = perturbations.create_perturbation(settings)
    state = distill.create_state(student, optax.sgd(0.1), jax.random.key(1), X[:1])

    @jax.jit
    def step(state):
        return distill.distill_step(
            state,
            {"image": X, "label": LABELS},
            jax.random.key(2),
            student=student,
            teachers=teachers,
            perturb=perturb,
            tx=optax.sgd(0.1),
        )

    return state, *step(state)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return nn.Dense(K, name="head")(x.mean((1, 2)))


class NNXNet(nnx.Module):
    def __init__(self, rngs, rate=0.0, channels=3, num_classes=K):
        self.norm = nnx.BatchNorm(channels, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(channels, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(self.norm(x)).mean((1, 2)))


class StatelessNet(nnx.Module):
    def __init__(self, rngs):
        self.head = nnx.Linear(3, K, rngs=rngs)

    def __call__(self, x):
        return self.head(x.mean((1, 2)))


def test_a_module_without_running_state_gives_empty_updates():
    model = from_nnx.NNXModel(StatelessNet)
    x = jnp.ones((2, 4, 4, 3))
    variables = model.init(jax.random.key(0), x)
    logits, updates = model.apply(variables, x, train=True, mutable=[])
    assert logits.shape == (2, K) and updates == {}


# --- The pages --------------------------------------------------------------------


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


def deploy(nets, directory, monkeypatch, replaced=None):
    """Runs the blocks that train, score and deploy a student; returns their names."""
    files = documents.files(PAGE)
    lines = [line for line in files["deploy.py"].splitlines() if line.strip()]
    assert len(lines) - 1 <= 25  # without the name of the file
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype(np.float32)
    parts = [
        {"image": images[i : i + 64], "label": labels[i : i + 64]} for i in (0, 64, 128)
    ]
    names = dict(zip(("train", "validation", "test"), parts, strict=True))
    names |= {"nets": nets, "pixels": np.uint8(np.rint(images[128:192] * 255))}
    block = files["deploy.py"]
    if replaced:
        assert replaced[0] in block and replaced[1] in PAGE.read_text("utf-8")
        block = block.replace(*replaced)
    monkeypatch.chdir(directory)
    exec(block, names)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [*sys.path])
        exec(files["predict.py"], names)
        sys.modules.pop("load")
    # The artifact predicts as the student did, at its temperature.
    (probs, _), temperature = names["found"][1], names["rows"][1]["temperature"]
    expected = metrics.apply_temperature(probs, temperature)
    np.testing.assert_allclose(names["probs"], expected, atol=5e-3)
    assert [row["model"] for row in names["rows"]] == ["teachers", "student"]
    return names


def test_five_nnx_networks_become_a_deployed_student(tmp_path, monkeypatch, capsys):
    nets = [NNXNet(nnx.Rngs(m), channels=1, num_classes=10) for m in range(5)]
    for net in nets:
        net.eval()
    line = "teachers = ensemble.teachers_from_"
    replaced = f"{line}torch(nets, **norm)", f"{line}functions(nets)"
    deploy(nets, tmp_path, monkeypatch, replaced)
    assert "teachers" in capsys.readouterr().out


# --- NNX --------------------------------------------------------------------------


def test_an_nnx_student_learns_as_the_same_network_in_linen():
    teachers = ensemble.teachers_from_functions([lambda x: x[:, 0, :K, 0] * 9])
    linen, nnx_model = LinenNet(), from_nnx.NNXModel(NNXNet)
    variables = linen.init(jax.random.key(0), X[:1], train=False)
    own = {"params": variables["params"], "state": variables["batch_stats"]}

    class Started(from_nnx.NNXModel):
        def init(self, key, x, train=False):
            return own

    class LinenStarted:
        apply = staticmethod(linen.apply)

        def init(self, key, x, train=False):
            return variables

    assert jax.tree.map(jnp.shape, nnx_model.init(jax.random.key(0), X)) == (
        jax.tree.map(jnp.shape, own)
    )
    _, a, metrics = one_step(teachers, lambda: Started(NNXNet), "disagreement")
    _, b, expected = one_step(teachers, LinenStarted, "disagreement")
    np.testing.assert_allclose(metrics["loss"], expected["loss"], atol=1e-6)
    for found, wanted in (
        (a.params, b.params),
        (a.model_state["state"], b.model_state["batch_stats"]),
    ):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), found, wanted
        )


def test_an_nnx_model_draws_dropout_from_its_key_in_training_only():
    model = from_nnx.NNXModel(lambda rngs: NNXNet(rngs, 0.5))
    variables = model.init(jax.random.key(0), X)
    first, second = (
        model.apply(variables, X, train=True, rngs={"dropout": jax.random.key(i)})
        for i in (1, 2)
    )
    assert np.abs(first - second).max() > 1e-3
    trained = NNXNet(nnx.Rngs(3), 0.5)
    trained.eval()
    found = model.apply(from_nnx.variables_of(trained), X)
    np.testing.assert_array_equal(found, trained(X))
    with pytest.raises(InputError, match=r"NNXNet without init; accepted: .*NNXModel"):
        one_step(
            ensemble.teachers_from_functions([trained]), lambda: NNXNet(nnx.Rngs(0))
        )


def test_a_program_of_variables_with_prng_keys():
    graph, state = nnx.split(NNXNet(nnx.Rngs(0), 0.5))
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(state)]
    assert any(jnp.issubdtype(dtype, jax.dtypes.prng_key) for dtype in dtypes)

    def probs(state, x):
        net = nnx.merge(graph, state)
        net.eval()
        return jax.nn.softmax(net(x))[None]

    def scores(state, x):
        return uncertainty.scores(probs(state, x))

    program = export.create_program(probs, scores, state, 1.0)
    images = np.zeros((2, 5, 5, 3), np.uint8)
    expected = probs(state, jnp.zeros((2, 5, 5, 3)))[0]
    np.testing.assert_allclose(jax.jit(program)(images)["probs"], expected, atol=1e-6)


# --- Teachers without gradients ---------------------------------------------------


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


# --- PyTorch ----------------------------------------------------------------------


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


def test_operators_are_named_as_in_aten():
    assert list(aten.OPERATORS) == sorted(aten.OPERATORS)
    assert aten.implementation("aten.relu.default") is aten.OPERATORS["relu"]
    assert aten.implementation("other.relu.default") is None
    assert aten.implementation("aten.nothing.default") is None
