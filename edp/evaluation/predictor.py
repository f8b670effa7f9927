"""Predictors: the trained networks of a run, each loaded and compiled once."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edp import data, students
from edp.experiment import restore, settings
from edp.experiment.create import Experiment
from edp.runtime import sharding, xla
from edp.runtime.batched import Images

TEACHERS = "teachers"

# Five severities of each of thirteen corruptions.
_MOST_CORRUPTED_SETS = 65

# (variables, images [N, H, W, C]) -> float32 [S, N, K].
_Program = Callable[[Any, Images], np.ndarray]


class Predictor(NamedTuple):
    """One trained student, or the teachers as one network of M members.

    Attributes:
      name: 'teachers', or the student's name.
      groups: by model, groups of its members; the score of a model is the mean over
        its groups. The teachers are the models DE-1 and DE-M.
      variables: of the teachers on the devices, of a student in host memory.
      student: the student's functions; None for the teachers.
      predict: images [N, H, W, C], uint8 or float32 in [0, 1] -> member
        probabilities float32 [S, N, K].
      uncertainty: images -> the student's own scores {name: float32 [N]}, higher =
        less certain; None for the teachers.
      logits: images -> the teachers' logits float32 [M, N, K]; None for a student.
    """

    name: str
    groups: Mapping[str, Sequence[slice]]
    variables: Any
    student: students.Student | None
    predict: Callable[[Images], np.ndarray]
    uncertainty: Callable[[Images], dict[str, np.ndarray]] | None
    logits: Callable[[Images], np.ndarray] | None


class Predictors(Mapping[str, Predictor]):
    """The teachers and the completed students of a run, by name.

    A predictor is read from disk, and its checksums compared, when it is first asked
    for. Students of one kind and the same settings of that kind share their programs.
    The devices hold the teachers' variables, once they are asked for, and those of
    one student at a time, while it computes; the host holds those of every student
    asked for.

    Attributes:
      records: by name, the record of the completed stage; the teachers come first.
    """

    def __init__(self, experiment: Experiment):
        """Reads which stages are complete, and no variables.

        Raises:
          InputError: if the teachers are not trained yet.
        """
        run = experiment.run
        self._experiment = experiment
        self.records = {TEACHERS: restore.teachers_record(run)}
        for name in run.students:
            if record := restore.student_stage(run, name).record:
                self.records[name] = record
        self._loaded: dict[str, Predictor] = {}
        self._programs: dict[str, tuple[_Program, _Program, list[str]]] = {}

    def __contains__(self, name: object) -> bool:
        """Returns whether the stage is complete, without reading its variables."""
        return name in self.records

    @functools.cached_property
    def data_digests(self) -> dict[str, str]:
        """Digests of the splits that are predicted, to key results by."""
        dataset = self._experiment.data.dataset
        parts = {"validation": dataset.validation, "test": dataset.test}
        if dataset.calibration is not None:
            parts["calibration"] = dataset.calibration
        return {name: data.split_digest(split) for name, split in parts.items()}

    def runs_briefly(self, num_images: int) -> bool:
        """Returns `xla.runs_briefly` of a network of this run and so many images."""
        num_params = max(record["num_params"] for record in self.records.values())
        shape = self._experiment.run.image_shape
        return xla.runs_briefly(num_params, shape, num_images)

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, name: str) -> Predictor:
        if name not in self.records:
            raise KeyError(name)
        if name not in self._loaded:
            load = self._load_teachers if name == TEACHERS else self._load_student
            self._loaded[name] = load(name)
        return self._loaded[name]

    def _compile(self, probs_fn: Callable[[Any, jax.Array], jax.Array]) -> _Program:
        evaluation = self._experiment.run.config.evaluation
        num_sets = 2 + len(evaluation.ood_sets)
        if evaluation.corruptions:
            num_sets += _MOST_CORRUPTED_SETS
        num_images = num_sets * len(self._experiment.data.dataset.test.labels)
        return restore.create_predict(
            probs_fn,
            evaluation.batch_size,
            runs_briefly=self.runs_briefly(num_images),
        )

    def _load_teachers(self, name: str) -> Predictor:
        run, mesh = self._experiment.run, self._experiment.mesh
        probs_fn, variables = restore.load_predictor(run, mesh, name)
        program = self._compile(probs_fn)
        logits = self._compile(restore.teacher_logits(run, mesh, run.build_teacher()))
        members = [slice(m, m + 1) for m in range(run.num_members)]
        return Predictor(
            name,
            {"DE-1": members, f"DE-{run.num_members}": [slice(None)]},
            variables,
            student=None,
            predict=lambda images: program(variables, images),
            uncertainty=None,
            logits=lambda images: logits(variables, images),
        )

    def _load_student(self, name: str) -> Predictor:
        run, mesh = self._experiment.run, self._experiment.mesh
        student, variables = restore.load_student(run, None, name)
        variables = jax.device_get(variables)
        predict, uncertainty, kinds = self._student_programs(name, student, variables)

        def scores(images):
            values = uncertainty(sharding.put(variables, mesh), images)
            return dict(zip(kinds, values[..., 0], strict=True))

        return Predictor(
            name,
            {name: [slice(None)]},
            variables,
            student,
            predict=lambda images: predict(sharding.put(variables, mesh), images),
            uncertainty=scores,
            logits=None,
        )

    def _student_programs(
        self, name: str, student: students.Student, variables: Any
    ) -> tuple[_Program, _Program, list[str]]:
        """Returns `predict`, `uncertainty` [S, N, 1] and the names of its S scores."""
        section = self._experiment.run.students[name]
        kind = section["student"]
        read = settings.keywords([students.STUDENTS[kind]])
        own = {key: section[key] for key in sorted(read) if key in section}
        alike = json.dumps([kind, own])
        if alike not in self._programs:
            example = self._experiment.run.example
            kinds = list(jax.eval_shape(student.uncertainty, variables, example))

            def stacked(variables, x):  # in the form of probabilities [S, B, K]
                scores = student.uncertainty(variables, x)
                return jnp.stack([scores[kind] for kind in kinds])[..., None]

            predict = self._compile(student.predict)
            self._programs[alike] = predict, self._compile(stacked), kinds
        return self._programs[alike]
