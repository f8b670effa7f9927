"""Fault harness.

    python -m tests.end_to_end.faults --runs=50

Kills, terminates and damages tiny runs on digits, and fills their disk. Each must end
with the results of an undisturbed run, bit for bit, or be refused in one line. Prints
the runs, the faults injected and the results lost; exits with 1 if any are lost.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "support"))

if __name__ == "__main__":
    parser = argparse.ArgumentParser("tests.end_to_end.faults")
    parser.add_argument(
        "--runs", type=int, default=50, help="runs to kill, several times each"
    )
    parser.add_argument("--terminations", type=int, default=20)
    parser.add_argument("--every", type=int, default=1, help="damage every n-th file")
    parser.add_argument(
        "--full", type=int, default=8, help="runs with a limit on file sizes"
    )
    parser.add_argument("--two", type=int, default=2, help="runs of two processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--dir", default=None, help="directory to work in; default: temporary"
    )
    parser.add_argument(
        "--only", nargs="*", help="kinds of faults, such as kill or two; default: all"
    )
    from tests.end_to_end.faults import harness

    sys.exit(harness.main(parser.parse_args()))
