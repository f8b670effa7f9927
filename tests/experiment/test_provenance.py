"""Tests that a run which continues on other hardware or versions says so."""

import jax
import pytest
from tiny_configs import tiny_config

from edp.errors import InputError
from edp.experiment import provenance
from edp.experiment.create import create_experiment
from edp.runtime import storage


@pytest.fixture
def here():
    """The facts of this process, with values that the test knows."""
    return provenance.run_facts() | {
        "backend": "cpu",
        "kernels": {"kernels": "native", "compiler": "g++ 1", "instructions": "avx2"},
        "cpu_features": ["avx2", "fma"],
        "available_cores": 2,
    }


def check(began, now, directory, monkeypatch, capfd):
    """Returns what `check_hardware` prints for a made-up `run.json`."""
    storage.write_json(directory / "run.json", began)
    monkeypatch.setattr(provenance, "run_facts", lambda: now)
    provenance.check_hardware(directory)
    return capfd.readouterr().err


@pytest.mark.parametrize(
    ("changed", "began", "continues"),
    [
        ({"available_cores": 1}, "1 available core", "2 available cores"),
        (
            {"cpu_features": ["avx2", "avx512f", "fma"]},
            "CPU features avx2 avx512f fma",
            "CPU features avx2 fma",
        ),
        (
            {"kernels": {"kernels": "xla", "reason": "EDP_NATIVE=0"}},
            "kernels xla",
            "kernels native avx2 g++ 1",
        ),
        ({"backend": "gpu", "available_cores": 8}, "backend gpu", "backend cpu"),
    ],
)
def test_other_hardware_is_a_warning_of_one_line(
    changed, began, continues, here, tmp_path, monkeypatch, capfd
):
    said = check(here | changed, here, tmp_path, monkeypatch, capfd)
    assert said == (
        f"warning: {tmp_path} was begun with {began} and continues with {continues}: "
        "results are not bit-identical to those of an uninterrupted run\n"
    )


def test_a_run_that_left_and_came_back_says_so(here, tmp_path, monkeypatch, capfd):
    """The second of three processes had one core; the first and the last have two."""
    for cores in (2, 1, 1, 2):
        now = here | {"available_cores": cores}
        monkeypatch.setattr(provenance, "run_facts", lambda now=now: now)
        provenance.record(tmp_path)
    facts = storage.read_mapping(tmp_path / "run.json")
    others = facts.pop("continued_with")
    assert facts == here
    assert [other["available_cores"] for other in others] == [1]
    provenance.check_hardware(tmp_path)
    assert capfd.readouterr().err == (
        f"warning: {tmp_path} was begun with 2 available cores and has continued with "
        "1 available core: results are not bit-identical to those of an uninterrupted "
        "run\n"
    )


def test_the_same_hardware_gives_no_warning(here, tmp_path, monkeypatch, capfd):
    other_model = here | {"cpu": "another", "num_processes": 2}
    assert check(other_model, here, tmp_path, monkeypatch, capfd) == ""


def test_the_reason_for_xla_kernels_does_not_count(here, tmp_path, monkeypatch, capfd):
    one, other = (
        here | {"kernels": {"kernels": "xla", "reason": reason}}
        for reason in ("EDP_NATIVE=0", "no C++ compiler was found (g++)")
    )
    assert check(one, other, tmp_path, monkeypatch, capfd) == ""


def test_the_cpu_of_a_gpu_run_does_not_count(here, tmp_path, monkeypatch, capfd):
    one, other = (
        here | {"backend": "gpu", "available_cores": cores} for cores in (4, 8)
    )
    assert check(one, other, tmp_path, monkeypatch, capfd) == ""


def test_an_old_workdir_gives_no_warning(here, tmp_path, monkeypatch, capfd):
    for gone in ("cpu_features", "available_cores", "backend"):
        old = {key: value for key, value in here.items() if key != gone}
        assert check(old, here, tmp_path, monkeypatch, capfd) == ""
    provenance.check_hardware(tmp_path / "new")  # not begun
    assert capfd.readouterr().err == ""


def test_a_workdir_without_kernels_was_begun_with_those_of_xla(
    here, tmp_path, monkeypatch, capfd
):
    old = {key: value for key, value in here.items() if key != "kernels"}
    assert "kernels xla" in check(old, here, tmp_path, monkeypatch, capfd)


def test_facts_describe_this_cpu(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu fma avx2 avx512f\n\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu\n"
    )
    monkeypatch.setattr(provenance, "_CPU_INFO", info)
    monkeypatch.setattr(provenance.os, "sched_getaffinity", lambda _: {3, 5, 7})
    facts = provenance.run_facts()
    assert facts["cpu"] == "A CPU"
    assert facts["cpu_features"] == ["avx2", "avx512f", "fma"]
    assert facts["available_cores"] == 3
    assert facts["kernels"]["kernels"] in ("native", "xla")


def test_a_workdir_of_another_version(tmp_path, capfd):
    provenance.check_version(tmp_path)  # not begun
    facts = {"schema_version": provenance.SCHEMA_VERSION, **provenance.versions()}
    storage.write_json(tmp_path / "run.json", facts)
    provenance.check_version(tmp_path)
    assert capfd.readouterr().err == ""
    storage.write_json(tmp_path / "run.json", {**facts, "jax": "0.1", "edp": "0.0.1"})
    provenance.check_version(tmp_path)
    said = capfd.readouterr().err
    assert said.startswith(f"warning: {tmp_path} was begun with edp 0.0.1, jax 0.1 and")
    assert f"goes on with edp {facts['edp']}, jax {jax.__version__}" in said
    for schema in (provenance.SCHEMA_VERSION + 1, None, "1"):
        storage.write_json(tmp_path / "run.json", {**facts, "schema_version": schema})
        with pytest.raises(InputError, match=rf"schema_version={schema!r}; accepted"):
            provenance.check_version(tmp_path)


@pytest.mark.parametrize(
    "name", ["config.json", "results.json", "predictions/teachers.npz"]
)
def test_files_of_others_are_not_replaced(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"model_type": "bert"}')
    held = name.partition("/")[0]
    with pytest.raises(InputError, match=rf"not that of a run, and holds {held}, "):
        create_experiment(tiny_config(), tmp_path)
    assert (tmp_path / name).read_text() == '{"model_type": "bert"}'


def test_a_run_that_ended_before_its_provenance_goes_on(tmp_path):
    (tmp_path / "config.json").write_text(tiny_config().to_json())
    provenance.check_workdir(tmp_path)


def test_an_evaluation_that_ended_before_its_provenance_goes_on(tmp_path):
    storage.write_json(tmp_path / "predictions/made_from.json", {})
    provenance.check_workdir(tmp_path)
