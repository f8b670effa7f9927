"""Parses the flags of commands without running them.

Reads a JSON list of lists of words, such as ["launch.run", "--config=..."], prints a
line for each invalid command and exits with their number. This is a separate program,
as flags are global to a process; each command is parsed in a fork.
"""

import importlib
import importlib.util
import json
import os
import sys

from absl import flags

# Imported once, for all forks.
from edp.experiment import create, validate  # noqa: F401


def check(module: str, *arguments: str) -> None:
    """Raises an exception for unknown flags or invalid settings."""
    sys.argv = [module, *arguments]
    own = module.partition(".")[0] in ("benchmarks", "launch")
    is_package = own and importlib.util.find_spec(module).submodule_search_locations
    importlib.import_module(f"{module}.__main__" if is_package else module)
    flags.FLAGS(sys.argv)
    if "config" in flags.FLAGS and flags.FLAGS.config is not None:
        validate.check(flags.FLAGS.config)


def main() -> int:
    faults = 0
    for command in json.load(sys.stdin):
        pid = os.fork()
        if not pid:
            try:
                check(*command)
            except BaseException as error:
                print(f"{' '.join(command)}: {type(error).__name__}: {error}")
                sys.stdout.flush()
                os._exit(1)
            os._exit(0)
        faults += os.waitpid(pid, 0)[1] != 0
    return faults


if __name__ == "__main__":
    sys.exit(main())
