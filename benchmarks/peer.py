"""Published recipe in plain PyTorch, written to be fast.

Distillation with (Conf)ODS as a PyTorch user would write it from the formulas (arXiv
2110.14149, section 3): teachers one after another, gradients from autograd, a
BatchEnsemble on tiled batches, a clean and a perturbed pass of the student. It starts
from the same weights as the contender of edp.
"""

import contextlib
import functools
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import ours
from benchmarks.cases import Step
from benchmarks.peer_models import Conv, Network, load_variables
from benchmarks.timing import Contender
from edp import ensemble
from edp.errors import InputError

# Name -> mode of `torch.compile`, or None for eager.
MODES: dict[str, str | None] = {
    "eager": None,
    "compile": "default",
    "cudagraphs": "reduce-overhead",
}


class _Setting(NamedTuple):
    """Device, precision and compilation of a contender."""

    device: torch.device
    precision: str
    compile_mode: str | None

    def autocast(self):
        """Returns a context that computes in bfloat16 if the precision is bfloat16."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def call(self, network: Network) -> Callable[[torch.Tensor], torch.Tensor]:
        """Returns the network's forward pass under this setting."""
        forward = network
        if self.compile_mode is not None:
            forward = torch.compile(network, mode=self.compile_mode)

        def call(x):
            with self.autocast():
                return forward(x)

        return call


def find_device() -> torch.device:
    """Returns the device of the same kind as JAX's.

    Raises:
      InputError: if this PyTorch has none.
    """
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        return torch.device("cuda")
    raise InputError(f"PyTorch has no {jax.default_backend()} here")


def versions() -> dict[str, Any]:
    """Returns the versions and settings of PyTorch to record."""
    return {
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "gomp_spincount": os.environ.get("GOMP_SPINCOUNT", "default"),
        "huge_pages": os.environ.get("THP_MEM_ALLOC_ENABLE", "default"),
    }


def unit(direction: torch.Tensor) -> torch.Tensor:
    """Scales each image of `direction` [B, C, H, W] to L2 length 1."""
    length = torch.linalg.vector_norm(direction, dim=(1, 2, 3), keepdim=True)
    return direction / length.clamp_min(1e-12)


def ods(network, x, weights, *, length, temperature, by_confidence) -> torch.Tensor:
    """Takes a step that changes a network's outputs in a random direction (eq. 6, 8).

    Args:
      network: x [B, C, H, W] -> logits [B, K].
      x: images in [0, 1].
      weights: random direction in output space [B, K].
      length: η√D.
      temperature: τ.
      by_confidence: whether to scale each step by the largest probability.
    """
    x = x.detach().requires_grad_()
    probs = (network(x) / temperature).softmax(dim=-1)
    (gradient,) = torch.autograd.grad((probs * weights).sum(), x)
    move = length * unit(gradient)
    if by_confidence:
        move = move * probs.detach().amax(dim=-1)[:, None, None, None]
    return (x.detach() + move).clamp_(0, 1)


def disagreement(networks, x, *, length, temperature) -> torch.Tensor:
    """Takes a gradient step up the variance of the networks' probabilities."""
    x = x.detach().requires_grad_()
    logits = torch.stack([network(x) for network in networks])
    probs = (logits / temperature).softmax(dim=-1)
    (gradient,) = torch.autograd.grad(probs.var(dim=0, correction=0).sum(), x)
    return (x.detach() + length * unit(gradient)).clamp_(0, 1)


def mixup(x) -> torch.Tensor:
    """Mixes each image with another of the batch, with λ ~ Beta(1, 1) per image."""
    share = torch.rand(len(x), 1, 1, 1, device=x.device)
    return torch.lerp(x[torch.randperm(len(x), device=x.device)], x, share)


def _perturb(problem: ours.Problem, name: str, teachers) -> Callable:
    case = problem.case
    settings = {
        "length": case.step_size * math.sqrt(math.prod(case.image_shape)),
        "temperature": case.temperature,
    }
    if name == "none":
        return lambda x: x
    if name == "mixup":
        return mixup
    if name == "disagreement":
        return functools.partial(disagreement, teachers, **settings)

    def perturb(x):
        weights = torch.empty(len(x), case.num_classes, device=x.device).uniform_(-1, 1)
        confident = name == "conf_ods"
        network = random.choice(teachers)
        return ods(network, x, weights, by_confidence=confident, **settings)

    return perturb


def _optimizer(networks: Sequence[Network]) -> torch.optim.SGD:
    named = [pair for network in networks for pair in network.named_parameters()]
    factors = [p for name, p in named if name.endswith((".r", ".s"))]
    others = [p for name, p in named if not name.endswith((".r", ".s"))]
    groups = [{"params": others, "weight_decay": ours.WEIGHT_DECAY}]
    if factors:
        rate = ours.LEARNING_RATE * ours.RANK_ONE_LR_FACTOR
        groups.append({"params": factors, "lr": rate, "weight_decay": 0.0})
    return torch.optim.SGD(
        groups, lr=ours.LEARNING_RATE, momentum=ours.MOMENTUM, fused=True
    )


