"""Times convolutions and their gradients with our own kernels and with XLA's.

    python -m benchmarks.convolutions --batch=128

Rates are of the operations of the definition (`limits.convolution_flops`), also where
the kernels need fewer of them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from absl import app, flags

from benchmarks import limits
from edp.models import cpu_convolution, native
from edp.runtime import xla
from launch.cli import arguments

_BATCH = flags.DEFINE_integer("batch", 128, "Images of a call.", 1)


class Layer(NamedTuple):
    """Convolution of square images, zero-padded by taps // 2."""

    size: int
    channels: int
    features: int
    taps: int = 3
    strides: int = 1


# Of ResNet-8 of width 32 with a stem of stride 2, of WRN-28-1 and of wider networks.
LAYERS = (
    Layer(16, 32, 32),
    Layer(16, 32, 64, strides=2),
    Layer(8, 64, 64),
    Layer(8, 64, 128, strides=2),
    Layer(4, 128, 128),
    Layer(32, 16, 16),
    Layer(16, 64, 64),
    Layer(8, 256, 256),
    Layer(16, 320, 320),
    Layer(14, 1024, 256, taps=1),
)
PASSES = ("forward", "input gradient", "kernel gradient")


def rates(layer: Layer, images: int, calls: int = 3) -> dict[str, float]:
    """Measures the rate of each of `PASSES` in FLOP/s, with the kernels in use.

    Args:
      layer: the convolution.
      images: N.
      calls: calls in one timing; the fastest of a few timings counts.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (layer.taps, layer.taps, layer.channels, layer.features)
    x = jax.random.normal(keys[0], (images, layer.size, layer.size, layer.channels))
    kernel = jax.random.normal(keys[1], shape)
    convolve = functools.partial(cpu_convolution.convolve, strides=layer.strides)
    out = jax.eval_shape(convolve, x, kernel)
    g = jax.random.normal(keys[2], out.shape)

    def gradient(argument: int) -> Callable:
        return lambda x, kernel, g: jax.vjp(convolve, x, kernel)[1](g)[argument]

    fns = (lambda x, kernel, g: convolve(x, kernel), gradient(0), gradient(1))
    flops = limits.convolution_flops(out.shape, shape)
    return {
        name: limits.best_rate(fn, (x, kernel, g), flops, calls)
        for name, fn in zip(PASSES, fns, strict=True)
    }


def main(argv: list[str]) -> None:
    with arguments.bad_input_in_a_line():
        arguments.refuse_arguments(argv[1:])
        xla.keep_memory()
        print(f"kernels: {native.status()}; GFLOP/s, ours and XLA's")
        print(f"| layer | {' | '.join(PASSES)} |\n| --- |{' --- |' * len(PASSES)}")
        for layer in LAYERS:
            own = rates(layer, _BATCH.value)
            with native.disabled():
                other = rates(layer, _BATCH.value)
            cells = (f"{own[p] / 1e9:.0f}, {other[p] / 1e9:.0f}" for p in PASSES)
            size = f"{layer.size}², {layer.channels} → {layer.features}"
            kind = f"{layer.taps}x{layer.taps}, stride {layer.strides}"
            print(f"| {size}, {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
