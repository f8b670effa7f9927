"""Independent random streams from one seed, by name.

Every key of a run derives from the seed, the names of what it is for and the
step, so nothing random needs saving: a resumed run draws what the uninterrupted
one would have drawn.
"""

import zlib

import jax


def stream(key: jax.Array, *names: str) -> jax.Array:
    """The key of the stream `names`, independent of every other's."""
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return key
