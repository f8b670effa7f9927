"""The whole job in seconds, to test the commands with."""

import ml_collections

from configs import default

STUDENTS = {
    "single_none": {},
    "single_conf_ods": {"perturbation": "conf_ods", "step_size": 0.02},
    "be_disagreement": {"student": "batch_ensemble", "perturbation": "disagreement"},
    "single_gaussian": {"perturbation": "gaussian", "step_size": 0.02},
    "latent": {"student": "latent_batch_ensemble", "select": "best"},
    "hydra": {"student": "hydra", "hydra_mean_share": 0.5, "hydra_diversity": 0.1},
    "mimo": {"student": "mimo"},
    "packed": {"student": "packed"},
    "dirichlet": {"student": "dirichlet"},
    "functional": {"student": "functional", "functional_teachers": 1},
    "bridge": {"student": "bridge", "bridge_width": 8, "optimizer": "adamw"},
    "flow": {"student": "flow", "flow_width": 8, "optimizer": "adamw"},
}


def get_config(
    students: str = "single_none,single_conf_ods,be_disagreement",
) -> ml_collections.ConfigDict:
    """Two small members and the students named, 3 epochs of 4 steps each.

    With "+groups" after the names, two samples of each of two networks by SWAG teach
    them too, in a group of their own.
    """
    students, _, teachers = students.partition("+")
    config = default.get_config()
    config.data.train_size, config.data.validation_size = 80, 40
    config.data.test_size = 60
    config.data.crop_padding = 1
    config.model.width = 4
    config.teachers.num_members = 2
    for section in (config.teachers, config.distill):
        section.batch_size = 20
        section.num_epochs = 3
        section.warmup_epochs = 0.5
    config.evaluation.diversity_size = 30
    config.evaluation.gallery_size = 2
    config.evaluation.attribution_size = 4
    config.evaluation.step_sizes = (1 / 255, 0.04)
    config.evaluation.ood_sets = ("noise",)
    config.evaluation.corruptions = ("contrast",)
    config.checkpoint_minutes = 0.0  # one every epoch

    config.students = ml_collections.ConfigDict()
    for name in students.split(","):
        config.students[name] = default.student(config, **STUDENTS[name])
    if teachers == "groups":
        groups = config.teachers.groups
        groups.plain = default.group(config, num_members=2)
        groups.samples = default.group(
            *(config, {"name": "convnet", "width": 8}),
            **{"num_members": 4, "kind": "swag", "networks": 2, "swag_start": 2},
        )
        config.teachers.num_members = 6
    return config
