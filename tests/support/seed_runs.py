"""Writes synthetic runs of three students under several seeds, and changes them."""

import json

import numpy as np

from edp.evaluation import scoring
from edp.evaluation.predictions import Predictions, save_predictions

STUDENTS = {"single_none": "none", "be_none": "none", "single_ods": "ods"}
NUM_TEST = 50
CONFIG = {
    "seed": 0,
    "teachers_workdir": None,
    "checkpoint_minutes": 5.0,
    "data": {"source": "digits", "data_dir": None, "train_size": 80},
    "students": {name: {"perturbation": p} for name, p in STUDENTS.items()},
}


def make_predictions(seed, strength):
    """Draws predictions of one network; all seeds have the same test labels."""
    rng = np.random.default_rng([seed, int(10 * strength)])

    def split(size, labels):
        logits = strength * np.eye(4)[labels] + rng.normal(size=(1, size, 4))
        probs = np.exp(logits)
        return (probs / probs.sum(-1, keepdims=True)).astype(np.float32), labels

    validation = split(40, rng.integers(4, size=40))
    return Predictions(*validation, *split(NUM_TEST, np.arange(NUM_TEST) % 4))


def make_run(path, seed, strengths=(1.0, 2.0, 2.2), **changes):
    """Writes a workdir of three students, with round numbers for DE-1 and DE-2."""
    rows = [
        {"model": f"DE-{m}", "kind": "ensemble", "num_members": m, "seed": seed}
        | {"cnll": cnll, "prefix_cnll": cnll, "accuracy": 0.5 + 0.1 * m}
        for m, cnll in ((1, 1.0 + seed), (2, 0.5 + seed / 2))
    ]
    teachers = list(rows)
    for (name, perturbation), strength in zip(STUDENTS.items(), strengths, strict=True):
        predictions = make_predictions(seed, strength)
        save_predictions(path / "predictions" / f"{name}.npz", predictions)
        row = scoring.student_row(
            name,
            predictions,
            teachers,
            student=name.partition("_")[0],
            perturbation=perturbation,
            seed=seed,
            num_params=1,
            inference_cost=1.0,
            train_seconds=10.0 + seed,
        )
        rows.append(row)
        stage = path / "students" / name
        stage.mkdir(parents=True)
        lines = [{"epoch": 1, "accuracy": 0.1}, {"epoch": 2, "accuracy": 0.25 + seed}]
        (stage / "metrics.jsonl").write_text(
            "".join(f"{json.dumps(x)}\n" for x in lines)
        )
    own = {"perturbation": "ods", "step_size": 0.02}
    diversity = [
        {"inputs": inputs, **where, "pairwise_kl": kl * (1 + seed)}
        | {"disagreement_rate": kl / 4, "variance": 0.01, "error": kl / 10}
        for inputs, where, kl in (
            ("train", {"perturbation": None, "step_size": None}, 0.1),
            ("test", {"perturbation": None, "step_size": None}, 0.8),
            ("single_ods", own, 0.4),
            ("single_ods@0.04", own | {"step_size": 0.04}, 0.6),
        )
    ]
    beside = [
        {"model": "single_ods", "inputs": inputs, "temperature": 4.0}
        | {"match_kl": kl + seed, "tempered_match_kl": kl / 2, "error": 0.25}
        for inputs, kl in (("train", 0.1), ("test", 0.3), ("perturbed", 0.2))
    ]
    files = {
        "config": CONFIG | {"seed": seed} | changes,
        "results": rows,
        "analysis": {"diversity": diversity, "students": beside},
    }
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def rewrite(path, change):
    """Replaces the content of a JSON file, which `change` changes or returns anew."""
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def without(section, key):
    """Returns a change that removes a key of a section."""
    return lambda value: value[section].pop(key) and None


def set_in(section, **values):
    """Returns a change that sets values of a section."""
    return lambda config: config[section].update(values)


def find(rows, **wanted):
    """Returns the only row that has these values."""
    (row,) = (r for r in rows if all(r.get(k) == v for k, v in wanted.items()))
    return row
