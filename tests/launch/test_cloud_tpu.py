"""Tests the commands for Cloud TPU and the recreation of preempted machines."""

import math
import os
import pathlib
import shlex
import subprocess
import sys
import textwrap

import pytest

from edp.errors import InputError
from launch.cloud_tpu import commands as tpu
from launch.cloud_tpu import following, machine

ROOT = pathlib.Path(__file__).parents[2]
RUN = ["--config=configs/digits.py", "--workdir=gs://b/run", "--config.data.flip=False"]
SINGLE = machine.Machine("edp", "us-west4-a", "v5litepod-8")
SLICE = machine.Machine("edp", "us-west4-a", "v5litepod-16", project="ours")
SPOT = SINGLE._replace(spot=True)

# Answers like `gcloud`, with a sequence of states or exit codes, and records its
# arguments.
FAKE = """\
    #!/bin/sh
    cd '{directory}'
    printf '%s\\037' "${{0##*/}}" "$@" >> calls
    echo >> calls
    answer() {{ read -r first rest < "$1"; echo "${{rest:-$first}}" > "$1"; }}
    case "$*" in
        *describe*) answer states
            case $first in
                MISSING) echo 'ERROR: (gcloud) NOT_FOUND: no such node' >&2; exit 1;;
                DOWN) echo 'ERROR: no connection' >&2; exit 1;;
            esac
            echo "$first";;
        *'cat run.code'*) answer codes; echo "$first";;
        *'tpu-vm create'*) answer creates; exit "$first";;
        *'pip install'*) answer setups; exit "$first";;
    esac
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Puts a `gcloud` and a `git` that only record calls on an otherwise empty path."""
    (tmp_path / "bin").mkdir()
    for name in ("gcloud", "git"):
        script = tmp_path / "bin" / name
        text = textwrap.dedent(FAKE)
        script.write_text(text.format(directory=tmp_path))
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def prepare(states, codes="0", creates="0", setups="0"):
        for name, text in locals().items():
            if isinstance(text, str):
                (tmp_path / name).write_text(f"{text}\n")
        return following.Runner(ROOT, dry=False, seconds=0)

    prepare.calls = lambda: [
        line.split("\x1f")[:-1]
        for line in (tmp_path / "calls").read_text().split("\n")[:-1]
    ]
    return prepare


def verbs(calls):
    """Returns the verb of each call."""
    names = {"cat run.code": "poll", "pip install": "install", "setsid": "start"}
    for call in calls:
        found = [name for part, name in names.items() if part in call[-1]]
        yield found[0] if found else call[4] if call[0] == "gcloud" else call[0]


def shown(capsys, commands):
    assert following.Runner(ROOT, dry=True, seconds=0).all(commands) == 0
    return capsys.readouterr().out.splitlines()


