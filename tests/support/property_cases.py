"""Random inputs of the property tests: extreme logits, images and probabilities.

Hypothesis samples the kind of numbers and a seed; NumPy generates the numbers. There
are few shapes, because each is compiled.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from scipy import special

SHAPES = [(3, 4, 5), (1, 1, 2), (2, 3, 1000), (4, 1, 3)]  # M, B, K
DTYPES = ["float32", "bfloat16", "float16"]
IMAGE = (3, 2, 1)  # H, W, C: D = 6
# Rows of logits.
ROWS = {
    "normal": lambda rng, k: rng.normal(size=k),
    "confident": lambda rng, k: 30 * rng.normal(size=k),
    "extreme": lambda rng, k: rng.choice([-1e4, 0.0, 1e4], size=k),
    "one_hot": lambda rng, k: 2e4 * (np.arange(k) == rng.integers(k)) - 1e4,
    "uniform": lambda rng, k: np.full(k, rng.choice([-1e4, 0.0, 3.0, 1e4])),
}
LOGITS = [*ROWS, "mixed", "equal"]  # mixed: a kind per row; equal: equal members
IMAGES = {
    "random": lambda rng, shape: rng.uniform(size=shape),
    "black": lambda rng, shape: np.zeros(shape),
    "white": lambda rng, shape: np.ones(shape),
    "grey": lambda rng, shape: np.full(shape, 0.5),
    "binary": lambda rng, shape: rng.integers(0, 2, shape),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """The inputs of one example of a property test."""

    shape: tuple[int, int, int]
    dtype: str
    logits_of: str
    images_of: str
    temperature: float
    step_size: float
    seed: int
    thorough: bool = True  # False: fewer compilations

    @functools.cached_property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    @property
    def key(self) -> jax.Array:
        return jax.random.key(self.seed)

    @property
    def eps(self) -> float:
        """Returns the machine epsilon of the dtype."""
        return float(jnp.finfo(self.dtype).eps)

    @property
    def rounding(self) -> float:
        """Returns the tolerance of log-probabilities in float32."""
        return 1e-5 + 1e-2 / self.temperature * (not self.is_smooth)

    @property
    def is_smooth(self) -> bool:
        """Returns whether rounding has little effect: no ties and no underflow."""
        return self.logits_of == "normal" and self.dtype == "float32"

    def logits(self, *lead: int) -> jax.Array:
        """Returns logits [*lead, K]; the first axis is that of members."""
        num_classes = self.shape[-1]
        rows = [self._row(num_classes) for _ in range(int(np.prod(lead)))]
        values = np.reshape(rows, (*lead, num_classes))
        if self.logits_of == "equal":
            values = np.broadcast_to(values[:1], values.shape)
        return jnp.asarray(values.astype(np.float32), self.dtype)

    def _row(self, num_classes: int) -> np.ndarray:
        kind = self.logits_of
        if kind in ("mixed", "equal"):
            kind = self.rng.choice(list(ROWS))
        return ROWS[kind](self.rng, num_classes)

    def probs(self, *lead: int) -> np.ndarray:
        """Returns a softmax [*lead, K] in the dtype of the case."""
        values = special.softmax(np.float64(self.logits(*lead)), axis=-1)
        return values.astype(jnp.dtype(self.dtype))

    def labels(self, size: int) -> np.ndarray:
        return self.rng.integers(0, self.shape[-1], size)

    def images(self, batch: int) -> jax.Array:
        """Returns images [B, H, W, C] in [0, 1]."""
        values = IMAGES[self.images_of](self.rng, (batch, *IMAGE))
        return jnp.asarray(np.float32(values), self.dtype)

    def scores(self, size: int) -> np.ndarray:
        """Returns confidences or uncertainties [n], some of them tied."""
        values = self.rng.choice([-1e4, 0.0, 0.5, 1e4], size)
        if self.logits_of in ("normal", "mixed"):
            values = np.where(
                self.rng.random(size) < 0.5, self.rng.random(size), values
            )
        return values.astype(jnp.dtype(self.dtype))


def cases(thorough: bool) -> st.SearchStrategy:
    shapes, dtypes = (SHAPES, DTYPES) if thorough else (SHAPES[:1], DTYPES[:1])
    return st.builds(
        Case,
        shape=st.sampled_from(shapes),
        dtype=st.sampled_from(dtypes),
        logits_of=st.sampled_from(LOGITS),
        images_of=st.sampled_from(list(IMAGES)),
        temperature=st.sampled_from([1.0, 0.5, 2.5, 20.0]),
        step_size=st.sampled_from([1 / 255, 0.0, 0.1, 2.0]),
        seed=st.integers(0, 2**32 - 1),
        thorough=st.just(thorough),
    )
