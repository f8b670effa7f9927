"""Tests of the kinds of teachers: their members, and a whole run with each."""

import functools
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from launching import ROOT, TINY

from edp import data, ensemble, models
from edp.errors import InputError
from edp.evaluation import results
from edp.evaluation.predictor import Predictors
from edp.experiment import (
    batch_statistics,
    import_teachers,
    restore,
    teacher_kinds,
    validate,
)
from edp.experiment.create import create_experiment, record_run
from edp.runtime import checkpoint
from edp.runtime.rng import stream
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
    # Independent of the rest of the batch and of the position in it.
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
    # Without dropout, no PRNG stream is requested.
    assert (models.Dropout(0.0, train=True).apply({}, x) == x).all()


def test_networks_and_masks():
    model = build_model(name="convnet", width=4, dropout_rate=0.5)
    plain = build_model(name="convnet", width=4)
    x = jax.random.uniform(jax.random.key(0), (B, 8, 8, 1))
    keys = jax.random.split(jax.random.key(2), 4)
    networks = ensemble.init(model, jax.random.split(jax.random.key(1), 2), x[:1])
    kind = teacher_kinds.KINDS["dropout"]

    @functools.partial(jax.jit, static_argnums=0)
    def logits(model, variables):
        teachers = kind.teachers(
            model, variables, 4, jax.random.key(2), strategy=None, mesh=None
        )
        return teachers.all_logits(x), teachers.member_logits(3, x)

    everyone, last = logits(model, networks)
    np.testing.assert_allclose(everyone[3], last, atol=1e-6)
    for m in range(4):
        own = ensemble.select(networks, m % 2)
        expected = model.apply(own, x, train=False, rngs={"dropout": keys[m]})
        np.testing.assert_allclose(everyone[m], expected, atol=1e-5)
    # Without masks, a network has the same logits under each.
    everyone, _ = logits(plain, networks)
    deep = ensemble.logits(plain, networks, x)
    np.testing.assert_allclose(everyone, jnp.concatenate([deep, deep]), atol=1e-6)
    # Variables that a traced function holds as constants, as an exported program does.
    held = jax.device_get(networks)
    shape = jax.eval_shape(lambda: logits.__wrapped__(model, held)[0]).shape
    assert shape == everyone.shape
    one = ensemble.select(networks, jnp.array([0]))
    alone = ensemble.teachers_from_masks(model, ensemble.select(one, 0), keys)
    np.testing.assert_allclose(logits(model, one)[0], alone.all_logits(x), atol=1e-6)


