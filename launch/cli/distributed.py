"""Joining the other processes of a run, on this or on other hosts."""

import importlib.util
import os
import re

from absl import flags

from edp.errors import InputError

_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "host:port where process 0 can be reached."
)
_COUNT = flags.DEFINE_integer(
    "num_processes", None, "Processes of the run; 1: this one alone.", lower_bound=1
)
_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0.", lower_bound=0
)

# Where the environment tells how many processes were started together. Slurm's is
# that of the step: a shell is one task, whatever was allocated for it.
_COUNTS = {
    "SLURM_STEP_NUM_TASKS": int,
    "OMPI_COMM_WORLD_SIZE": int,
    "MEGASCALE_NUM_SLICES": int,
    "TPU_PROCESS_ADDRESSES": lambda names: len(names.split(",")),
    "TPU_WORKER_HOSTNAMES": lambda names: len(names.split(",")),
}


def join() -> None:
    """Makes this process one of several, where the flags or the environment say so.

    To be called before JAX looks for devices. A single process goes on as it is.

    Raises:
      InputError: for flags at fault, or if the others are not found.
    """
    flags_given = {flag.name: flag.value for flag in (_ADDRESS, _COUNT, _ID)}
    missing = [f"--{name}" for name, value in flags_given.items() if value is None]
    if _COUNT.value == 1 or (len(missing) == 3 and not _has_others()):
        return
    if 0 < len(missing) < 3:
        raise InputError(
            f"{' and '.join(missing)} must be given too; accepted: all of "
            "--coordinator_address, --num_processes and --process_id, or none"
        )
    if not missing:
        _check(**flags_given)
    import jax  # here, as a single process may need none

    # JAX would take SIGTERM for itself; see `signals.stop_requests`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if missing:
            jax.distributed.initialize()
        else:
            # Of Slurm and Open MPI, JAX would take a process to have one GPU.
            jax.distributed.initialize(
                **flags_given, cluster_detection_method="deactivate"
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"the other processes of this run cannot be joined: {error}; give "
            "--coordinator_address, --num_processes and --process_id, or "
            "--num_processes=1 for this process alone"
        ) from error


def _has_others() -> bool:
    """Whether the environment is one in which JAX can find other processes."""
    counts = [count(os.environ[n]) for n, count in _COUNTS.items() if n in os.environ]
    if counts:
        return max(counts) > 1
    # A Cloud TPU asks its metadata; JAX sets the one where there is a TPU, the
    # other where there is none. A single host is a run of one process.
    on_tpu = "TPU_ML_PLATFORM" in os.environ and "TPU_SKIP_MDS_QUERY" not in os.environ
    in_job = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
    return on_tpu or (in_job and importlib.util.find_spec("kubernetes") is not None)


def _check(coordinator_address: str, num_processes: int, process_id: int) -> None:
    if not re.fullmatch(r".+:\d+", coordinator_address):
        raise InputError(
            f"--coordinator_address={coordinator_address!r} must be host:port"
        )
    if process_id >= num_processes:
        raise InputError(
            f"--process_id={process_id} must be from 0 to {num_processes - 1}, "
            f"as --num_processes={num_processes}"
        )
