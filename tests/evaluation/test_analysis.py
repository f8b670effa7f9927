"""Tests of the analysis of a run whose perturbation uses the student."""

import functools
import html
import json

import jax
import ml_collections
import numpy as np
import pytest
from untrained_runs import finish_student, finish_teachers

from configs import default
from edp import data, perturbations
from edp.evaluation import analysis, disagreement
from edp.evaluation.predictor import Predictors
from edp.experiment import restore
from edp.experiment.create import create_experiment
from edp.report.page import diversity
from edp.runtime import rng

# Two with members, and one more that is not trained; one whose members are averaged
# when finished; and two without members, which have the same perturbation.
KINDS = {
    "be_a": "batch_ensemble",
    "be_b": "batch_ensemble",
    "be_late": "batch_ensemble",
    "latent": "latent_batch_ensemble",
    "single_a": "single",
    "single_b": "single",
}
NOTES = [
    "Inputs perturbed as for be_late are left out: tdiv_sdiv looks at the student's "
    "members, and the student is not trained yet.",
    "Inputs perturbed as for latent are left out: tdiv_sdiv looks at the student's "
    "members, and the finished student no longer has them.",
]
SIZE = 12


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Analyses a run of networks with random weights."""
    config = default.get_config()
    config.data.update(train_size=80, validation_size=40, test_size=60, downsample=2)
    config.model.update(name="convnet", width=4)
    config.teachers.num_members = 2
    for section in (config.teachers, config.distill):
        section.batch_size = 20
    config.evaluation.update(batch_size=SIZE, diversity_size=SIZE, gallery_size=3)
    config.evaluation.update(step_sizes=(0.01,), ood_sets=(), corruptions=())
    config.students = ml_collections.ConfigDict()
    for name, kind in KINDS.items():
        config.students[name] = default.student(
            config, student=kind, perturbation="tdiv_sdiv", step_size=0.05
        )
    experiment = create_experiment(config, tmp_path_factory.mktemp("run"))
    finish_teachers(experiment.run, 0)
    for seed, name in enumerate(KINDS):
        if name != "be_late":
            finish_student(experiment.run, name, seed)
    analysis.write_analysis(experiment, Predictors(experiment))
    return experiment


@pytest.fixture(scope="module")
def written(experiment):
    return json.loads((experiment.run.workdir / "analysis.json").read_text())


def test_views_are_of_one_student_where_it_is_looked_at(experiment, written):
    own = ["be_a", "be_b", "single_a"]
    assert [row["inputs"] for row in written["diversity"]] == [
        "train",
        "test",
        *own,
        *(f"{name}@0.01" for name in own),
    ]
    with np.load(experiment.run.workdir / "gallery.npz") as file:
        assert file["names"].tolist() == ["clean", *own]
        _, a, b, teachers_alone = file["images"]
    for one, other in ((a, b), (a, teachers_alone), (b, teachers_alone)):
        assert np.abs(one - other).max() > 1e-3
    perturbed = [r["model"] for r in written["students"] if r["inputs"] == "perturbed"]
    assert perturbed == [name for name in KINDS if name not in ("be_late", "latent")]


@pytest.mark.parametrize("name", ["be_b", "single_b"])
def test_rows_are_of_the_inputs_that_are_taught(name, experiment, written):
    run = experiment.run
    teachers = restore.make_teachers(run, None, *restore.load_teachers(run, None))
    student, own = restore.load_student(run, None, name)
    section = run.students[name]
    perturb = perturbations.create_perturbation(section)
    images, labels = data.fixed_part(experiment.data.dataset.train, SIZE)
    key = jax.random.fold_in(rng.stream(run.key, "analysis"), 0)
    x = images / np.float32(255)
    matched = student.matched and functools.partial(student.matched, own)

    @jax.jit
    def look(x):
        moved = perturb(key, x, teachers, matched)
        logits = teachers.all_logits(moved)
        return moved, jax.nn.softmax(logits), student.predict(own, moved)

    moved, probs, student_probs = map(np.asarray, look(x))
    view = disagreement.View(moved, np.asarray(labels), probs)
    expected = disagreement.compare(view, student_probs, 1.0)
    (row,) = (
        row
        for row in written["students"]
        if (row["model"], row["inputs"]) == (name, "perturbed")
    )
    assert section["temperature"] == 1.0
    for key in ("match_kl", "teacher_pairwise_kl", "teacher_variance"):
        assert row[key] == pytest.approx(expected[key], rel=1e-4)


def test_what_is_left_out_is_said(experiment, written):
    assert written["notes"] == NOTES
    # A file of an older version names neither.
    made_from = written["made_from"]
    assert made_from["looked_at"] == ["be_a", "be_b"]
    assert made_from["left_out"].keys() == {"be_late", "latent"}
    section = diversity.diversity_section(experiment.run.workdir / "analysis.json", [])
    text = html.unescape(section.html)
    assert all(f'<p class="note">{note}</p>' in text for note in NOTES)
