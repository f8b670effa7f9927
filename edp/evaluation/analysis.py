"""Analysis: disagreement of the teachers, and how well students match them there."""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edp import data, ensemble, metrics, perturbations
from edp.evaluation import disagreement, distances, results
from edp.evaluation.predictions import Predictions
from edp.evaluation.predictor import TEACHERS, Predictor, Predictors
from edp.experiment import member_temperatures, restore, settings
from edp.experiment.create import Experiment
from edp.experiment.run import Run
from edp.runtime import multihost, rng, storage

# The settings of `evaluation` that the analysis depends on.
_EVALUATION_KEYS = ("batch_size", "diversity_size", "gallery_size", "step_sizes")

Rows = list[dict[str, Any]]
Students = Mapping[str, Mapping[str, Any]]  # name -> settings


def write_analysis(experiment: Experiment, predictors: Predictors) -> None:
    """Writes `analysis.json` and `gallery.npz`, unless they are up to date.

    `diversity`: of the teachers on training inputs, on test inputs, on training
    inputs perturbed as for each student (once for several with the same
    perturbation), and at each of `evaluation.step_sizes`, named
    '<student>@<step size>' (once for several that differ in the step size only), each
    with its `distance` (`distances.DistanceToData`).
    `students`: each completed student compared with its teachers on training, test
    and its own perturbed inputs. `members`: see `member_rows`. `notes`: sentences on
    what is left out.

    A perturbation that uses the student receives the completed one, where training
    passes the one in training; so no two students with members perturb alike.

    Args:
      experiment: the run.
      predictors: its completed networks.
    """
    run = experiment.run
    config, students = run.config, run.students
    complete = {name: r["id"] for name, r in predictors.records.items()}
    teachers = complete.pop(TEACHERS)
    own_members, left_out = _used_students(run, complete)
    train = data.fixed_part(
        experiment.data.dataset.train, config.evaluation.diversity_size
    )
    made_from = {
        "teachers": teachers,
        "students": complete,
        "perturbations": {
            name: settings.perturbation_settings(student)
            for name, student in students.items()
        },
        "data": {**predictors.data_digests, "train": data.split_digest(train)},
        "looked_at": own_members,
        "left_out": left_out,
        "seed": config.seed,
        "dtype": config.dtype,
        **{key: config.evaluation[key] for key in _EVALUATION_KEYS},
    }
    made_from = json.loads(json.dumps(made_from))  # to equal what is read back
    path = run.workdir / "analysis.json"
    gallery_path = run.workdir / "gallery.npz"
    exist = path.exists() and gallery_path.exists()
    made = exist and storage.read_mapping(path).get("made_from") == made_from
    if multihost.from_first(made):
        return

    perturbed = {n: s for n, s in students.items() if n not in left_out}
    rows, views = _analyse_teachers(experiment, predictors, perturbed, own_members)
    of_students = []
    for name in complete:
        of_students += student_rows(
            predictors[name], students[name]["temperature"], views
        )
    shown = _first_alike(perturbed, apart=own_members)
    shown = {name: views[name] for name in shown.values() if name in views}
    gallery = disagreement.gallery(
        {"clean": views["train"], **shown}, config.evaluation.gallery_size
    )
    names = np.array(experiment.data.dataset.class_names)
    arrays = {"class_names": names, **gallery}
    storage.write_npz(gallery_path, arrays, compress=True)
    result = {
        "made_from": made_from,
        "diversity": rows,
        "students": of_students,
        "members": member_rows(
            views, results.load_predictions(experiment, predictors, TEACHERS)
        ),
        "notes": [
            f"Inputs perturbed as for {name} are left out: "
            f"{students[name]['perturbation']} looks at the student's members, "
            f"and {why}."
            for name, why in left_out.items()
        ],
    }
    storage.write_json(path, result)


def member_rows(
    views: Mapping[str, disagreement.View], predictions: Predictions
) -> Rows:
    """Returns for each view which teachers err together, and the choice of members.

    Args:
      views: 'train', 'test' and by student the inputs perturbed as for it.
      predictions: the teachers'.

    Returns:
      Rows of `inputs`, `mutual_errors` [M][M], `by_mutual_errors`, the members in the
      order of `metrics.choose_by_mutual_errors`, and `test_nll_by_mutual_errors` [M],
      the test NLL of the first m. (`measures.json` has those of other choices.)
    """
    rows = []
    for name, view in views.items():
        errors = metrics.mutual_errors(view.probs, view.labels)
        chosen = metrics.choose_by_mutual_errors(errors)
        own = {"mutual_errors": errors.tolist(), "by_mutual_errors": chosen}
        nlls = {
            "test_nll_by_mutual_errors": metrics.nlls_in_order(
                predictions.test_probs, predictions.test_labels, chosen
            )
        }
        rows.append({"inputs": name, **own, **nlls})
    return rows


