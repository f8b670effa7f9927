"""Tests the installed package: its contents, imports and commands."""

import configparser
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import ml_collections
import pytest
from packaging.version import Version

from edp.errors import InputError
from launch.cli import config_flag

ROOT = pathlib.Path(__file__).parents[2]
SHIPPED = sorted(p.stem for p in (ROOT / "configs").glob("[!_]*.py"))
COMMANDS = {"run", "train_teachers", "distill", "evaluate", "report", "summarize"}
COMMANDS |= {"import_teachers", "export", "predict", "sweep", "cloud_tpu"}


def run(*arguments, cwd=ROOT, path=None):
    """Runs Python in a directory, with another one on the import path."""
    env = os.environ | ({} if path is None else {"PYTHONPATH": str(path)})
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True
    )


def imports(statement):
    """Returns CPU seconds of a statement after `import jax`, and its imports."""
    program = (
        "import sys, time, jax; start = time.process_time(); "
        f"{statement}; print(time.process_time() - start, *sys.modules)"
    )
    done = run("-c", program)
    assert done.returncode == 0, done
    seconds, *modules = done.stdout.split()
    return float(seconds), set(modules)


def test_imports_are_light():
    _, modules = imports("import edp, edp.perturbations")
    heavy = {"orbax", "tensorflow_datasets", "matplotlib", "grain", "sklearn", "scipy"}
    assert not modules & (heavy | {"flax", "optax", "PIL"})
    seconds, modules = imports(
        "from edp import data, distill, ensemble, losses, metrics, models, students"
    )
    assert not modules & heavy
    assert seconds < 1.5


def test_predicting_needs_nothing_that_training_does():
    _, modules = imports(
        "from edp.export import classify_files; from launch.cli import arguments"
    )
    training = {"orbax", "flax", "optax", "ml_collections", "tensorflow_datasets"}
    assert not modules & (training | {"grain", "matplotlib", "sklearn"})


def test_the_commands_are_listed_in_a_line_each():
    done = run("-m", "launch")
    assert done.returncode == 0 and run("-m", "launch", "--help").stdout == done.stdout
    lines = done.stdout.split("\n\n")[0].splitlines()
    described = {line.split()[1]: line.split(maxsplit=2)[2] for line in lines}
    assert described.keys() >= COMMANDS and all(described.values())
    assert described["run"].startswith("Runs the main job: teachers, students, ")
    done = run("-m", "launch", "rnu")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: no command 'rnu'; accepted: cloud_tpu,")


def test_help_lists_the_flags_and_the_sections_of_the_settings():
    """The sections are those of the default configuration."""
    config = config_flag.load(ROOT / "configs/default.py")().to_dict()
    sections = {key for key, value in config.items() if isinstance(value, dict)}
    assert config_flag.SECTIONS.keys() == sections
    text = run("-m", "launch", "run", "--help").stdout
    for flag in ("config", "workdir", "only", "[no]debug", "num_processes"):
        assert f"\n  --{flag}: " in text, flag
    for section, meaning in config_flag.SECTIONS.items():
        assert f"\n    {section}: {meaning}\n" in text, section
    assert str(ROOT / "configs/default.py") in text
    text = run("-m", "launch.report", "--help").stdout  # needs no configuration
    assert "\n  --workdir: " in text and "--config:" not in text


def test_a_command_gets_its_flags():
    done = run("-m", "launch", "run", "--config=digits")
    assert (done.returncode, done.stderr) == (2, "error: --workdir is required\n")


def test_shipped_configurations_are_found_by_name(tmp_path, monkeypatch):
    for name in SHIPPED:
        assert config_flag.find(name) == ROOT / f"configs/{name}.py"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # a directory is no configuration
    assert config_flag.find("digits") == ROOT / "configs/digits.py"
    (tmp_path / "digits").rmdir()
    (tmp_path / "digits").touch()
    assert config_flag.find("digits") == pathlib.Path("digits")
    with pytest.raises(InputError, match=f"a file, or {', '.join(SHIPPED)}"):
        config_flag.find("digts")
    with pytest.raises(InputError, match="no such file"):
        config_flag.find("__init__")


