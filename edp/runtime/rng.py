"""Independent random streams from one seed, by name.

Every key of a run derives from the seed, the names of its purpose and the step. So no
random state is saved, and a resumed run draws what an uninterrupted one would draw.
"""

import contextlib
import zlib

import jax


def stream(key: jax.Array, *names: str) -> jax.Array:
    """Returns the key of the stream `names`, independent of all other streams."""
    # In a traced function, computed once while it is traced, where the key is known.
    is_known = not isinstance(key, jax.core.Tracer)
    with jax.ensure_compile_time_eval() if is_known else contextlib.nullcontext():
        for name in names:
            key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return key
