"""Runs on Cloud TPU: what a machine is, the `gcloud` commands, what is to be done.

* `machine`: which machines there are, and which runs they can hold.
* `states`: what is to be done of a machine and a run, by what is known of them.
* `commands`: of `gcloud`, each a list of arguments.
* `following`: commands run or shown, a machine watched.
"""
