"""CIFAR networks in PyTorch with the architectures of `edp.models`.

Modules have the names of the Flax modules, so that weights can be copied one by one.
The rows of a BatchEnsemble are tiled member by member: row m·B + b is image b for
member m.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class _Members:
    """Computes product(x ∘ r) ∘ s with the factors of each row's member."""

    def add_factors(self, num_members: int | None, inputs: int, outputs: int) -> None:
        self.num_members = num_members
        if num_members is not None:
            self.r = nn.Parameter(torch.ones(num_members, inputs))
            self.s = nn.Parameter(torch.ones(num_members, outputs))

    def per_row(self, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Repeats factors [M, C] to [M·B, C, 1, 1] (or [M·B, C]), in the dtype of x."""
        rows = values.to(x.dtype).repeat_interleave(len(x) // self.num_members, dim=0)
        return rows[:, :, None, None] if x.ndim == 4 else rows


class Conv(_Members, nn.Conv2d):
    """Convolution without bias, plain or BatchEnsemble."""

    def __init__(self, inputs, outputs, num_members, size=3, stride=1):
        super().__init__(inputs, outputs, size, stride, size // 2, bias=False)
        self.add_factors(num_members, inputs, outputs)

    def forward(self, x):
        if self.num_members is None:
            return super().forward(x)
        y = super().forward(x * self.per_row(self.r, x))
        return y * self.per_row(self.s, y)


class Dense(_Members, nn.Linear):
    """Dense layer, plain or BatchEnsemble with a bias per member."""

    def __init__(self, inputs, outputs, num_members):
        super().__init__(inputs, outputs)
        self.add_factors(num_members, inputs, outputs)
        if num_members is not None:
            self.bias = nn.Parameter(torch.zeros(num_members, outputs))

    def forward(self, x):
        if self.num_members is None:
            return super().forward(x)
        y = F.linear(x * self.per_row(self.r, x), self.weight)
        return y * self.per_row(self.s, y) + self.per_row(self.bias, y)


class _ResNetBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, num_members):
        super().__init__()
        self.conv1 = Conv(inputs, outputs, num_members, stride=stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = Conv(outputs, outputs, num_members)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        if self.added:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, 0, self.added))
        return F.relu(x + y, inplace=True)


class _WideBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, num_members):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = Conv(inputs, outputs, num_members, stride=stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = Conv(outputs, outputs, num_members)
        self.shortcut = None
        if inputs != outputs or stride != 1:
            self.shortcut = Conv(inputs, outputs, num_members, size=1, stride=stride)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        y = self.conv2(F.relu(self.norm2(y), inplace=True))
        return y + (x if self.shortcut is None else self.shortcut(x))


class Network(nn.Module):
    """ResNet-n with identity shortcuts, or WideResNet.

    Args:
      model: `name` ('resnet' or 'wide_resnet') and its `depth`, `width` or
        `widen_factor`, and `stem_strides`.
      num_classes: K.
      mean: per channel, of images in [0, 1].
      std: per channel, of images in [0, 1].
      num_members: None for one network; M for a BatchEnsemble of M.
    """

    def __init__(self, model: Mapping[str, Any], num_classes, mean, std, num_members):
        super().__init__()
        wide = model["name"] == "wide_resnet"
        stem = 16 if wide else model["width"]
        width = 16 * model["widen_factor"] if wide else stem
        block = _WideBlock if wide else _ResNetBlock
        self.num_members = num_members
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        strides = model.get("stem_strides", 1)
        self.stem_conv = Conv(len(mean), stem, num_members, stride=strides)
        self.stem_norm = None if wide else nn.BatchNorm2d(stem)
        self.blocks, inputs = [], stem
        for stage in range(3):
            for index in range((model["depth"] - (4 if wide else 2)) // 6):
                outputs = width * 2**stage
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"stage{stage + 1}_block{index + 1}"
                self.add_module(name, block(inputs, outputs, stride, num_members))
                self.blocks.append(name)
                inputs = outputs
        self.final_norm = nn.BatchNorm2d(inputs) if wide else None
        self.head = Dense(inputs, num_classes, num_members)

    def forward(self, x):
        """Computes logits [B, K], or [M, B, K] with members, of x [B, C, H, W]."""
        x = (x - self.mean) / self.std
        if self.num_members is not None:
            x = x.repeat(self.num_members, 1, 1, 1)
        x = self.stem_conv(x)
        if self.stem_norm is not None:
            x = F.relu(self.stem_norm(x), inplace=True)
        for name in self.blocks:
            x = getattr(self, name)(x)
        if self.final_norm is not None:
            x = F.relu(self.final_norm(x), inplace=True)
        logits = self.head(x.mean(dim=(2, 3))).float()
        if self.num_members is not None:
            logits = logits.unflatten(0, (self.num_members, -1))
        return logits


def load_variables(network: Network, variables: Mapping[str, Any]) -> Network:
    """Copies the variables of the Flax model of the same architecture.

    Args:
      network: changed in place.
      variables: `params` and `batch_stats`, arrays without a leading member axis.

    Returns:
      The network.

    Raises:
      RuntimeError: if names or shapes differ.
    """
    names = {"kernel": "weight", "scale": "weight"}
    names |= {"mean": "running_mean", "var": "running_var"}
    state = {key: network.get_buffer(key) for key in ("mean", "std")}

    def visit(tree, path):
        for key, value in tree.items():
            if isinstance(value, Mapping):
                visit(value, (*path, key))
                continue
            value = np.asarray(value)
            if key == "kernel":
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            state[".".join((*path, names.get(key, key)))] = torch.tensor(value)

    visit(variables["params"], ())
    visit(variables["batch_stats"], ())
    missing, unexpected = network.load_state_dict(state, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise RuntimeError(f"missing {missing}, unexpected {unexpected}")
    return network
