"""Writes runs whose rows follow from their predictions."""

import json

import numpy as np

from edp.evaluation import predictions, scoring

NUM_IMAGES, NUM_CLASSES = 400, 3


def members(labels, skill, num_members, seed, common=0.0):
    """Returns probabilities [S, N, K] that favour the label by `skill`.

    Args:
      labels: [N].
      skill: added to the label's logit.
      num_members: S.
      seed: of the noise of each member.
      common: share of the noise that all members have in common.
    """
    rng, shared = np.random.default_rng(seed), np.random.default_rng(7)
    shape = (len(labels), NUM_CLASSES)
    noise = common * shared.normal(size=shape)
    own = np.sqrt(1 - common**2) * rng.normal(size=(num_members, *shape))
    exps = np.exp(skill * np.eye(NUM_CLASSES)[labels] + noise + own)
    return (exps / exps.sum(-1, keepdims=True)).astype(np.float32)


def write(workdir, students, *, num_members=3, teacher_skill=1.5, members_of=None):
    """Writes `results.json` and predictions; returns the rows.

    Args:
      workdir: created.
      students: name -> (perturbation, skill on the validation images, on the test
        images).
      num_members: of the ensemble.
      teacher_skill: of each member.
      members_of: None, or the members' probabilities of labels.
    """
    rng = np.random.default_rng(1)
    validation, test = (rng.integers(NUM_CLASSES, size=NUM_IMAGES) for _ in range(2))
    members_of = members_of or (
        lambda labels: members(labels, teacher_skill, num_members, 0)
    )

    def save(name, on_validation, on_test):
        found = predictions.Predictions(on_validation, validation, on_test, test)
        predictions.save_predictions(workdir / "predictions" / f"{name}.npz", found)
        return found

    teachers = save("teachers", members_of(validation), members_of(test))
    costs = [{"inference_cost": m + 1} for m in range(len(teachers.test_probs))]
    rows = scoring.ensemble_rows(teachers, seed=0, costs=costs)
    ensembles = list(rows)
    for name, (perturbation, skill, test_skill) in students.items():
        found = save(
            name,
            members(validation, skill, 1, 1, common=0.9),
            members(test, test_skill, 1, 1, common=0.9),
        )
        rows.append(
            scoring.student_row(
                name, found, ensembles, student="single", perturbation=perturbation,
                seed=0, num_params=1, inference_cost=1.0, train_seconds=1.0,
            )
        )  # fmt: skip
    (workdir / "results.json").write_text(json.dumps(rows))
    return rows