def test_a_prior_adds_a_frozen_network():
    plain = build_model(name="convnet", width=4)
    kind = teacher_kinds.KINDS["prior"]

    def network(scale):
        return kind.network(lambda: plain, {"prior_scale": scale})

    x = jax.random.uniform(jax.random.key(0), (B, 8, 8, 1))
    key = jax.random.key(3)
    init = functools.partial(plain.init, train=False)
    without, variables = (
        jax.jit(functools.partial(network(scale).init, train=False))(key, x)
        for scale in (0.0, 1.5)
    )
    # At β = 0 it is the plain network bit for bit; its own start never depends on β.
    jax.tree.map(np.testing.assert_array_equal, without, jax.jit(init)(key, x))
    np.testing.assert_array_equal(
        network(0.0).apply(without, x, train=False),
        plain.apply(without, x, train=False),
    )
    assert variables.keys() == {"params", "batch_stats", "prior"}
    own = {name: variables[name] for name in without}
    jax.tree.map(np.testing.assert_array_equal, own, without)

    kept = variables["prior"]["random_network"]
    assert not np.allclose(
        kept["variables"]["params"]["head"]["kernel"], own["params"]["head"]["kernel"]
    )
    prior = plain.apply(kept["variables"], x, train=False) / kept["deviation"]
    expected = plain.apply(own, x, train=False) + 1.5 * prior
    found = network(1.5).apply(variables, x, train=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0.2 < prior.std() < 5

    tx = optax.sgd(0.1)
    state = ensemble.create_state(network(1.5), tx, key[None], x[:1])
    batch = {"image": x[None], "label": jnp.zeros((1, B), int)}
    new, _ = jax.jit(functools.partial(ensemble.train_step, model=network(1.5), tx=tx))(
        state, batch, key
    )
    before, after = state.model_state["prior"], new.model_state["prior"]
    jax.tree.map(np.testing.assert_array_equal, before, after)
    changed = jax.tree.map(lambda a, b: (a != b).any(), state.params, new.params)
    assert all(jax.tree.leaves(changed))

    # At β = 0, the program of a training step too is that of `deep`.
    start = jax.eval_shape(lambda: ensemble.create_state(plain, tx, key[None], x[:1]))

    def program(model):
        step = functools.partial(ensemble.train_step, model=model, tx=tx)
        return str(jax.make_jaxpr(step)(start, batch, key))

    assert program(network(0.0)) == program(plain)


def test_packed_members_are_narrow():
    config = ml_collections.ConfigDict({"name": "resnet", "depth": 8, "width": 16})
    build = functools.partial(
        models.create_model, config, num_classes=K, mean=(0.5,), std=(0.25,)
    )
    kind = teacher_kinds.KINDS["packed"]
    assert kind.network(build, {"num_members": 8}).channels(16) == 4
    section = {"num_members": 4, "packed_width": 3.0}
    assert kind.network(build, section).channels(16) == 12
    # At α = M it is the network of `deep`.
    assert kind.network(build, {**section, "packed_width": 4.0}) == build()


@pytest.mark.long
def test_kinds_that_are_a_deep_ensemble_bit_for_bit(tmp_path):
    trained, logits = {}, {}
    for name, settings in (
        ("deep", {}),
        ("prior", {"kind": "prior", "prior_scale": 0.0}),
        ("dropout", {"kind": "dropout", "networks": 2}),
        ("packed", {"kind": "packed", "packed_width": 2.0}),
    ):
        experiment = create_experiment(tiny_config(**settings), tmp_path / name)
        train_teachers.train_teachers(experiment)
        model, trained[name] = restore.load_teachers(experiment.run, None)
        images = np.float32(experiment.data.dataset.test.images) / 255
        compute = jax.jit(restore.teacher_logits(experiment.run, None, model))
        logits[name] = compute(trained[name], images)
        np.testing.assert_allclose(logits[name], logits["deep"], atol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, trained[name], trained["deep"])


def test_the_epochs_of_checkpoints():
    section = {"num_members": 3, "num_epochs": 10}
    kind = teacher_kinds.KINDS["checkpoint"]
    for between, epochs in ((1, [8, 9, 10]), (4, [2, 6, 10])):
        select = kind.select({**section, "epochs_between": between}, None)
        best = select.begin({"w": jnp.zeros((1, 2))})
        for epoch in range(1, 11):
            best, _ = select.update(best, {"w": jnp.full((1, 2), epoch)}, epoch)
        assert best.variables["w"][:, 0].tolist() == epochs
        assert select.summary(best) == {"selected_epoch": epochs}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "checkpoint", "epochs_between": 3},
            "num_epochs=2 must be at least 4",
        ),
        ({"kind": "checkpoint", "select": "best"}, "select='best' must be last for"),
        ({"kind": "checkpoint", "bootstrap": True}, "bootstrap=True must be False"),
        ({"kind": "dropout", "networks": 3}, "networks=3 must divide .*num_members=2"),
        ({"kind": "dropout", "networks": 1}, "dropout_rate=None must be above 0"),
        ({"kind": "prior", "prior_scale": -1.0}, "prior_scale=-1.0 must be"),
        ({"kind": "swag"}, "swag_start=None of .*num_epochs=2 .* from epoch 3 on"),
        ({"kind": "swag", "num_epochs": 3, "swag_start": 3}, "accepted: 2 to 2"),
        ({"kind": "swag", "num_epochs": 8, "swag_rank": 1}, "swag_rank=1 must be at"),
        ({"kind": "swag", "num_epochs": 8, "ema_decay": 0.9}, "ema_decay=0.9 must be"),
        ({"kind": "swag", "num_epochs": 8, "networks": 3}, "networks=3 must divide"),
        (
            {"kind": "swag", "num_epochs": 8, "learning_rate": 1e-3},
            r"swag_learning_rate=0\.05 must be at most teachers.learning_rate=0\.001",
        ),
        ({"kind": "packed", "packed_width": 0.0}, "packed_width=0.0 must be"),
        ({"mixup_alpha": -0.1}, "teachers.mixup_alpha=-0.1 must be"),
    ],
)
def test_settings_that_a_kind_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        validate.check(tiny_config(**settings))


def test_as_many_networks_as_members_need_no_masks():
    validate.check(tiny_config(kind="dropout", networks=2, bootstrap=True))


LONG = ("checkpoint", "dropout", "multiswag", "networks", "packed", "prior", "swag")


def tiny_config(**teachers):
    load = runpy.run_path(str(ROOT / TINY))["get_config"]
    config = load("single_conf_ods")
    config.teachers.update({"num_members": 2, "num_epochs": 2, **teachers})
    config.distill.num_epochs = 1
    return config


