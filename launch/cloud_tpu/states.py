"""What is to be done about a run, by the states of its machine and of itself.

The states of a machine are those of a node
(https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes#state).
"""

from ..cli.exit_codes import EXIT_INTERRUPTED
from .machine import Machine

# What a machine that is gone is told by: to be deleted and made again.
GONE = ("PREEMPTED", "TERMINATED")
MISSING = "MISSING"  # not a state of `gcloud`: there is no such machine
UNKNOWN = "UNKNOWN"  # nor this: it could not be asked
# What passes by itself.
_PASSING = ("CREATING", "STARTING", "RESTARTING", "REPAIRING", "REIMAGING", "DELETING")
_PASSING += ("STOPPING", UNKNOWN)

# What is known of a run, besides its exit code.
NOT_SET_UP, NOT_STARTED, RUNNING = "not set up", "not started", "running"


def next_action(machine: Machine, state: str, known: str) -> str:
    """What is to be done about a run.

    Args:
      machine: where it runs.
      state: of the machine, or `MISSING` or `UNKNOWN`.
      known: of the run: its exit code, or `NOT_SET_UP`, `NOT_STARTED`, `RUNNING`.

    Returns:
      One of those of `commands.commands`, or 'wait' or 'end'.
    """
    if state == "READY":
        actions = {NOT_SET_UP: "setup", NOT_STARTED: "start", RUNNING: "wait"}
        return (actions | {str(EXIT_INTERRUPTED): "start"}).get(known, "end")
    if state in _PASSING:
        return "wait"
    if machine.may_go and state in (*GONE, MISSING):
        return "create" if state == MISSING else "recreate"
    return "end"
