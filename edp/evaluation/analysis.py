"""From completed stages to what the teachers disagree on, and students beside them."""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edp import data, perturbations
from edp.evaluation import disagreement
from edp.experiment import restore, settings
from edp.experiment.create import Experiment
from edp.runtime import multihost, rng, storage

# Of `evaluation`, what the analysis depends on.
_EVALUATION_KEYS = ("batch_size", "diversity_size", "gallery_size", "step_sizes")

Rows = list[dict[str, Any]]
Students = Mapping[str, Mapping[str, Any]]  # name -> settings


def write_analysis(experiment: Experiment) -> None:
    """Writes `analysis.json` and `gallery.npz`, unless they would be the same.

    `diversity`: the teachers' on training inputs, on test inputs, on training inputs
    perturbed as for each student (once where several perturb alike), and at each of
    `evaluation.step_sizes`, named '<student>@<step size>' (once where they perturb
    alike but for the step size). `students`: each completed student beside its
    teachers on training, test and its own perturbed inputs. `notes`: sentences on
    what is left out.

    A perturbation that looks at the student is given the completed one, as training
    gives it the one in training: no two students with members perturb alike then.
    """
    config = experiment.config
    students = {
        name: settings.student_settings(config, name) for name in config.students
    }
    records = {
        name: restore.student_stage(experiment, name).record for name in students
    }
    complete = {name: record["id"] for name, record in records.items() if record}
    looked_at, left_out = _looked_at(experiment, students, complete)
    made_from = {
        "teachers": restore.teachers_record(experiment)["id"],
        "students": complete,
        "perturbations": {
            name: settings.perturbation_settings(student)
            for name, student in students.items()
        },
        "looked_at": looked_at,
        "left_out": left_out,
        "seed": config.seed,
        "dtype": config.dtype,
        **{key: config.evaluation[key] for key in _EVALUATION_KEYS},
    }
    made_from = json.loads(json.dumps(made_from))  # as it is read back
    path = experiment.workdir / "analysis.json"
    gallery_path = experiment.workdir / "gallery.npz"
    exist = path.exists() and gallery_path.exists()
    made = exist and storage.read_mapping(path).get("made_from") == made_from
    if multihost.from_first(made):
        return

    perturbed = {n: s for n, s in students.items() if n not in left_out}
    rows, views = _look_at_teachers(experiment, perturbed, looked_at)
    of_students = []
    for name in complete:
        of_students += _look_at_student(experiment, name, students[name], views)
    shown = _first_alike(perturbed, apart=looked_at)
    shown = {name: views[name] for name in shown.values() if name in views}
    gallery = disagreement.gallery(
        {"clean": views["train"], **shown}, config.evaluation.gallery_size
    )
    names = np.array(experiment.dataset.class_names)
    arrays = {"class_names": names, **gallery}
    storage.write_npz(gallery_path, arrays, compress=True)
    result = {
        "made_from": made_from,
        "diversity": rows,
        "students": of_students,
        "notes": [
            f"Inputs perturbed as for {name} are left out: "
            f"{students[name]['perturbation']} looks at the student's members, "
            f"and {why}."
            for name, why in left_out.items()
        ],
    }
    storage.write_json(path, result)