def _used_students(
    run: Run, complete: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """Finds the students whose members their own perturbation uses.

    Returns:
      The names of those that are complete and have these members; and by the names
      of the others the reason why theirs cannot be used.
    """
    own_members, left_out = [], {}
    for name, section in run.students.items():
        methods = perturbations.methods(section["perturbation"])
        if not any(method.uses_student for method in methods):
            continue
        student = restore.create_student(run, name)
        if student.matched is None:
            continue  # uses the teachers alone, in training too
        if student.num_members == 1:
            left_out[name] = "the finished student no longer has them"
        elif name not in complete:
            left_out[name] = "the student is not trained yet"
        else:
            own_members.append(name)
    return own_members, left_out


def _analyse_teachers(
    experiment: Experiment,
    predictors: Predictors,
    students: Students,
    own_members: Collection[str],
) -> tuple[Rows, dict[str, disagreement.View]]:
    """Returns the rows of `diversity`; and the clean and the students' views, by name.

    Args:
      experiment: the run.
      predictors: its completed networks.
      students: those whose perturbed inputs are shown to the teachers.
      own_members: names of the students that their perturbation uses.
    """
    evaluation = experiment.run.config.evaluation
    teachers = predictors[TEACHERS]
    train, test = (
        data.fixed_part(split, evaluation.diversity_size).in_memory()
        for split in (experiment.data.dataset.train, experiment.data.dataset.test)
    )
    rows = []
    clean = np.float32(train.images) / 255
    to_data = distances.DistanceToData(clean)

    def view(inputs, images, labels, perturbation=None, step_size=None):
        result = disagreement.View(images, labels, teachers.predict(images))
        facts = {"perturbation": perturbation, "step_size": step_size}
        values = disagreement.diversity(result.probs, labels)
        distance = to_data.mean(images)
        known = {} if distance is None else {"distance": distance}
        rows.append({"inputs": inputs, **facts, **values, **known})
        return result

    views = {
        "train": view("train", clean, train.labels),
        "test": view("test", np.float32(test.images) / 255, test.labels),
    }
    students = {n: s for n, s in students.items() if s["perturbation"] != "none"}
    leaders = _first_alike(students, but=["step_size"], apart=own_members)
    perturbers = {
        name: _create_perturber(
            experiment,
            predictors,
            students[name],
            predictors[name] if name in own_members else None,
            runs_briefly=predictors.runs_briefly(
                len(train.images) * (1 + len(evaluation.step_sizes))
            ),
        )
        for name in dict.fromkeys(leaders.values())
    }
    key = rng.stream(experiment.run.key, "analysis")

    def view_perturbed(inputs, name, step_size):
        perturbed = perturbers[leaders[name]](key, train.images, step_size)
        perturbation = students[name]["perturbation"]
        return view(inputs, perturbed, train.labels, perturbation, step_size)

    steps = {
        name: settings.perturbation_settings(student).get("step_size")
        for name, student in students.items()
    }
    for name, first in _first_alike(students, apart=own_members).items():
        if name == first:
            views[name] = view_perturbed(name, name, steps[name])
        views[name] = views[first]
    for name in perturbers:
        if steps[name] is not None:
            for step_size in evaluation.step_sizes:
                view_perturbed(f"{name}@{step_size:.6g}", name, step_size)
    return rows, views


def _create_perturber(
    experiment: Experiment,
    predictors: Predictors,
    section: Mapping[str, Any],
    predictor: Predictor | None,
    *,
    runs_briefly: bool,
) -> disagreement.Perturber:
    """Returns what perturbs as for a student; `predictor` is the student, if used."""
    run, mesh = experiment.run, experiment.mesh
    model, fit = run.build_teacher(), member_temperatures.fit_of(section)
    temperatures = None
    if fit is not None:
        known = results.load_predictions(experiment, predictors, TEACHERS)
        temperatures = fit(known.validation_probs, known.validation_labels)

    def make_teachers(variables):
        teachers = restore.make_teachers(run, mesh, model, variables)
        if temperatures is None:
            return teachers
        return ensemble.temper(teachers, np.float32(temperatures))

    own: dict[str, Any] = {}
    if predictor is not None:
        assert predictor.student is not None
        own["matched"] = predictor.student.matched
        own["student_variables"] = predictor.variables
    return disagreement.create_perturber(
        functools.partial(_create_perturbation, section),
        make_teachers,
        predictors[TEACHERS].variables,
        run.config.evaluation.batch_size,
        mesh=mesh,
        runs_briefly=runs_briefly,
        **own,
    )


def student_rows(
    predictor: Predictor,
    temperature: float,
    views: Mapping[str, disagreement.View],
) -> Rows:
    """Returns the rows of `students` for one completed student.

    Args:
      predictor: the student.
      temperature: τ with which it was distilled.
      views: 'train', 'test' and by student the inputs perturbed as for it, with the
        teachers' predictions; `distill.member_temperatures` do not temper these.
    """
    seen = {"train": "train", "test": "test", "perturbed": predictor.name}
    return [
        {
            "model": predictor.name,
            "inputs": inputs,
            "temperature": temperature,
            **disagreement.compare(
                views[view], predictor.predict(views[view].images), temperature
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
    """Returns by name the first student with the same perturbation settings.

    Args:
      students: by name, their settings.
      but: settings that may differ.
      apart: students that perturb like no other.
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
