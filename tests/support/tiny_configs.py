"""Configurations of runs that take seconds."""

from tests.configs import tiny


def tiny_config(**teachers):
    """Returns the tiny run with one student, two members and these teacher settings."""
    config = tiny.get_config("single_conf_ods")
    config.teachers.update({"num_members": 2, "num_epochs": 2, **teachers})
    config.distill.num_epochs = 1
    return config