def _looked_at(
    experiment: Experiment, students: Students, complete: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """The students whose own members their perturbation looks at.

    Returns:
      The names of those that are complete and have these members; and by the names
      of the others the reason why these cannot be looked at.
    """
    looked_at, left_out = [], {}
    for name, section in students.items():
        methods = perturbations.methods(section["perturbation"])
        if not any(method.uses_student for method in methods):
            continue
        student = restore.create_student(experiment, name)
        if student.matched is None:
            continue  # the teachers' alone, in training too
        if student.num_members == 1:
            left_out[name] = "the finished student no longer has them"
        elif name not in complete:
            left_out[name] = "the student is not trained yet"
        else:
            looked_at.append(name)
    return looked_at, left_out


def _look_at_teachers(
    experiment: Experiment, students: Students, looked_at: Collection[str]
) -> tuple[Rows, dict[str, disagreement.View]]:
    """The rows of `diversity`; and by name the views that are clean or a student's."""
    evaluation = experiment.config.evaluation
    probs_fn, variables = restore.load_predictor(experiment, "teachers")
    predict = functools.partial(restore.create_predict(experiment, probs_fn), variables)
    train, test = (
        data.fixed_part(split, evaluation.diversity_size).in_memory()
        for split in (experiment.dataset.train, experiment.dataset.test)
    )
    rows = []

    def look(inputs, images, labels, perturbation=None, step_size=None):
        view = disagreement.View(images, labels, predict(images))
        facts = {"perturbation": perturbation, "step_size": step_size}
        values = disagreement.diversity(view.probs, labels)
        rows.append({"inputs": inputs, **facts, **values})
        return view

    views = {
        "train": look("train", np.float32(train.images) / 255, train.labels),
        "test": look("test", np.float32(test.images) / 255, test.labels),
    }
    students = {n: s for n, s in students.items() if s["perturbation"] != "none"}
    leaders = _first_alike(students, but=["step_size"], apart=looked_at)
    perturbers = {}
    for name in dict.fromkeys(leaders.values()):
        own: dict[str, Any] = {}
        if name in looked_at:
            student, student_variables = restore.load_student(experiment, name)
            own.update(matched=student.matched, student_variables=student_variables)
        perturbers[name] = disagreement.create_perturber(
            functools.partial(_create_perturbation, students[name]),
            functools.partial(
                restore.make_teachers, experiment, experiment.build_model()
            ),
            variables,
            evaluation.batch_size,
            **own,
        )
    key = rng.stream(experiment.key, "analysis")

    def look_at_perturbed(inputs, name, step_size):
        moved = perturbers[leaders[name]](key, train.images, step_size)
        perturbation = students[name]["perturbation"]
        return look(inputs, moved, train.labels, perturbation, step_size)

    steps = {
        name: settings.perturbation_settings(student).get("step_size")
        for name, student in students.items()
    }
    for name, first in _first_alike(students, apart=looked_at).items():
        if name == first:
            views[name] = look_at_perturbed(name, name, steps[name])
        views[name] = views[first]
    for name in perturbers:
        if steps[name] is not None:
            for step_size in evaluation.step_sizes:
                look_at_perturbed(f"{name}@{step_size:.6g}", name, step_size)
    return rows, views


def _look_at_student(
    experiment: Experiment,
    name: str,
    student: Mapping[str, Any],
    views: Mapping[str, disagreement.View],
) -> Rows:
    """The rows of `students` for one that is complete."""
    probs_fn, variables = restore.load_predictor(experiment, name)
    predict = functools.partial(restore.create_predict(experiment, probs_fn), variables)
    seen = {"train": "train", "test": "test", "perturbed": name}
    return [
        {
            "model": name,
            "inputs": inputs,
            "temperature": student["temperature"],
            **disagreement.compare(
                views[view], predict(views[view].images), student["temperature"]
            ),
        }
        for inputs, view in seen.items()
        if view in views
    ]


def _create_perturbation(student: Mapping[str, Any], step_size):
    return perturbations.create_perturbation({**student, "step_size": step_size})


def _first_alike(
    students: Students, but: Sequence[str] = (), apart: Collection[str] = ()
) -> dict[str, str]:
    """By name, the first student that perturbs alike, but for some settings.

    No student in `apart` perturbs like another.
    """
    firsts: dict[tuple, str] = {}
    result = {}
    for name, student in students.items():
        own = settings.perturbation_settings(student).items()
        alike = tuple(item for item in own if item[0] not in but)
        if name in apart:
            alike = (*alike, name)
        result[name] = firsts.setdefault(alike, name)
    return result
