"""Networks with a frozen, randomly initialised network added to their logits."""

import jax
from flax import linen as nn

# Random images that the scale of a prior's logits is measured on.
_NUM_IMAGES = 64


class RandomizedPrior(nn.Module):
    """Computes f(x) + β p(x) / σ, where p is a frozen network at its random start.

    Randomized prior functions (Osband, Aslanides, Cassirer, NeurIPS 2018, arXiv
    1806.03335, algorithm 1). Members of an ensemble differ in p, also where they fit
    the same labels. Here σ is the standard deviation of p's logits on uniform random
    images, measured at initialisation, so β is in units of logits whatever the
    architecture.

    The variables of f have the names that they have without the prior; those of p and
    σ are in the collection `prior`, which is not trained.

    Attributes:
      network: f.
      prior: p, of the same or another architecture; used in evaluation mode.
      scale: β.
    """

    network: nn.Module
    prior: nn.Module
    scale: float

    def setup(self):
        nn.share_scope(self, self.network)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        logits = self.network(x, train=train)
        if not self.scale:
            return logits
        prior = self.prior.clone(parent=None)

        def init():
            network_key, key = jax.random.split(self.make_rng("params"))
            variables = prior.init(network_key, x, train=False)
            images = jax.random.uniform(key, (_NUM_IMAGES, *x.shape[1:]), x.dtype)
            deviation = prior.apply(variables, images, train=False).std()
            return {"variables": variables, "deviation": deviation}

        kept = self.variable("prior", "random_network", init).value
        outputs = prior.apply(kept["variables"], x, train=False)
        return (
            logits + self.scale * jax.lax.stop_gradient(1 / kept["deviation"]) * outputs
        )
