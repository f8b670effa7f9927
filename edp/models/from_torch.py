"""PyTorch modules as JAX functions, for teachers that were trained with PyTorch.

`torch.export` traces a module in evaluation mode; its graph of core ATen operators is
computed in JAX (`edp.models.aten`), so that it can be jitted and differentiated like
any network. PyTorch (the extra `torch`) is used while tracing only.
"""

import copy
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edp.errors import InputError
from edp.models import aten, channels_last

# How far JAX may be from PyTorch, in the Euclidean norm: rounding takes some units of
# a deep network across the kink of a ReLU, and with them a few gradients. Those of
# PyTorch itself in single and double precision differ by 1e-3 for EfficientNet-Lite0,
# and the largest of them by 6e-3.
_TOLERANCES = {"logits": 1e-3, "gradients": 1e-2}
# No size that a network would have by itself.
_EXAMPLES = 3


class TorchModel:
    """A PyTorch module in evaluation mode, called like a Flax module.

    The first call for a shape of inputs traces the module, and compares logits and
    input gradients with those of PyTorch for random inputs.
    """

    def __init__(
        self,
        module: Any,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        """Copies the module; the caller's stays as it is.

        Args:
          module: a `torch.nn.Module`: images [B, C, H, W] (or inputs of another rank)
            -> logits [B, K].
          mean: per channel of pixels in [0, 1], subtracted before the module; None
            for one that normalises by itself.
          std: per channel, divided by.

        Raises:
          InputError: if PyTorch is not installed, for what is no module, or for one of
            `mean` and `std` without the other.
        """
        torch = import_torch()
        if not isinstance(module, torch.nn.Module):
            raise InputError(
                f"module is a {type(module).__name__}; accepted: a torch.nn.Module"
            )
        if (mean is None) != (std is None):
            raise InputError(
                f"mean={mean} and std={std} go together; accepted: both, or neither "
                "for a module that normalises by itself"
            )
        self._module = copy.deepcopy(module).to("cpu", torch.float32).eval()
        self._module.requires_grad_(False)
        self._mean, self._std = mean, std
        self._graphs: dict[tuple, Any] = {}

    def variables(self, state_dict: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns `params` and `buffers` by their names in PyTorch, as float32 arrays.

        Args:
          state_dict: of the module, for other weights than its own. A prefix
            `module.`, of `DataParallel`, is dropped.

        Raises:
          InputError: for weights that do not fit the module or are not finite.
        """
        module = self._module
        if state_dict is not None:
            module = self._loaded(state_dict)
        found = {
            "params": dict(module.named_parameters()),
            "buffers": dict(module.named_buffers()),
        }
        for name, tensor in [*found["params"].items(), *found["buffers"].items()]:
            if not tensor.isfinite().all():
                raise InputError(f"{name} of the module is not finite")
        return {
            kind: {name: _array(tensor) for name, tensor in tensors.items()}
            for kind, tensors in found.items()
        }

    def apply(self, variables, x: jax.Array, train: bool = False) -> jax.Array:
        """Computes logits [B, K] of inputs x [B, H, W, C] in [0, 1], or [B, ...].

        Raises:
          InputError: for integers, which are no pixels in [0, 1]; if the module cannot
            be traced or computed in JAX.
        """
        if train:
            raise InputError("train=True; accepted: False for a PyTorch module")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(
                f"x has dtype {x.dtype}; accepted: floating-point inputs, such as "
                "pixels / 255 in float32"
            )
        return self._normalised(self._program(x), variables, x)

    def _normalised(self, program, variables, x):
        if self._mean is not None:
            x = (x - jnp.asarray(self._mean)) / jnp.asarray(self._std)
        if x.ndim == 4:
            x = channels_last.ChannelsLast(x)
        return _run(program, variables, x)

    def _program(self, x):
        shape, size = x.shape[1:], x.shape[0]
        for key in (shape, (size, shape)):
            if key in self._graphs:
                return self._graphs[key]
        program, any_size = _export(self._module, _channels_first(_EXAMPLES, shape))
        if not any_size:
            program, _ = _export(self._module, _channels_first(size, shape), size)
        self._check(program, (_EXAMPLES if any_size else size, *shape))
        self._graphs[shape if any_size else (size, shape)] = program
        return program

    def _check(self, program, shape):
        """Raises an InputError unless JAX and PyTorch compute the same."""
        torch = import_torch()
        x = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
        with jax.ensure_compile_time_eval():

            def total(x, variables):
                logits = self._normalised(program, variables, x)
                return (logits**2).sum(), logits

            differentiated = jax.jit(jax.grad(total, has_aux=True))
            found = differentiated(x, self.variables())[::-1]
        given = torch.tensor(x, requires_grad=True)
        inputs = given
        if self._mean is not None:
            inputs = (inputs - torch.tensor(self._mean)) / torch.tensor(self._std)
        logits = self._module(inputs.movedim(-1, 1) if x.ndim == 4 else inputs)
        (logits**2).sum().backward()
        expected = (logits.detach().numpy(), given.grad.numpy())
        for what, a, b in zip(_TOLERANCES, found, expected, strict=True):
            error = np.linalg.norm(np.asarray(a) - b) / max(np.linalg.norm(b), 1e-6)
            if not error <= _TOLERANCES[what]:
                raise InputError(
                    f"{_name(self._module)}: its {what} in JAX differ from PyTorch's "
                    f"by {error:.2g} of their norm; accepted: {_TOLERANCES[what]:g}"
                )

    def _loaded(self, state_dict):
        module = copy.deepcopy(self._module)
        if state_dict and all(name.startswith("module.") for name in state_dict):
            state_dict = {k.removeprefix("module."): v for k, v in state_dict.items()}
        try:
            module.load_state_dict(state_dict)
        except RuntimeError as error:
            message = " ".join(str(error).split())
            raise InputError(
                f"a state dict does not fit the module: {message}"
            ) from error
        return module


def functions(
    modules: Any,
    state_dicts: Sequence[Mapping[str, Any]] | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> list[Callable[[jax.Array], jax.Array]]:
    """Returns functions x [B, H, W, C] in [0, 1] -> logits [B, K], one per member.

    Args:
      modules: a list of `torch.nn.Module`, each of which is traced, or one module for
        all of `state_dicts`, which is traced once; each takes images [B, C, H, W], or
        inputs of another rank as they are.
      state_dicts: the weights of each member.
      mean: see `TorchModel`.
      std: see `TorchModel`.

    Raises:
      InputError: if PyTorch is not installed, or for weights that do not fit or are not
        finite; at a function's first call, for a module that JAX cannot compute.
    """
    if state_dicts is not None:
        model = TorchModel(modules, mean=mean, std=std)
        pairs = [(model, model.variables(weights)) for weights in state_dicts]
    else:
        modules = list(modules) if isinstance(modules, list | tuple) else [modules]
        models = [TorchModel(module, mean=mean, std=std) for module in modules]
        pairs = [(model, model.variables()) for model in models]
    return [functools.partial(model.apply, variables) for model, variables in pairs]


def import_torch() -> Any:
    """Returns the package `torch`.

    Raises:
      InputError: if it is not installed.
    """
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torch.export")
    except ImportError as error:
        raise InputError(
            f"PyTorch cannot be imported: {error}; accepted: pip install torch"
        ) from error
    return torch


def _export(module, shape, batch=None):
    """Traces a module; returns the program, and whether it serves any batch size."""
    torch = import_torch()
    dims = {} if batch is not None else {0: torch.export.Dim.AUTO}
    try:
        program = torch.export.export(
            module, (torch.zeros(shape),), dynamic_shapes=(dims,)
        ).run_decompositions()
    except Exception as error:  # Whatever the module raises.
        message = " ".join(str(error).split())[:300]
        raise InputError(
            f"{_name(module)} cannot be traced with torch.export for inputs of shape "
            f"{shape}: {message}"
        ) from error
    nodes = program.graph.nodes
    for node in nodes:
        if node.op == "call_function" and aten.implementation(node.target) is None:
            raise InputError(
                f"{_name(module)} uses {node.target}, which has no JAX counterpart; "
                "accepted: operators in edp.models.aten.OPERATORS, to which it can be "
                "added"
            )
    (name,) = program.graph_signature.user_inputs
    (given,) = (node for node in nodes if node.name == name)
    outputs = program.graph_signature.user_outputs
    results = [node.meta["val"] for node in nodes if node.name in outputs]
    if len(outputs) != 1 or results[0].ndim != 2:
        raise InputError(
            f"{_name(module)} returns {len(outputs)} values of shapes "
            f"{[tuple(r.shape) for r in results]}; accepted: one, logits [B, K]"
        )
    return program, not isinstance(given.meta["val"].shape[0], int)


def _run(program, variables, x):
    """Computes an exported program, of one input and one output.

    Args:
      program: from `_export`.
      variables: from `TorchModel.variables`.
      x: the input, as an array or `ChannelsLast`.
    """
    signature = program.graph_signature
    values = dict.fromkeys(signature.user_inputs, x)
    tensors = {**variables["params"], **variables["buffers"]}
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    values |= {node: jnp.asarray(tensors[name]) for node, name in named.items()}
    for node, name in signature.inputs_to_lifted_tensor_constants.items():
        values[node] = _array(program.constants[name])
    torch = import_torch()
    env: dict[Any, Any] = {}

    def read(argument):
        return torch.fx.node.map_arg(argument, lambda node: env[node])

    for node in program.graph.nodes:
        if node.op == "placeholder":
            env[node] = values[node.name]
        elif node.op == "call_function":
            try:
                env[node] = channels_last.call(
                    node.target, read(node.args), read(node.kwargs)
                )
            except NotImplementedError as error:
                raise InputError(
                    f"{node.target} of a PyTorch module is {error}, which has no JAX "
                    "counterpart in edp.models.aten"
                ) from error
        else:
            (result,) = read(node.args)[0]
    return channels_last.plain(result)


def _channels_first(size, shape):
    if len(shape) == 3:
        shape = (shape[2], *shape[:2])
    return (size, *shape)


def _array(tensor) -> jax.Array:
    return jnp.asarray(tensor.detach().cpu().numpy())


def _name(module) -> str:
    return f"the PyTorch module {type(module).__name__}"
