"""Tests of teachers that are imported from checkpoints and other runs."""

import pathlib
import shutil

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import tiny_config

from edp import ensemble, models
from edp.errors import InputError
from edp.experiment import import_teachers, restore
from edp.experiment.create import create_experiment
from edp.runtime import checkpoint
from launch import train_teachers


def test_imported_members_are_teachers_like_any(tmp_path, capsys):
    config = tiny_config()
    experiment = create_experiment(config, tmp_path / "run")
    run = experiment.run
    model = run.build_model()
    keys = jax.random.split(jax.random.key(9), 2)
    members = [compiled.init(model, key, run.example) for key in keys]
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

    shutil.move(paths[0], tmp_path / "former0")
    capsys.readouterr()
    import_teachers.import_teachers(experiment, paths)  # which it does not need
    remark = f"teachers: complete ({paths[0]} is not there to compare with)\n"
    assert capsys.readouterr().out == remark
    checkpoint.save_variables(pathlib.Path(paths[0]), wrong)
    with pytest.raises(InputError, match=r"member 0 \(.*member0\)"):
        import_teachers.import_teachers(experiment, paths)
    shutil.rmtree(paths[0])
    checkpoint.save_variables(pathlib.Path(paths[0]), members[1])
    with pytest.raises(InputError, match=r"former weights of .*member0.* have changed"):
        import_teachers.import_teachers(experiment, paths)
    assert restore.teachers_record(run) == record


def test_imported_networks_of_a_run_had_the_same_split(tmp_path):
    networks = [f"{tmp_path / 'source'}/teachers#{m}" for m in range(2)]
    source = create_experiment(tiny_config(), tmp_path / "source")
    members = [str(tmp_path / f"member{m}") for m in range(2)]
    for m, path in enumerate(members):
        key, model = jax.random.key(m), source.run.build_model()
        variables = compiled.init(model, key, source.run.example)
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

    config = tiny_config()
    config.data.mean = (0.25,)
    other = create_experiment(config, tmp_path / "mean")
    with pytest.raises(InputError, match=r"data\.mean was \[0\.5\] and is now \[0\.25"):
        import_teachers.import_teachers(other, networks)
    assert not other.run.teachers_dir.exists()
    config = tiny_config()
    config.model.batchnorm_groups = 2  # of the same function in evaluation mode
    other = create_experiment(config, tmp_path / "groups")
    import_teachers.import_teachers(other, networks)

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
