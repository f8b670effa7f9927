"""The devices of `JAX_PLATFORMS`, checked before any work."""

import os

from edp.errors import InputError


def check() -> None:
    """Looks for the devices that JAX will use.

    Raises:
      InputError: if `JAX_PLATFORMS` names one that is not there.
    """
    import jax

    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # the first without a message
        platforms = os.environ.get("JAX_PLATFORMS")
        if not platforms:
            raise
        why = f" ({error})" if str(error) else ""
        raise InputError(
            f"JAX_PLATFORMS={platforms!r} finds no such device{why}; accepted: cpu, "
            "the name of a backend that is installed, or unset"
        ) from error
