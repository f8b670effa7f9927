"""Runs the fault harness.

    python -m tests.end_to_end.faults --runs=50

Tiny runs on digits are killed, terminated, corrupted and given a full disk. Each must
end with the results of a run without faults, bit for bit, or be refused in a line.
Prints the runs, the injected faults and the lost results; exits with 1 if any result is
lost.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "support"))

if __name__ == "__main__":
    parser = argparse.ArgumentParser("tests.end_to_end.faults")
    parser.add_argument("--runs", type=int, default=50, help="killed several times")
    parser.add_argument("--terminations", type=int, default=20)
    parser.add_argument(
        "--every", type=int, default=1, help="of the damages, each n-th"
    )
    parser.add_argument("--full", type=int, default=8, help="limits on file sizes")
    parser.add_argument("--two", type=int, default=2, help="runs of two processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", default=None, help="where to work; a temporary place")
    parser.add_argument("--only", nargs="*", help="kinds, as kill or two; all")
    from faults import harness

    sys.exit(harness.main(parser.parse_args()))
