"""Joins the other processes of a run, on this host or others."""

import importlib.util
import os
import re

from absl import flags

from edp.errors import InputError

_ADDRESS = flags.DEFINE_string(
    "coordinator_address",
    None,
    "host:port of process 0; needed where no cluster manager is detected.",
)
_COUNT = flags.DEFINE_integer(
    "num_processes", None, "Processes of the run; 1 runs this one alone.", lower_bound=1
)
_ID = flags.DEFINE_integer(
    "process_id", None, "Index of this process, from 0.", lower_bound=0
)
FLAGS = (_ADDRESS, _COUNT, _ID)

# Environment variables that give the number of processes. For Slurm it is that of the
# step: an interactive shell is one task, whatever was allocated.
_COUNTS = {
    "SLURM_STEP_NUM_TASKS": int,
    "OMPI_COMM_WORLD_SIZE": int,
    "MEGASCALE_NUM_SLICES": int,
    "TPU_PROCESS_ADDRESSES": lambda names: len(names.split(",")),
    "TPU_WORKER_HOSTNAMES": lambda names: len(names.split(",")),
}


def join() -> None:
    """Joins the other processes, if the flags or the environment name any.

    Call it before JAX looks for devices. Does nothing in a single process.

    Raises:
      InputError: for invalid flags, or if the other processes are not found.
    """
    flags_given = {flag.name: flag.value for flag in FLAGS}
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
    import jax  # imported here, as a single process may not need it

    # JAX would handle SIGTERM itself; see `signals.stop_requests`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if missing:
            jax.distributed.initialize()
        else:
            # Under Slurm and Open MPI, JAX would assume one GPU per process.
            jax.distributed.initialize(
                **flags_given, cluster_detection_method="deactivate"
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"the other processes of this run cannot be joined: {error}; accepted: "
            "--coordinator_address, --num_processes and --process_id, or "
            "--num_processes=1 for this process alone"
        ) from error


def _has_others() -> bool:
    """Returns whether JAX can find other processes in this environment."""
    counts = [count(os.environ[n]) for n, count in _COUNTS.items() if n in os.environ]
    if counts:
        return max(counts) > 1
    # On Cloud TPU the metadata server knows; JAX sets the first variable where there is
    # a TPU, and the second where there is none. A single host is one process.
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
