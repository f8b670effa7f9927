"""Tests trackers (TensorBoard, Weights & Biases) and the report during a run."""

import json
import pathlib
import re
import shutil
import struct
import sys
import types

import pytest
from launching import Commands, tiny

from configs import digits
from edp.errors import InputError
from edp.runtime import multihost, trackers
from launch.cli import live_report

ROWS = [
    {"epoch": 1, "step": 4, "loss": 0.5, "accuracy": 0.25},
    {"epoch": 2, "step": 8, "loss": 0.25, "accuracy": 0.5},
]


def make_config(**changes):
    config = digits.get_config()
    config.update(changes)
    return config


def log(config, directory, rows, label="teachers"):
    stage = trackers.TrackedStage(directory, directory / label, label, {"seed": 0})
    with trackers.open_trackers(config, stage) as track:
        for row in rows:
            track(row)


def read_events(directory):
    """Reads events from files of records [length, checksum, bytes, checksum]."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def scalars(events):
    return [
        (event.step, value.tag, value.simple_value)
        for event in events
        for value in event.summary.value
    ]


def test_event_files_hold_the_rows(tmp_path):
    pytest.importorskip("tensorboardX")
    config = make_config(tensorboard=True)
    log(config, tmp_path, ROWS)
    events = read_events(tmp_path / "tensorboard/teachers")
    assert scalars(events) == [
        (4, "epoch", 1.0),
        (4, "loss", 0.5),
        (4, "accuracy", 0.25),
        (8, "epoch", 2.0),
        (8, "loss", 0.25),
        (8, "accuracy", 0.5),
    ]
    # Resumed after the first: later rows are purged.
    log(config, tmp_path, ROWS[1:], label="again")
    (start,) = [
        event
        for event in read_events(tmp_path / "tensorboard/again")
        if event.HasField("session_log")
    ]
    assert start.step == 8 and start.session_log.status == start.session_log.START


@pytest.fixture
def wandb(monkeypatch):
    """Replaces the package; returns the calls that it gets."""
    calls = []

    def init(**options):
        calls.append(("init", options))
        return types.SimpleNamespace(
            log=lambda values, step: calls.append(("log", values, step)),
            finish=lambda: calls.append(("finish",)),
        )

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    return calls


def test_wandb_gets_the_rows(tmp_path, wandb):
    config = make_config(wandb_project="ours")
    log(config, tmp_path / "run", [])
    # A complete stage starts no run.
    assert wandb == [] and list(tmp_path.iterdir()) == []
    log(config, tmp_path / "run", ROWS)
    (_, options), first, second, end = wandb
    assert options["project"] == "ours" and options["resume"] == "allow"
    assert options["name"] == "run/teachers" and options["config"] == {"seed": 0}
    assert first == ("log", {"epoch": 1, "loss": 0.5, "accuracy": 0.25}, 4)
    assert second[2] == 8 and end == ("finish",)


def test_a_resumed_stage_keeps_its_wandb_run_and_a_new_one_has_its_own(tmp_path, wandb):
    config, run = make_config(wandb_project="ours"), tmp_path / "run"
    log(config, run, ROWS[:1])
    log(config, run, ROWS[1:])
    log(config, run, ROWS[1:], label="single_none")
    run.rename(tmp_path / "elsewhere")
    log(config, tmp_path / "elsewhere", ROWS[1:])
    log(config, run, ROWS)  # in the old place
    shutil.rmtree(run / "teachers")
    log(config, run, ROWS)  # retrained
    ids = [call[1]["id"] for call in wandb if call[0] == "init"]
    assert ids[0] == ids[1] == ids[3]
    assert len({ids[0], ids[2], ids[4], ids[5]}) == 4


def test_a_damaged_wandb_id_is_named(tmp_path, wandb):
    config = make_config(wandb_project="ours")
    log(config, tmp_path, ROWS)
    path = tmp_path / "teachers/wandb.json"
    for text in ("{", "{}", '{"id": 3}'):
        path.write_text(text)
        with pytest.raises(InputError, match=re.escape(str(path))):
            log(config, tmp_path, ROWS)
    assert [call[0] for call in wandb].count("init") == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"tensorboard": True},
            r"needs tensorboardX: pip install tensorboardX",
        ),
        ({"wandb_project": "x"}, "wandb_project='x' needs wandb: pip install"),
    ],
)
def test_a_missing_package_is_refused_before_training(
    changes, words, tmp_path, monkeypatch
):
    for name in ("tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=words):
        log(make_config(**changes), tmp_path, [])
    log(make_config(), tmp_path, ROWS)
    assert list(tmp_path.iterdir()) == []


def test_other_processes_log_nothing(tmp_path, monkeypatch, wandb):
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr(multihost, "is_first", lambda: False)
    log(make_config(tensorboard=True, wandb_project="ours"), tmp_path, ROWS)
    assert wandb == []
    assert list(tmp_path.iterdir()) == []


def test_the_report_is_rendered_again_when_it_is_cheap(monkeypatch):
    now, drawn = 0.0, []

    def write_report(workdir):
        nonlocal now
        now += 10.0  # cost of a report
        drawn.append(now)

    monkeypatch.setattr(live_report, "Predictors", lambda experiment: {})
    monkeypatch.setattr(live_report.results, "collect_rows", lambda *args, tell: [])
    monkeypatch.setattr(live_report.storage, "write_json", lambda path, value: None)
    monkeypatch.setattr(live_report.report, "write_report", write_report)
    run = types.SimpleNamespace(workdir=pathlib.Path("run"))
    experiment = types.SimpleNamespace(run=run)
    made = live_report.Drafts(experiment, clock=lambda: now)
    for later in (1.0, 59.0):  # stages of seconds
        now = later
        made.draw()
    assert drawn == []
    now = 60.0
    made.draw()
    assert drawn == [70.0]
    for later in (130.0, 269.0):  # 10 s are a twentieth of 200 s
        now = later
        made.draw()
    assert drawn == [70.0]
    now = 270.0
    made.draw()
    assert drawn == [70.0, 280.0]


@pytest.mark.long
def test_a_run_is_logged_and_trackers_are_no_dependency(tmp_path, tmp_path_factory):
    pytest.importorskip("tensorboardX")
    commands = Commands(tmp_path_factory.mktemp("compiled"))
    flags = [*tiny(tmp_path, "single_none"), "--config.tensorboard=True"]
    done = commands.run("run", *flags)
    assert done.code == 0, done
    for label in ("teachers", "single_none"):
        stage = "teachers" if label == "teachers" else f"students/{label}"
        lines = (tmp_path / stage / "metrics.jsonl").read_text().splitlines()
        logged = {
            (json.loads(line)["step"], json.loads(line)["loss"]) for line in lines
        }
        found = scalars(read_events(tmp_path / "tensorboard" / label))
        losses = {(step, value) for step, tag, value in found if tag == "loss"}
        assert {step for step, _ in losses} == {4, 8, 12}
        for (_, value), (_, expected) in zip(
            sorted(losses), sorted(logged), strict=True
        ):
            assert value == pytest.approx(expected, rel=1e-6)
    # No stage depends on it.
    done = commands.run("run", *flags, "--config.tensorboard=False")
    assert done.code == 0 and "epoch" not in done.stderr
