"""Refusals, before the first training, of what a later training would need."""

import re

import pytest
from flax import linen as nn

from configs import default
from edp import models
from edp.errors import InputError
from edp.experiment import preconditions
from edp.experiment.create import create_experiment
from tests.configs.tiny import get_config

# Does not divide the images of 8x8 pixels.
VIT = {"name": "vit", "depth": 1, "width": 8, "heads": 2, "patch_size": 3}


class OneWidth(models.Classifier):
    """A network that ignores `width_factor`, which `packed` needs."""

    def feature_maps(self, x, conv, norm, drop):
        return nn.relu(norm(name="norm")(conv(8, name="conv")(x)))


def refuses(tmp_path, config, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        create_experiment(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("of", ["students", "second"])
def test_images_that_a_network_trained_later_does_not_take(tmp_path, of):
    config = get_config("single_none")
    groups = config.teachers.groups
    groups.first = default.group(config, num_members=1)
    groups.second = default.group(config, num_members=1)
    vit, name = {
        "students": (config.model, "model"),
        "second": (groups.second.model, "teachers.groups.second.model"),
    }[of]
    vit.update(VIT)
    message = f"{name}.patch_size=3 does not divide images of 8x8 pixels"
    refuses(tmp_path, config, message)


def test_a_student_whose_network_cannot_be_initialised(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "one_width", OneWidth)
    config = get_config("single_none,packed")
    config.model.name = "one_width"
    config.teachers.num_members, config.distill.packed_alpha = 4, 2.0
    refuses(tmp_path, config, "students.packed.packed_alpha=2.0 with 4 members leaves")


def test_a_scale_that_does_not_fit_the_images(tmp_path):
    config = get_config("single_none,single_conf_ods")
    config.students.single_conf_ods.scale = (4.0, 4.0, 4.0)
    message = r"students.single_conf_ods.scale has shape (3,); accepted: one number"
    refuses(tmp_path, config, message)


@pytest.mark.parametrize("stage", ["teachers", "students/single_none"])
def test_a_directory_of_checkpoints_of_another_training(tmp_path, stage):
    """Which would be moved aside as damaged, and its log replaced."""
    own = tmp_path / "run" / stage
    (own / "checkpoints/7").mkdir(parents=True)
    (own / "metrics.jsonl").write_text("mine")
    words = f"^{re.escape(str(own))} has no settings.json, but checkpoints, metrics.js"
    with pytest.raises(InputError, match=words):
        create_experiment(get_config("single_none"), tmp_path / "run")
    assert (own / "metrics.jsonl").read_text() == "mine"


def test_settings_of_a_student_without_effect_are_a_warning(tmp_path, capfd):
    config = get_config("single_none,dirichlet,hydra")
    config.distill.quantity = "projection"  # of all students: no warning
    own = config.students
    own.single_none.update({"target_pool": "geometric", "step_size": 0.1})
    own.dirichlet.update({"alpha": 0.5, "temperature": config.distill.temperature})
    own.dirichlet.update({"members_at_once": 1, "milestones": (1, 2)})
    run = create_experiment(config, tmp_path).run
    assert not capfd.readouterr().err
    preconditions.warn_of_unread(run, run.students)
    dirichlet, single = capfd.readouterr().err.splitlines()
    where = "perturbation='none', schedule='cosine')"
    assert dirichlet == (
        "warning: students.dirichlet: nothing reads alpha=0.5, milestones=(1, 2) "
        f"(student='dirichlet', {where}"
    )
    assert single == (
        "warning: students.single_none: nothing reads step_size=0.1 "
        f"(student='single', {where}"
    )
