"""Runs on Cloud TPU.

* `machine`: types of machines, and checks of a machine and its run.
* `states`: the next action, given the states of the machine and the run.
* `commands`: commands of `gcloud`, each a list of arguments.
* `following`: runs or prints commands, and polls a machine.
"""
