"""Independent random streams from one seed, by name.

Every key of a run derives from the seed, the names of its purpose and the step. So no
random state is saved, and a resumed run draws what an uninterrupted one would draw.
"""

import zlib

import jax


def stream(key: jax.Array, *names: str) -> jax.Array:
    """Returns the key of the stream `names`, independent of all other streams."""
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return key