def dry(*arguments, code=0):
    environment = os.environ | {"PATH": "/nowhere"}  # no executables
    verb, *rest = arguments
    done = subprocess.run(
        [sys.executable, "-m", "launch.cloud_tpu", verb, "--dry_run", *rest],
        cwd=ROOT, env=environment, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == code, done
    return done.stdout.splitlines() if code == 0 else done.stderr


HERE = ["--name=edp", "--zone=us-west4-a"]


def test_a_single_host_dry(capsys):
    single = [*HERE, "--type=v5litepod-8"]
    vm = "gcloud compute tpus tpu-vm"
    assert dry("create", *single) == [
        f"{vm} create edp --zone=us-west4-a --accelerator-type=v5litepod-8 "
        "--version=v2-alpha-tpuv5-lite "
        "--scopes=https://www.googleapis.com/auth/cloud-platform"
    ]
    archive, copy, install = shown(capsys, tpu.setup(SINGLE))
    assert archive == "git archive --format=tar.gz --output=/tmp/edp-edp.tar.gz HEAD"
    assert copy == (
        f"{vm} scp /tmp/edp-edp.tar.gz edp:edp.tar.gz --zone=us-west4-a --worker=all"
    )
    assert shlex.split(install) == [
        *f"{vm} ssh edp --zone=us-west4-a --worker=all".split(),
        "--command=mkdir -p edp && tar -xzf edp.tar.gz -C edp && "
        "curl -LsSf https://astral.sh/uv/install.sh | sh && "
        "~/.local/bin/uv venv --clear --python 3.12 edp-env && ~/.local/bin/uv pip "
        "install --python edp-env/bin/python -e 'edp[tpu,gcs]'",
    ]
    now, start, then, state, code = dry("run", *single, "--", *RUN)
    assert now == "# now" and then.startswith("# then every 60 s")
    assert shlex.split(start) == [
        *f"{vm} ssh edp --zone=us-west4-a --worker=all".split(),
        "--command=cd edp && { flock --nonblock ~/run.lock rm -f ~/run.code; "
        "setsid flock --nonblock ~/run.lock bash -c '~/edp-env/bin/python -m "
        "launch.run --config=configs/digits.py --workdir=gs://b/run "
        "--config.data.flip=False > ~/run.log 2>&1; echo $? > ~/run.code' "
        "< /dev/null > /dev/null 2>&1 & }",
    ]
    assert state == f"{vm} describe edp --zone=us-west4-a '--format=value(state)'"
    assert shlex.split(code)[-2:] == [
        "--worker=0",
        "--command=cat run.code 2> /dev/null || "
        "flock --nonblock run.lock echo 75 || echo running",
    ]
    assert shown(capsys, [tpu.logs(SINGLE)]) == [
        f"{vm} ssh edp --zone=us-west4-a --worker=0 '--command=tail -n 1000 -F run.log'"
    ]
    deleted = shown(capsys, [tpu.delete(SINGLE)])
    assert deleted == [f"{vm} delete edp --zone=us-west4-a --quiet"]


def test_a_slice_and_a_spot_machine_dry():
    flags = [*HERE, "--type=v4-16", "--project=ours", "--spot", "--delete_when_done"]
    lines = dry("run", *flags, "--", *RUN)
    comments = [line for line in lines if line.startswith("#")]
    assert [comment.split(",")[0] for comment in comments] == [
        "# now",
        "# then every 60 s",
        "# if there is no machine",
        "# when it is PREEMPTED or TERMINATED",
        "# when the run has ended with exit code 0",
    ]
    again = lines[lines.index(comments[3]) + 1 : lines.index(comments[4])]
    of = ["delete", "create", "git", "scp", "install", "start"]
    assert list(verbs(map(shlex.split, again))) == of
    assert lines[lines.index(comments[2]) + 1 : lines.index(comments[3])] == again[1:]
    assert again[0] == (
        "gcloud compute tpus tpu-vm delete --project=ours edp --zone=us-west4-a --quiet"
    )
    assert "--accelerator-type=v4-16 --version=tpu-ubuntu2204-base" in again[1]
    assert again[1].endswith(" --spot")
    assert all("--worker=all" in line for line in again[3:])


@pytest.mark.parametrize(
    ("kind", "hosts"),
    [
        *(("v5litepod-1", 1), ("v5litepod-8", 1), ("v5litepod-16", 4), ("v6e-256", 64)),
        *(("v4-8", 1), ("v4-16", 2), ("v5p-128", 16), ("v3-32", 4)),
    ],
)
def test_how_many_hosts_there_are(kind, hosts):
    assert machine.num_hosts(SINGLE._replace(accelerator_type=kind)) == hosts


def test_a_flag_of_the_run_is_one_word_whatever_is_in_it():
    hostile = '--config.data.path=it\'s; $(rm -rf ~) `x` \\ "q"'
    command = tpu.start(SINGLE, [*RUN, hostile])[-1].removeprefix("--command=")
    words = shlex.split(command)
    script = words[words.index("-c") + 1]
    inner = shlex.split(script.partition(" > ~/run.log")[0])
    assert inner == ["~/edp-env/bin/python", "-m", "launch.run", *RUN, hostile]


def test_the_shell_of_start_and_poll_does_what_it_says(tmp_path):
    """Runs them locally without ssh, with a stand-in for Python."""
    python = tmp_path / "edp-env/bin/python"
    python.parent.mkdir(parents=True)
    (tmp_path / "edp").mkdir()
    python.write_text(
        '#!/bin/sh\necho "$@"\nwhile [ ! -e ~/end ]; do sleep 0.02; done\nexit 3\n'
    )
    python.chmod(0o755)

    def shell(command):
        script = command[-1].removeprefix("--command=")
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, text=True, capture_output=True,
            env=os.environ | {"HOME": str(tmp_path)}, timeout=60,
        )  # fmt: skip
        return done.stdout.strip()

    assert shell(tpu.poll(SINGLE)) == "75"  # nothing is running or has ended
    shell(tpu.start(SINGLE, RUN))
    for _ in range(500):
        if shell(tpu.poll(SINGLE)) == "running" and (tmp_path / "run.log").exists():
            break
    shell(tpu.start(SINGLE, RUN))  # does not start a second one
    assert shell(tpu.poll(SINGLE)) == "running"
    (tmp_path / "end").touch()
    for _ in range(500):
        if shell(tpu.poll(SINGLE)) == "3":
            break
    assert (tmp_path / "run.code").read_text() == "3\n"
    assert (tmp_path / "run.log").read_text() == f"-m launch.run {' '.join(RUN)}\n"