def _network(problem: ours.Problem, variables, num_members, setting) -> Network:
    case = problem.case
    channels = case.image_shape[-1]
    mean, std = (ours.MEAN,) * channels, (ours.STD,) * channels
    network = Network(case.model, case.num_classes, mean, std, num_members)
    load_variables(network, jax.device_get(variables))
    return network.to(setting.device, memory_format=torch.channels_last)


def _teachers(problem: ours.Problem, setting: _Setting) -> list[Callable]:
    """Returns the teachers in evaluation mode, without gradients of weights."""
    calls = []
    for variables in ensemble.unstack(problem.variables):
        network = _network(problem, variables, None, setting).eval()
        network.requires_grad_(False)
        if setting.precision == "bfloat16":
            # Autocast would cast these constants in every step.
            for module in network.modules():
                if isinstance(module, Conv):
                    module.to(torch.bfloat16)
        calls.append(setting.call(network))
    return calls


def _tensors(problem: ours.Problem, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images [M, B, C, H, W], in channels_last layout, and labels [M, B]."""
    image = torch.tensor(np.asarray(problem.image), device=device)
    label = torch.tensor(np.asarray(problem.label), device=device, dtype=torch.long)
    return image.movedim(-1, 2), label


def _teacher_step(problem: ours.Problem, setting: _Setting) -> Callable:
    networks = [
        _network(problem, variables, None, setting).train()
        for variables in ensemble.unstack(problem.variables)
    ]
    calls = [setting.call(network) for network in networks]
    optimizer = _optimizer(networks)
    images, labels = _tensors(problem, setting.device)

    def step():
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for call, image, label in zip(calls, images, labels, strict=True):
            loss = F.cross_entropy(call(image), label)
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        return torch.stack(losses)

    return step


def _distill_step(problem: ours.Problem, step: Step, setting: _Setting) -> Callable:
    case = problem.case
    num_members = case.num_members if step.student == "batch_ensemble" else None
    variables = problem.students[step.student]
    network = _network(problem, variables, num_members, setting).train()
    student = setting.call(network)
    optimizer = _optimizer([network])
    teachers = _teachers(problem, setting)
    perturb = _perturb(problem, step.perturbation, teachers)
    images, labels = _tensors(problem, setting.device)
    image, label = images[0], labels[0].repeat(num_members or 1)
    tau, alpha = case.temperature, case.alpha

    def targets(x):
        with torch.inference_mode():
            logits = torch.stack([teacher(x) for teacher in teachers])
            log_probs = (logits / tau).log_softmax(dim=-1)
            if num_members is None:
                log_probs = log_probs.logsumexp(dim=0) - math.log(len(teachers))
            log_probs = log_probs.flatten(0, -2)
        return log_probs.clone()  # a copy that autograd may keep

    def distil():
        perturbed = perturb(image)
        target = targets(perturbed)
        optimizer.zero_grad(set_to_none=True)
        logits = student(image).flatten(0, -2)
        label_term = F.cross_entropy(logits, label)
        if perturbed is not image:
            logits = student(perturbed).flatten(0, -2)
        log_probs = (logits / tau).log_softmax(dim=-1)
        kl = F.kl_div(log_probs, target, reduction="batchmean", log_target=True)
        loss = (1 - alpha) * label_term + alpha * tau**2 * kl
        loss.backward()
        optimizer.step()
        return loss.detach()

    return distil


def create_step(problem: ours.Problem, step: Step, setting: _Setting) -> Callable:
    """Returns a function () -> the loss or the perturbed inputs."""
    if step.kind == "teacher_step":
        return _teacher_step(problem, setting)
    if step.kind == "distill":
        return _distill_step(problem, step, setting)
    perturb = _perturb(problem, step.perturbation, _teachers(problem, setting))
    images, _ = _tensors(problem, setting.device)
    return lambda: perturb(images[0])


def _graphs() -> int:
    """Returns the number of graphs that `torch.compile` has compiled."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def create_contender(problem: ours.Problem, step: Step, mode: str) -> Contender:
    """Creates the contender and runs its first step.

    Args:
      problem: data and initial weights.
      step: the step to time.
      mode: a name in `MODES`.
    """
    setting = _Setting(find_device(), problem.case.precision, MODES[mode])
    on_gpu = setting.device.type == "cuda"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # as in JAX: TF32 if available
    before = 0
    if on_gpu:
        torch.cuda.empty_cache()  # frees memory of earlier contenders for JAX
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    step_fn = create_step(problem, step, setting)

    def run(calls: int) -> float:
        for _ in range(calls):
            if setting.compile_mode is not None:
                torch.compiler.cudagraph_mark_step_begin()
            value = step_fn()
        if on_gpu:
            torch.cuda.synchronize()
        return value.mean().item()

    run(1)
    facts: dict[str, Any] = {}
    while setting.compile_mode is not None:
        facts["compile_seconds"] = time.perf_counter() - started
        compiled = _graphs()
        run(1)
        if _graphs() == compiled:  # nothing is left to compile in a timed step
            break
    if on_gpu:
        facts["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    name = "pytorch" if mode == "eager" else f"pytorch-{mode}"
    return Contender({"contender": name}, run, 1, facts)
