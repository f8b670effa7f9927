"""Tests that settings that cannot be used are refused before anything is written."""

import pytest
from refusals import settings

# Case -> flags and words of the message. Later flags win.
BAD = {
    "unknown setting": (
        settings(teachers__num_epoch=3, foo=1),
        ["no setting teachers.num_epoch;", "teachers.num_epochs?", "no setting foo;"],
    ),
    "unknown setting of a student": (
        settings(students__single_none__step_sise=3),
        ["students.single_none.step_sise", "students.single_none.step_size?"],
    ),
    "setting of an unknown student": (
        settings(students__sngle_none__step_size=3),
        ["students.sngle_none.step_size", "students.single_none.step_size?"],
    ),
    "wrong types": (settings(teachers__num_epochs="abc"), ["num_epochs=abc"]),
    "several out of range": (
        settings(
            seed=-1,
            teachers__learning_rate=-1,
            teachers__momentum=1,
            distill__alpha="nan",
            students__single_none__num_epochs=0,
            mesh__data=0,
            data__train_size=0,
            data__num_classes=None,
        ),
        [
            "seed=-1 must be an integer from 0",
            "teachers.learning_rate=-1.0 must be a finite number above 0",
            "teachers.momentum=1.0 must be a number from 0 to below 1",
            "distill.alpha=nan must be a number from 0 to 1",
            "students.single_none.num_epochs=0 must be an integer of at least 1",
            "mesh.data=0",
            "data.train_size=0",
            "data.num_classes=None must be an integer of at least",
        ],
    ),
    "unknown perturbation, student, model, schedule, quantity, strategy": (
        settings(
            distill__perturbation="odds",
            students__single_none__student="double",
            model__name="convnte",
            teachers__schedule="linear",
            distill__quantity="entropy",
            teachers__member_strategy="scan",
            distill__select="first",
        ),
        [
            "distill.perturbation='odds' must be one of none, gaussian, mixup",
            "students.single_none.student='double' must be one of single, batch_",
            "model.name='convnte' must be one of convnet",
            "teachers.schedule='linear' must be one of step_linear, cosine",
            "distill.quantity='entropy' must be one of variance",
            "teachers.member_strategy='scan' must be one of vmap",
            "distill.select='first' must be one of last, best",
        ],
    ),
    "setting of the model": (settings(model__width=0), ["model.width=0"]),
    "setting of a kind of student": (
        settings(
            students__single_none__student="functional",
            students__single_none__functional_teachers=9,
        ),
        [
            "students.single_none.functional_teachers=9",
            "1 to 2 (the number of teachers)",
        ],
    ),
    "members compared with one teacher": (
        settings(teachers__num_members=1),
        [
            "students.be_disagreement.perturbation='disagreement' compares members",
            "accepted: none, gaussian, mixup, ods, conf_ods",
        ],
    ),
    "more random members than teachers": (
        settings(
            distill__random_members=3, students__single_none__perturbation="conf_ods"
        ),
        ["students.be_disagreement.random_members=3", "2 to 2"],
    ),
    "milestones": (
        settings(teachers__schedule="step_linear", teachers__milestones="(3, 2)"),
        ["teachers.milestones=(3, 2) must be two epochs E1 < E2"],
    ),
    "batch size": (
        settings(students__single_none__batch_size=81),
        ["students.single_none.batch_size=81", "1 to 80"],
    ),
    "no update": (
        settings(students__single_none__accumulate_steps=13),
        ["students.single_none.accumulate_steps=13", "12 batches", "1 to 12"],
    ),
    "groups of batch normalisation": (
        settings(model__batchnorm_groups=3),
        ["model.batchnorm_groups=3 does not divide teachers.batch_size=20"],
    ),
    "mesh": (settings(mesh__member=2), ["mesh.member=2", "1 device"]),
    "faults of all sections at once": (
        settings(
            data__source="folder",
            data__downsample=3,
            data__resize="random_crop",
            teachers__kind="dropout",
            students__single_none__student="functional",
            students__single_none__functional_teachers=9,
            evaluation__ood_size=0,
            dtype="float16",
        ),
        [
            "dtype='float16' must be one of float32, bfloat16",
            "evaluation.ood_size=0",
            "data.path=None must be given for data.source='folder'",
            "data.downsample=3 must divide height and width",
            "data.resize='random_crop' must be none unless data.stream=True",
            "model.dropout_rate=None must be above 0",
            "students.single_none.functional_teachers=9",
        ],
    ),
    "not a number": (settings(seed="abc"), ["--config.seed=abc"]),
    "not a whole number": (settings(seed=1.5), ["--config.seed=1.5"]),
    "neither true nor false": (
        settings(data__flip="perhaps"),
        ["--config.data.flip=perhaps"],
    ),
    "section set to a number": (settings(data=3), ["--config.data=3"]),
    "setting without a value": (["--config.seed"], ["--config.seed"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_a_line_and_nothing_is_written(case, refused):
    refused(*BAD[case])