@pytest.mark.parametrize(
    "kind",
    ["snapshot", *(pytest.param(k, marks=pytest.mark.long) for k in LONG)],
)
def test_a_run_with_teachers_of_another_kind(kind, tmp_path):
    config = tiny_config(kind=kind)
    if kind == "networks":
        config.teachers.update({"kind": "dropout", "networks": 2})
        config.model.dropout_rate = 0.3
    if kind.endswith("swag"):
        config.teachers.update({"kind": "swag", "num_epochs": 3, "swag_start": 2})
        config.teachers.networks = 2 if kind == "multiswag" else 1
    if kind == "dropout":
        config.model.dropout_rate = 0.3
        config.teachers.select = "best"
    if kind == "packed":
        config.teachers.packed_width = 1.0
    if kind == "snapshot":  # with the settings that no other run of the tests has
        for section in (config.teachers, config.distill):
            section.optimizer, section.learning_rate = "adamw", 1e-3
            section.ema_decay, section.label_smoothing = 0.9, 0.1
        config.teachers.mixup_alpha = 0.5
    validate.check(config)
    experiment = create_experiment(config, tmp_path)
    run = experiment.run
    train_teachers.train_teachers(experiment)
    distill.distill_student(experiment, "single_conf_ods")
    rows = {
        row["model"]: row
        for row in results.collect_rows(experiment, Predictors(experiment))
    }
    assert rows.keys() == {"DE-1", "DE-2", "single_conf_ods"}
    # Some members come from one training; with dropout they may be one network too.
    trainings = 2 if kind in ("multiswag", "networks", "packed", "prior") else 1
    for name in ("train_seconds", "train_flops"):
        assert trainings * rows["DE-1"][name] == rows["DE-2"][name] > 0
    if kind == "packed":
        plain = rows["single_conf_ods"]["inference_flops"]
        share = rows["DE-1"]["inference_flops"] / plain
        assert 2 * rows["DE-1"]["inference_cost"] == rows["DE-2"]["inference_cost"]
        assert rows["DE-1"]["inference_cost"] == share < 0.5
    else:
        assert rows["DE-1"]["inference_cost"] == (2 if kind == "prior" else 1)
    kept = run.num_kept
    assert rows["DE-2"]["num_params"] == kept * rows["DE-1"]["num_params"]

    record = json.loads((tmp_path / "teachers" / "complete.json").read_text())
    model, variables = restore.load_teachers(run, None)
    kept = {jnp.shape(leaf)[0] for leaf in jax.tree.leaves(variables)}
    assert kept == {run.num_kept} == {1 if kind == "dropout" else 2}
    one = ensemble.select(variables, 0)
    counted = [one["params"], one.get("prior", {})]
    assert record["num_params"] == models.count_params(counted)
    if kind in ("snapshot", "checkpoint"):
        assert record["selected_epoch"] == [1, 2]

    if kind.endswith("swag"):
        assert record["collected_epochs"] == 2

    # The predictions are those of the members that teach students; they differ.
    x = np.float32(experiment.data.dataset.test.images) / 255
    teachers = jax.jit(
        lambda v: restore.make_teachers(run, None, model, v).all_logits(x)
    )
    probs = jax.nn.softmax(teachers(variables))
    with np.load(tmp_path / "predictions" / "teachers.npz") as file:
        np.testing.assert_allclose(file["test_probs"], probs, atol=1e-5)
    # Member 0, as students contain it.
    source = restore.create_source(run)
    _, logits = jax.jit(source.features)(ensemble.select(variables, 0), x)
    np.testing.assert_allclose(jax.nn.softmax(logits), probs[0], atol=1e-5)
    assert np.abs(probs[0] - probs[1]).max() > 1e-3


