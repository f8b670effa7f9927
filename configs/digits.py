"""Scikit-learn's handwritten digits: the main job in under a minute on two CPU cores.

    python -m launch.run --config=configs/digits.py --workdir=runs/digits

400 training, 200 validation and 1,000 test images of 8x8 pixels ship with
scikit-learn; nothing is downloaded. This shows that everything works, not the effect
of perturbations: one network does almost as well here as four, so there is hardly a
gap for a student to close.
"""

import ml_collections

from . import default


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the digits settings."""
    config = default.get_config()
    config.data.validation_size = 200
    config.data.mean, config.data.std = (0.305,), (0.377,)
    config.model.width = 16
    for section in (config.teachers, config.distill):
        section.batch_size = 50
        section.learning_rate = 0.05
        section.num_epochs = 30
        section.warmup_epochs = 1.0
    config.distill.step_size = 4 / 255

    config.students = ml_collections.ConfigDict()
    for name in ("none", "gaussian", "ods", "conf_ods", "disagreement"):
        config.students[f"single_{name}"] = default.student(config, perturbation=name)
    config.students.be_none = default.student(config, student="batch_ensemble")
    config.students.be_conf_ods = default.student(
        config, student="batch_ensemble", perturbation="conf_ods"
    )
    return default.choose(config, variant)
