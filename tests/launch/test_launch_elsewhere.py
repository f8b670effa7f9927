"""Tests the commands with other teachers, data and devices, and without a compiler."""

import json
import re
import subprocess

import numpy as np
import pytest
import quick_compiler
from digit_files import digits_by_class, write_folder, write_npz
from finished_runs import (
    LOG_COMPILES,
    STUDENTS,
    read_log,
    read_rows,
    steps_compiled,
    variables,
    without_times,
)
from launching import UNSHIFTED, finish, snapshot, succeed, tiny


def test_students_of_another_runs_teachers(finished, server, tmp_path):
    workdir = tmp_path / "run"
    before = snapshot(finished)
    flags = [*tiny(workdir, "single_none"), "--config.seed=1"]
    flags.append(f"--config.teachers_workdir={finished}")
    # Not used: the teachers exist already.
    flags += ["--config.teachers.num_members=7", "--config.teachers.batch_size=1000"]
    done = succeed(server.run("run", *flags))
    assert f"teachers: from {finished / 'teachers'}" in done.stdout
    assert "(batch_size=20, not 1000; num_members=2, not 7), which have" in done.stderr
    assert re.findall(r"^(\S+)  epoch", done.stderr, re.M) == ["single_none"] * 3
    assert snapshot(finished) == before
    assert not (workdir / "teachers").exists()
    assert not (workdir / "split.npz").exists()
    for name in ("teachers", "single_none"):
        with (
            np.load(workdir / "predictions" / f"{name}.npz") as ours,
            np.load(finished / "predictions" / f"{name}.npz") as theirs,
        ):
            for part in ("validation_labels", "test_labels"):
                np.testing.assert_array_equal(ours[part], theirs[part])
            same = np.array_equal(ours["test_probs"], theirs["test_probs"])
            assert same == (name == "teachers")
    ensemble, student = read_rows(workdir)[:2], read_rows(workdir)[2]
    assert without_times(ensemble) == without_times(read_rows(finished)[:2])
    assert student["seed"] == 1 and ensemble[0]["seed"] == 0


def test_seeds_are_summarised(finished, server, tmp_path):
    workdir, out = tmp_path / "run", tmp_path / "out"
    succeed(server.run("run", *tiny(workdir, "single_none"), "--config.seed=1"))
    workdirs = f"--workdirs={workdir},{finished}"
    before = snapshot(finished)
    done = succeed(server.run("summarize", workdirs, f"--out={out}"))
    assert snapshot(finished) == before
    assert "DE-2" in done.stdout and f"Summary: {out}/summary.md" in done.stdout
    files = {f"{name}.svg" for name in ("cnll", "argument", "distance", "pareto")}
    files |= {"summary.json", "summary.md"}
    assert {path.name for path in out.iterdir()} == files
    found = json.loads((out / "summary.json").read_text())
    only = [f"{name} exists only in the runs with seeds 0." for name in STUDENTS[:2]]
    assert found["notes"][:2] == only
    runs = [{row["model"]: row for row in read_rows(w)} for w in (finished, workdir)]
    for model in found["models"]:
        rows = [run[model["model"]] for run in runs if model["model"] in run]
        for name in ("accuracy", "cnll", "brier", "train_seconds"):
            values = [row[name] for row in rows]
            assert model[name]["mean"] == pytest.approx(np.mean(values))
            if len(values) == 2:
                spread = abs(values[0] - values[1]) / 2
                assert model[name]["se"] == pytest.approx(spread)
    for row in found["comparisons"]:
        assert row["baseline"] == "single_none" and row["seeds"] == [0]
        theirs = runs[0][row["model"]]["cnll"] - runs[0]["single_none"]["cnll"]
        assert row["cnll"]["mean"] == pytest.approx(theirs, abs=1e-9)
    assert [row["model"] for row in found["comparisons"]] == STUDENTS[:2]
    for flags, said in (
        ([workdirs, "--baseline=kd"], "baseline=kd is no student of these runs"),
        ([], "workdirs is empty"),
        ([workdirs, "runs/other"], "unexpected argument 'runs/other'"),
    ):
        done = server.run("summarize", *flags, f"--out={out}/new")
        assert done.code == 2 and done.stderr.startswith(f"error: {said}"), done
        assert not (out / "new").exists()


