"""Kinds of teachers: what their members are, and the whole run with each."""

import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from launching import ROOT, TINY

from edp import ensemble, models
from edp.errors import InputError
from edp.evaluation import results
from edp.experiment import import_teachers, restore, validate
from edp.experiment.create import create_experiment, record_run
from edp.runtime import checkpoint
from launch import distill, train_teachers

B, K, M = 6, 4, 3


def build_model(**config):
    config = ml_collections.ConfigDict(config)
    return models.create_model(config, num_classes=K, mean=(0.5,), std=(0.25,))


SMALLEST = [
    {"name": "convnet", "width": 4},
    {"name": "resnet", "depth": 8, "width": 4, "remat": True},
]


@pytest.mark.parametrize("config", SMALLEST, ids=lambda config: config["name"])
def test_a_mask_makes_a_network_a_function(config):
    plain, model = build_model(**config), build_model(**config, dropout_rate=0.5)
    x = jax.random.uniform(jax.random.key(0), (B, 8, 8, 1))
    variables = plain.init(jax.random.key(1), x, train=False)
    jax.tree.map(
        np.testing.assert_array_equal,
        variables,
        model.init(jax.random.key(1), x, train=False),
    )
    keys = jax.random.split(jax.random.key(2), M)

    @jax.jit
    def all_logits(variables, x):
        return ensemble.teachers_from_masks(model, variables, keys).all_logits(x)

    everyone = all_logits(variables, x)
    assert everyone.shape == (M, B, K)
    # Whatever else is in the batch, and in whichever place.
    again = all_logits(variables, x[::-1])[:, ::-1]
    np.testing.assert_allclose(everyone, again, atol=1e-5)
    teachers = ensemble.teachers_from_masks(model, variables, keys)
    for m in range(M):
        own = jax.jit(teachers.member_logits)(m, x)
        np.testing.assert_allclose(own, everyone[m], atol=1e-5)
        assert np.abs(everyone[m] - everyone[m - 1]).max() > 1e-3
    # Without a mask, the plain network.
    np.testing.assert_array_equal(
        model.apply(variables, x, train=False), plain.apply(variables, x, train=False)
    )