def test_a_preempted_machine_is_made_again_and_the_run_goes_on(cloud):
    runner = cloud("MISSING READY READY PREEMPTED READY READY", "running running 0")
    assert runner.follow(SPOT, RUN, delete=True) == 0
    calls = cloud.calls()
    made = ["create", "git", "scp", "install", "start"]
    assert list(verbs(calls)) == [
        *["describe", *made],
        *["describe", "poll"] * 2,
        *["describe", "delete", *made],
        *["describe", "poll"],
        "delete",
    ]
    expected = [*tpu.commands(SPOT, "recreate", RUN), tpu.describe(SPOT)]
    at = calls.index(tpu.delete(SPOT))
    assert calls[at : at + len(expected)] == expected
    assert tpu.create(SPOT)[-1] == "--spot"


def test_no_capacity_and_a_restart_are_waited_for(cloud):
    states = "TERMINATED MISSING MISSING REPAIRING DOWN READY READY"
    runner = cloud(states, "75 0", creates="1 1 0")
    assert runner.follow(SPOT._replace(preemptible=True, spot=False), RUN, False) == 0
    found = list(verbs(cloud.calls()))
    assert found[:6] == [
        "describe",
        "delete",
        "create",
        *["describe", "create"],
        "describe",
    ]
    # Created at the third attempt; the run killed by a host restart is started again.
    made = ["create", "git", "scp", "install", "start"]
    assert found[6:11] == made and found[11:] == [
        *["describe"] * 3,
        *["poll", "start", "describe", "poll"],
    ]


def test_a_run_that_fails_is_not_tried_for_ever(cloud, capsys):
    assert cloud("READY", "running 1").follow(SPOT, RUN, delete=True) == 1
    assert "delete" not in verbs(cloud.calls())
    assert "the run ended with exit code 1" in capsys.readouterr().err
    runner = cloud("MISSING READY", setups="1")
    assert runner.follow(SPOT, RUN, delete=False) == 1
    assert list(verbs(cloud.calls())).count("install") == 4
    assert "the run: not set up" in capsys.readouterr().err


def test_a_machine_of_ones_own_is_not_made_again(cloud, capsys):
    for state in ("PREEMPTED", "MISSING", "STOPPED"):
        assert cloud(state).follow(SINGLE, RUN, delete=False) == 1
        assert f"edp is {state}" in capsys.readouterr().err
    assert set(verbs(cloud.calls())) == {"describe"}


@pytest.mark.parametrize(
    ("asked_for", "words"),
    [
        (
            SINGLE._replace(name="Edp_1"),
            "--name='Edp_1' is no name of a machine; accepted: lower-case",
        ),
        (SINGLE._replace(zone="us-west4"), "--zone='us-west4' is no zone; accepted"),
        (
            SINGLE._replace(accelerator_type="v9-8"),
            "--type='v9-8' is no accelerator type; accepted: SERIES",
        ),
        (
            SINGLE._replace(accelerator_type="v4"),
            "--type='v4' is no accelerator type; accepted: SERIES",
        ),
        (SPOT._replace(preemptible=True), "one of them"),
    ],
)
def test_machines_that_cannot_be_asked_for(asked_for, words):
    with pytest.raises(InputError, match=words):
        machine.check(asked_for)


def test_a_run_that_could_not_go_on_is_refused():
    local = ["--config=configs/digits.py", "--workdir=runs/x"]
    machine.check_run(SINGLE, local)
    for one, why in ((SPOT, "lost with the machine"), (SLICE, "on one host only")):
        machine.check_run(one, RUN)
        with pytest.raises(InputError, match=f"runs/x .*{why}.*gs://BUCKET"):
            machine.check_run(one, local)
    with pytest.raises(InputError, match="--config= must be given after --"):
        machine.check_run(SINGLE, RUN[1:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["start", *HERE], "is unknown; accepted: create, setup, run, logs, delete"),
        (["create", *HERE, "--type=v4-8", "more"], "unexpected argument 'more'"),
        (["run", *HERE, "--type=v4-8", "--", *RUN, "--dry_run"], "before --"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_line(arguments, words):
    said = dry(*arguments, code=2)
    assert words in said and said.count("\n") == 1


def test_recipes_for_clusters_are_whole():
    yaml = pytest.importorskip("yaml")
    directory = ROOT / "examples/cluster"
    script = directory / "slurm.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    job_set = yaml.safe_load((directory / "gke.yaml").read_text())
    (job,) = job_set["spec"]["replicatedJobs"]
    hosts, pod = job["template"]["spec"], job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command = container["command"]
    chips = hosts["completions"] * container["resources"]["limits"]["google.com/tpu"]
    mesh = [int(flag.partition("=")[2]) for flag in command if ".mesh." in flag]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert math.prod(mesh) == chips == int(rows) * int(columns)
    config = next(flag.partition("=")[2] for flag in command if "--config=" in flag)
    assert (ROOT / config).exists() and hosts["parallelism"] == hosts["completions"]
