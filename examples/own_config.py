"""Custom configuration: a larger ensemble and three students.

    python -m launch.run --config=examples/own_config.py --workdir=runs/own

Works in a checkout and, as `edp run --config=...`, with the installed package.
"""

import ml_collections

from edp.configs import default, digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns six teachers on the digits and three students."""
    config = digits.get_config()
    config.teachers.num_members = 6
    config.evaluation.ood_sets = ("noise",)

    config.students = ml_collections.ConfigDict()
    config.students.plain = default.student(config)
    config.students.perturbed = default.student(
        config, perturbation="disagreement", quantity="projection", random_members=2
    )
    config.students.mixed = default.student(
        config, perturbation="mixup", temperature=4.0
    )
    return default.choose(config, variant)