def test_half_of_the_features_are_dropped_of_each_input_in_training():
    model = models.Dropout(0.5, train=True)
    x = jnp.ones((50, 200))
    dropped = model.apply({}, x, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert abs(np.mean(dropped) - 1) < 0.05
    assert (dropped[0] != dropped[1]).any()
    fixed = models.Dropout(0.5, train=False)
    masked = fixed.apply({}, x, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(masked)) == {0.0, 2.0} and (masked == masked[0]).all()
    assert (fixed.apply({}, x) == x).all()
    # Without dropout, no stream of random numbers is asked for.
    assert (models.Dropout(0.0, train=True).apply({}, x) == x).all()


def tiny_config(**teachers):
    load = runpy.run_path(str(ROOT / TINY))["get_config"]
    config = load("single_conf_ods")
    config.teachers.update({"num_members": 2, "num_epochs": 2, **teachers})
    config.distill.num_epochs = 1
    return config


@pytest.mark.parametrize(
    "kind", ["snapshot", pytest.param("dropout", marks=pytest.mark.long)]
)
def test_a_run_with_teachers_of_another_kind(kind, tmp_path):
    config = tiny_config(kind=kind)
    if kind == "dropout":
        config.model.dropout_rate = 0.3
        config.teachers.select = "best"
    validate.check(config)
    run = create_experiment(config, tmp_path)
    train_teachers.train_teachers(run)
    distill.distill_student(run, "single_conf_ods")
    rows = {row["model"]: row for row in results.collect_rows(run)}
    assert rows.keys() == {"DE-1", "DE-2", "single_conf_ods"}
    # Both members come of one training; of dropout they are one network, too.
    for name in ("train_seconds", "train_flops"):
        assert rows["DE-1"][name] == rows["DE-2"][name] > 0
    kept = run.kind.num_kept(2)
    assert rows["DE-2"]["num_params"] == kept * rows["DE-1"]["num_params"]

    record = json.loads((tmp_path / "teachers" / "complete.json").read_text())
    model, variables = restore.load_teachers(run)
    kept = {jnp.shape(leaf)[0] for leaf in jax.tree.leaves(variables)}
    assert kept == {run.kind.num_kept(2)} == {{"snapshot": 2, "dropout": 1}[kind]}
    num_params = models.count_params(ensemble.select(variables, 0)["params"])
    assert record["num_params"] == num_params
    if kind == "snapshot":
        assert record["selected_epoch"] == [1, 2]

    # The members of the predictions are those that others are taught by, and differ.
    x = np.float32(run.dataset.test.images) / 255
    teachers = jax.jit(lambda v: restore.make_teachers(run, model, v).all_logits(x))
    probs = jax.nn.softmax(teachers(variables))
    with np.load(tmp_path / "predictions" / "teachers.npz") as file:
        np.testing.assert_allclose(file["test_probs"], probs, atol=1e-5)
    assert np.abs(probs[0] - probs[1]).max() > 1e-3


def test_masks_follow_from_the_seed_that_the_teachers_were_trained_from(tmp_path):
    config = tiny_config(kind="dropout")
    config.model.dropout_rate = 0.3
    run = create_experiment(config, tmp_path / "a")
    record_run(run)
    model = run.build_model()
    variables = ensemble.init(model, jax.random.split(run.key, 1), run.example)
    stage_settings = tmp_path / "a" / "teachers"
    checkpoint.save_variables(stage_settings / "variables", variables)
    dependencies = run.teacher_dependencies
    (stage_settings / "settings.json").write_text(json.dumps(dependencies))
    (stage_settings / "complete.json").write_text("{}")
    other = tiny_config()  # whose own teachers would be of another kind
    other.model.dropout_rate = 0.3
    other.seed, other.teachers_workdir = 7, str(tmp_path / "a")
    elsewhere = create_experiment(other, tmp_path / "b")
    x = np.float32(run.dataset.test.images[:5]) / 255
    both = [
        restore.make_teachers(e, model, variables).all_logits(x)
        for e in (run, elsewhere)
    ]
    np.testing.assert_array_equal(*both)


# --- Imported ---------------------------------------------------------------


def test_imported_members_are_teachers_like_any(tmp_path, capsys):
    config = tiny_config()
    run = create_experiment(config, tmp_path / "run")
    model = run.build_model()
    keys = jax.random.split(jax.random.key(9), 2)
    members = [model.init(key, run.example, train=False) for key in keys]
    paths = [str(tmp_path / f"member{m}") for m in range(2)]
    for path, variables in zip(paths, members, strict=True):
        checkpoint.save_variables(pathlib.Path(path), variables)

    def refused(paths, words):
        with pytest.raises(InputError, match=words):
            import_teachers.import_teachers(run, paths)
        assert not run.teachers_dir.exists()

    refused(paths[:1], "--members names 1 networks; accepted: 2")
    refused(
        [paths[0], str(tmp_path / "no")], "member 1 .* is no checkpoint of variables"
    )
    wrong = jax.tree.map(lambda leaf: leaf, members[1])
    wrong["params"]["head"]["bias"] = jnp.zeros(11)
    wrong["params"]["other"] = wrong["params"].pop("conv1")
    checkpoint.save_variables(tmp_path / "wrong", wrong)
    refused([paths[0], str(tmp_path / "wrong")], r"member 1 \(.*wrong\)")
    for words in (
        r"params\.conv1\.kernel is missing",
        r"params\.head\.bias has shape \(11,\) and should have \(10,\)",
        r"params\.other\.kernel is not a variable",
    ):
        refused([paths[0], str(tmp_path / "wrong")], words)

    capsys.readouterr()
    import_teachers.import_teachers(run, paths)
    printed = capsys.readouterr().out
    assert f"({paths[1]}): batch_stats, params of an Orbax checkpoint\n" in printed
    record = restore.teachers_record(run)
    assert record["imported_from"] == paths and record["train_seconds"] == 0
    assert record["num_params"] == models.count_params(members[0]["params"])
    train_teachers.train_teachers(run)  # has nothing left to do
    assert restore.teachers_record(run) == record
    _, variables = restore.load_teachers(run)
    for m, member in enumerate(members):
        own = ensemble.select(variables, m)
        jax.tree.map(np.testing.assert_array_equal, own, member)
    import_teachers.import_teachers(run, paths)  # nor has this
    with pytest.raises(InputError, match="has other teachers"):
        import_teachers.import_teachers(run, paths[::-1])
    assert restore.teachers_record(run) == record