def test_batch_statistics_are_recomputed_from_training_images(tmp_path):
    config = tiny_config()
    config.data.crop_padding = 0
    experiment = create_experiment(config, tmp_path)
    run = experiment.run
    model = run.build_model()
    variables = ensemble.init(model, jax.random.split(run.key, 2), run.example)
    new = batch_statistics.recompute(experiment, model, variables, run.key)
    jax.tree.map(np.testing.assert_array_equal, new["params"], variables["params"])
    order = data.EpochOrder(
        np.asarray(jax.random.key_data(stream(run.key, "order"))),
        run.num_train,
        20,
        None,
    )
    batches = np.asarray(order(0))
    assert batches.shape == (run.num_train // 20, 20) and len(batches) > 1
    images = np.float32(experiment.data.dataset.train.images) / 255
    for m in range(2):
        own = ensemble.select(variables, m)
        _, seen = model.apply(
            own,
            images,
            train=False,
            capture_intermediates=lambda one, _: one.name == "conv1",
        )
        maps = np.float64(seen["intermediates"]["conv1"]["__call__"][0])[batches]
        found = ensemble.select(new["batch_stats"]["norm1"], m)
        np.testing.assert_allclose(found["mean"], maps.mean((0, 1, 2, 3)), atol=1e-5)
        expected = maps.var((1, 2, 3)).mean(0)
        np.testing.assert_allclose(found["var"], expected, rtol=1e-4)


def test_masks_follow_from_the_seed_that_the_teachers_were_trained_from(tmp_path):
    config = tiny_config(kind="dropout")
    config.model.dropout_rate = 0.3
    experiment = create_experiment(config, tmp_path / "a")
    run = experiment.run
    record_run(experiment)
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
    elsewhere = create_experiment(other, tmp_path / "b").run
    x = np.float32(experiment.data.dataset.test.images[:5]) / 255
    both = [
        restore.make_teachers(e, None, model, variables).all_logits(x)
        for e in (run, elsewhere)
    ]
    np.testing.assert_array_equal(*both)


# --- Imported ---------------------------------------------------------------


def test_imported_members_are_teachers_like_any(tmp_path, capsys):
    config = tiny_config()
    experiment = create_experiment(config, tmp_path / "run")
    run = experiment.run
    model = run.build_model()
    keys = jax.random.split(jax.random.key(9), 2)
    members = [model.init(key, run.example, train=False) for key in keys]
    paths = [str(tmp_path / f"member{m}") for m in range(2)]
    for path, variables in zip(paths, members, strict=True):
        checkpoint.save_variables(pathlib.Path(path), variables)

    def refused(paths, words):
        with pytest.raises(InputError, match=words):
            import_teachers.import_teachers(experiment, paths)
        assert not run.teachers_dir.exists()

    refused(paths[:1], "--members names 1 networks of teachers; accepted: 2")
    refused(paths[:1] * 2, "member0 more than once .* accepted: each once")
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
    import_teachers.import_teachers(experiment, paths)
    printed = capsys.readouterr().out
    assert f"({paths[1]}): batch_stats, params of an Orbax checkpoint\n" in printed
    record = restore.teachers_record(run)
    assert record["imported_from"] == paths and record["train_seconds"] == 0
    assert record["num_params"] == models.count_params(members[0]["params"])
    train_teachers.train_teachers(experiment)  # has nothing left to do
    assert restore.teachers_record(run) == record
    _, variables = restore.load_teachers(run, None)
    for m, member in enumerate(members):
        own = ensemble.select(variables, m)
        jax.tree.map(np.testing.assert_array_equal, own, member)
    import_teachers.import_teachers(experiment, paths)  # nor has this
    with pytest.raises(InputError, match="has other teachers"):
        import_teachers.import_teachers(experiment, paths[::-1])
    assert restore.teachers_record(run) == record


def test_imported_networks_of_a_run_had_the_same_split(tmp_path):
    networks = [f"{tmp_path / 'source'}/teachers#{m}" for m in range(2)]
    source = create_experiment(tiny_config(), tmp_path / "source")
    members = [str(tmp_path / f"member{m}") for m in range(2)]
    for m, path in enumerate(members):
        variables = source.run.build_model().init(
            jax.random.key(m), source.run.example, train=False
        )
        checkpoint.save_variables(pathlib.Path(path), variables)
    import_teachers.import_teachers(source, members)

    for name, setting, words in (
        ("seed", {"seed": 1}, "train, validation differ"),
        ("size", {"data": {"validation_size": 50}}, "train, validation differ"),
    ):
        config = tiny_config()
        config.update(setting)
        other = create_experiment(config, tmp_path / name)
        with pytest.raises(InputError, match=rf"teachers#0 was .*this seed.*{words}"):
            import_teachers.import_teachers(other, networks)
        assert not other.run.teachers_dir.exists()

    same = create_experiment(tiny_config(), tmp_path / "same")
    import_teachers.import_teachers(same, networks)
    _, imported = restore.load_teachers(same.run, None)
    _, kept = restore.load_teachers(source.run, None)
    jax.tree.map(np.testing.assert_array_equal, imported, kept)

    # As if the source had been trained on streamed images.
    record = tmp_path / "source/data.json"
    record.write_text(record.read_text().replace('"pixels"', '"files"'))
    again = create_experiment(tiny_config(), tmp_path / "again")
    with pytest.raises(InputError, match="form differ"):
        import_teachers.import_teachers(again, networks)