@pytest.mark.parametrize("package", ["configs", "edp.configs", "."])
def test_own_configurations_start_from_the_shipped_ones(package, tmp_path):
    path = tmp_path / "own.v2.py"
    path.write_text(
        f"from {package} import default, digits\n\n\n"
        "def get_config(variant=''):\n"
        "    config = digits.get_config(variant)\n"
        "    config.students.own = default.student(config, perturbation='ods')\n"
        "    return config\n"
    )
    config = config_flag.load(path)("debug")
    assert isinstance(config, ml_collections.ConfigDict)
    assert config.data.source == "synthetic"
    assert config.students.own.perturbation == "ods"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Returns a directory with the installed wheel."""
    import setuptools

    if Version(setuptools.__version__) < Version("70.1"):
        pytest.skip("setuptools is too old to build a wheel alone")
    root = tmp_path_factory.mktemp("wheel")
    for name in ("edp", "launch", "configs"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    done = run(
        "-c",
        "from setuptools import build_meta; build_meta.build_wheel('dist')",
        cwd=root,
    )
    assert done.returncode == 0, done
    (wheel,) = (root / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root / "site")
    return root / "site"


def files(directory):
    """Returns the paths of all files below a directory, relative to it."""
    paths = (p.relative_to(directory) for p in directory.rglob("*") if p.is_file())
    return {p for p in paths if "__pycache__" not in p.parts}


def test_the_wheel_has_one_package(installed):
    assert {p.name for p in installed.iterdir() if p.suffix != ".dist-info"} == {"edp"}
    for source, target in (("edp", "edp"), ("launch", "edp/launch")):
        wanted = files(ROOT / source)
        assert wanted <= files(installed / target)
        if source == "edp":  # sources of kernels and templates too
            assert {p.suffix for p in wanted} == {
                ".py",
                ".cc",
                ".css",
                ".h",
                ".html",
                ".js",
                ".typed",
            }
    assert {p.stem for p in (installed / "edp/configs").glob("[!_]*.py")} == {*SHIPPED}
    (metadata,) = installed.glob("*.dist-info")
    assert metadata.name.startswith("edp_jax-")  # `edp` is another project
    text = (metadata / "licenses/LICENSE").read_text()
    assert "Apache License" in text
    scripts = configparser.ConfigParser()
    scripts.read(metadata / "entry_points.txt")
    assert scripts["console_scripts"]["edp"] == "edp.launch.__main__:main"


def edp(installed, cwd, *arguments):
    """Runs the console script with only the wheel on the import path."""
    script = "from edp.launch.__main__ import main; main()"
    return run("-c", script, *arguments, cwd=cwd, path=installed)


def test_the_installed_command_names_what_is_shipped(installed, tmp_path):
    done = edp(installed, tmp_path, "run", "--config=digts", "--workdir=run")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "flag --config=digts: there is no such file" in done.stderr
    assert ", ".join(SHIPPED) in done.stderr


def test_what_needs_a_checkout_says_so(installed, tmp_path):
    flags = ["--name=edp", "--zone=us-west4-a", "--type=v4-8", "--dry_run"]
    done = edp(installed, tmp_path, "cloud_tpu", "setup", *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "setup needs a git checkout of edp" in done.stderr
    done = edp(installed, tmp_path, "cloud_tpu", "delete", *flags)
    assert done.returncode == 0 and done.stdout.startswith("gcloud ")


@pytest.mark.long
def test_the_installed_package_runs(installed, tmp_path):
    done = edp(installed, tmp_path, "run", "--config=digits:debug", "--workdir=run")
    assert done.returncode == 0, done
    assert (tmp_path / "run/report.html").exists()
    own = "from configs import digits\n\nget_config = digits.get_config\n"
    (tmp_path / "own.py").write_text(own)
    done = edp(installed, tmp_path, "report", "--config=own.py:debug", "--workdir=run")
    assert done.returncode == 0, done
    assert done.stdout.endswith("Report: run/report.html\n")
