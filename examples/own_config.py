"""A configuration of one's own: a larger ensemble, and three students of it.

    python -m launch.run --config=examples/own_config.py --workdir=runs/own

In a checkout and with the installed package alike; `edp run --config=...` there.
"""

import ml_collections

from edp.configs import default, digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Six teachers on the digits, and what it takes to teach one network."""
    config = digits.get_config()
    config.teachers.num_members = 6
    config.evaluation.ood_sets = ("noise",)

    config.students = ml_collections.ConfigDict()
    config.students.plain = default.student(config)
    config.students.moved = default.student(
        config, perturbation="disagreement", quantity="projection", random_members=2
    )
    config.students.mixed = default.student(
        config, perturbation="mixup", temperature=4.0
    )
    return default.choose(config, variant)