def write_tfds(root, parts):
    import tensorflow_datasets as tfds

    from edp import data

    class EdpDigits(tfds.core.GeneratorBasedBuilder):
        """Digits in their original order."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(8, 8, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {part: self._generate_examples(*parts[part]) for part in parts}

        def _generate_examples(self, images, labels):
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, {"image": image, "label": label}

    config = {"source": "tfds", "name": "edp_digits", "data_dir": str(root)}
    config |= {"image_shape": (8, 8, 1), "num_classes": 10, "validation_size": 40}
    data.create_dataset(config, seed=0)  # prepares the set
    return [
        f"--config.data.{key}={config[key]}" for key in ("source", "name", "data_dir")
    ]


def test_every_source_of_data_without_tensorflow(commands, tmp_path):
    """The same digits from three sources give the same networks, bit for bit."""
    code = (
        "import runpy, sys\n"
        "sys.argv[0] = 'launch.run'\n"
        "try:\n"
        "    runpy.run_module('launch.run', run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        "    names = 'tensorflow', 'tensorflow_datasets'\n"
        "    print('imported:', *(name for name in names if name in sys.modules))\n"
    )
    parts = digits_by_class()
    found = {}
    for write in (write_npz, write_folder, write_tfds):
        workdir = tmp_path / write.__name__
        flags = [*tiny(workdir, "single_conf_ods"), *write(tmp_path, parts)]
        flags += UNSHIFTED if write is not write_tfds else ()
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        done = succeed(finish(commands.popen(["-c", code, *flags], **streams)))
        imported = done.stdout.splitlines()[-1]
        expected = "imported:" + " tensorflow_datasets" * (write is write_tfds)
        assert imported.strip() == expected
        assert done.stderr.count("epoch") == 6
        found[write.__name__] = (
            variables(workdir / "teachers"),
            variables(workdir / "students/single_conf_ods"),
            without_times(read_rows(workdir)),
        )
    assert found["write_npz"] == found["write_folder"] == found["write_tfds"]
    accuracies = [row["accuracy"] for row in found["write_npz"][-1]]
    assert len(accuracies) == 3


def test_a_mesh_compiles_the_step_once_and_changes_little(finished, commands, tmp_path):
    devices = "--xla_force_host_platform_device_count=2"
    flags = f"{quick_compiler.FLAGS} {devices}"
    done = commands.run(
        "train_teachers",
        *tiny(tmp_path / "run"),
        "--config.mesh.member=2",
        env=LOG_COMPILES | {"XLA_FLAGS": flags},
    )
    assert steps_compiled(succeed(done)) == 1
    ours, theirs = read_log(tmp_path / "run/teachers"), read_log(finished / "teachers")
    for one, other in zip(ours, theirs, strict=True):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-3)


def test_training_without_a_compiler_says_so_once(commands, tmp_path):
    workdir = tmp_path / "run"
    flags = [*tiny(workdir), "--config.teachers.num_epochs=1"]
    env = {"PATH": str(tmp_path), "CXX": "", "EDP_NATIVE": "1"}
    done = succeed(commands.run("train_teachers", *flags, env=env))
    said, *progress = done.stderr.splitlines()
    assert said.startswith("warning: the fast CPU kernels are not used, as no C++ comp")
    assert re.match("teachers  epoch 1/1  accuracy", *progress)
    reason = "no C++ compiler was found (g++, clang++, c++)"
    facts = json.loads((workdir / "run.json").read_text())
    assert facts["kernels"] == {"kernels": "xla", "reason": reason}
