"""Settings of every test process."""

import os

# Most of the tests' time is XLA compiling small programs once; hardly optimised
# code computes the same in a fraction of it. The commands that tests start as
# processes of their own compile as they do for users.
_FLAGS = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{_FLAGS} --xla_backend_optimization_level=0".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
