"""Our own kernels for CPUs, compiled where they run.

XLA's convolutions make 25 to 84% of the rate at which oneDNN computes them on a CPU,
and its batch normalisation reads its input once more for each of its sums. These
kernels stand in for them on one CPU device, in float32, for 1x1 and 3x3 kernels and
channels in multiples of 8 (inputs also of up to 32 channels); everything else is XLA's.
`EDP_NATIVE=0` turns them off.
"""

from edp.models.native.library import disabled, in_use, load_ahead, status
from edp.models.native.operations import (
    INTERLEAVED,
    convolve,
    normalise,
    takes_convolution,
    takes_normalisation,
)

__all__ = [
    "INTERLEAVED",
    "convolve",
    "disabled",
    "in_use",
    "load_ahead",
    "normalise",
    "status",
    "takes_convolution",
    "takes_normalisation",
]
