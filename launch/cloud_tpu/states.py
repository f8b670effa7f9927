"""Chooses the next action for a run from the states of its machine and itself.

The states of a machine are those of a node
(https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes#state).
"""

from ..cli.exit_codes import EXIT_INTERRUPTED
from .machine import Machine

# States of a machine that is gone: delete and recreate it.
GONE = ("PREEMPTED", "TERMINATED")
MISSING = "MISSING"  # not a state of `gcloud`: no such machine
UNKNOWN = "UNKNOWN"  # nor this: the query failed
# Transient states.
_PASSING = ("CREATING", "STARTING", "RESTARTING", "REPAIRING", "REIMAGING", "DELETING")
_PASSING += ("STOPPING", UNKNOWN)

# States of a run besides its exit code.
NOT_SET_UP, NOT_STARTED, RUNNING = "not set up", "not started", "running"


def next_action(machine: Machine, state: str, known: str) -> str:
    """Returns the next action for a run.

    Args:
      machine: the machine that it runs on.
      state: state of the machine, or `MISSING` or `UNKNOWN`.
      known: exit code of the run, or `NOT_SET_UP`, `NOT_STARTED` or `RUNNING`.

    Returns:
      An action of `commands.commands`, 'wait' or 'end'.
    """
    if state == "READY":
        actions = {NOT_SET_UP: "setup", NOT_STARTED: "start", RUNNING: "wait"}
        return (actions | {str(EXIT_INTERRUPTED): "start"}).get(known, "end")
    if state in _PASSING:
        return "wait"
    if machine.may_go and state in (*GONE, MISSING):
        return "create" if state == MISSING else "recreate"
    return "end"
