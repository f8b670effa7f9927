"""Imports networks trained elsewhere as the teachers of a run.

    python -m launch.import_teachers --config=configs/digits.py --workdir=runs/mine \\
        --members=/nets/0,/nets/1,/nets/2,/nets/3

Each is a checkpoint of one network of the configured model: an Orbax directory, or a
.msgpack, .npz or .safetensors file (see `edp.experiment.weights`), or a network of
another run, such as runs/other/teachers#2. `launch.run`, with the same configuration
and workdir, trains the students. With `teachers.groups`, give
GROUP=PATH for every network of a group; groups that are not named are trained.
"""

import ml_collections
from absl import flags

from edp.errors import InputError
from edp.experiment import import_teachers as importing
from edp.experiment.create import Experiment

from .cli import app

_MEMBERS = flags.DEFINE_list(
    "members", None, "A checkpoint per network; with teachers.groups, GROUP=PATH."
)


def import_teachers(experiment: Experiment) -> None:
    """Completes the teachers' stage with the networks of --members."""
    importing.import_teachers(experiment, _MEMBERS.value)


def check_members(config: ml_collections.ConfigDict) -> None:
    """Raises an InputError if --members is missing."""
    if not _MEMBERS.value:
        raise InputError("--members is required: a checkpoint per network")


if __name__ == "__main__":
    app.main(import_teachers, check_members)
