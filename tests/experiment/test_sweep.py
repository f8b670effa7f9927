"""Tests of sweeps: the planned runs, the teachers they share, and the table."""

import json
import re
import signal
import time

import numpy as np
import pytest
from launching import TINY, Commands, finish, num_lines, wait_for
from seed_runs import make_run

from configs import digits
from edp.errors import InputError
from edp.experiment import sweep
from edp.report.figures import sweep_figure
from edp.report.seeds import sweep_results, sweep_tables
from launch.cli import subprocesses


def plan(*grid, seeds="0:2", config=None):
    config = digits.get_config() if config is None else config
    return sweep.points(config.lock(), sweep.parse_seeds(seeds), sweep.parse_grid(grid))


# Planned runs.


def test_seeds():
    assert sweep.parse_seeds("0:3") == [0, 1, 2]
    assert sweep.parse_seeds("5") == [5]
    assert sweep.parse_seeds("0:2,7,4") == [0, 1, 7, 4]
    for wrong in ("", "a", "3:3", "0:", "1,1", "0:3,2", "-1", "1.5", "4294967296"):
        with pytest.raises(InputError, match="--seeds="):
            sweep.parse_seeds(wrong)


def test_commas_in_brackets_do_not_separate():
    given = [
        "data.mean=(0.1,),(0.2, 0.3)",
        "model.name=resnet, convnet",
        "data.path=a=b",
    ]
    assert sweep.parse_grid(given) == {
        "data.mean": ["(0.1,)", "(0.2, 0.3)"],
        "model.name": ["resnet", "convnet"],
        "data.path": ["a=b"],
    }
    for wrong in ("distill.alpha", "=1", "distill.alpha=", "distill.alpha=1,,2"):
        with pytest.raises(InputError, match="must be KEY=VALUE,VALUE"):
            sweep.parse_grid([wrong])
    with pytest.raises(InputError, match=r"distill\.alpha is given twice"):
        sweep.parse_grid(["distill.alpha=0.5", "distill.alpha=1"])


def test_points_are_the_product_seed_by_seed():
    config = digits.get_config()
    points = plan(
        *("distill.step_size=2e-3,0.004", "students.be_none.temperature=1,4"),
        config=config,
    )
    assert [point.directory for point in points] == [
        f"step_size={step}+temperature={t}/seed{seed}"
        for seed in (0, 1)
        for step in ("0.002", "0.004")
        for t in ("1.0", "4.0")
    ]
    for point, step in zip(points, [0.002, 0.002, 0.004, 0.004] * 2, strict=True):
        assert point.config.distill.step_size == step
        assert point.config.seed == point.seed
    assert [p.config.students.be_none.temperature for p in points] == [1.0, 4.0] * 4
    assert points[1].setting.flags == [
        "--config.distill.step_size=2e-3",
        "--config.students.be_none.temperature=4",
    ]
    # The argument is unchanged, and placeholders keep their types.
    assert config.distill.step_size == 4 / 255 and config.seed == 0
    assert points[0].config.model.get_type("depth") is int
    assert [point.directory for point in plan(seeds="3")] == ["seed3"]


def test_none_is_a_value_of_settings_that_accept_it():
    config = digits.get_config()
    config.distill.step_length, config.distill.clip = 0.5, (0.0, 1.0)
    config.wandb_project = "mine"
    points = plan(
        *("distill.step_length=0.25,None", "wandb_project=None"),
        *("distill.clip=(0.1, 1.0),None", "model.remat=None"),
        seeds="1",
        config=config,
    )
    values = [(p.config.distill.step_length, p.config.distill.clip) for p in points]
    assert values == [(a, b) for a in (0.25, None) for b in ((0.1, 1.0), None)]
    assert {p.config.wandb_project for p in points} == {None}
    for wrong in ("seed", "distill.student", "data.mean", "data.flip", "distill.alpha"):
        refused = r"is not for a grid" if wrong == "seed" else rf"{wrong}=None must be"
        with pytest.raises(InputError, match=refused):
            plan(f"{wrong}=None")


def test_names_of_directories_are_plain_short_and_distinct():
    points = plan(
        *("data.mean=(0.1,),(0.2,)", "teachers.num_epochs=2", "distill.num_epochs=2"),
        seeds="0",
    )
    names = [point.setting.name for point in points]
    assert len(set(names)) == 2
    for name in names:
        assert re.fullmatch(r"[\w.=+-]+", name) and len(name) < 100
        assert "teachers.num_epochs=2+distill.num_epochs=2" in name
    keys = [
        f"distill.{key}=1"
        for key in digits.get_config().distill
        if "functional_" in key
    ]
    (point,) = plan(*(k for k in keys if not k.endswith("sigma=1")), seeds="0")
    assert len(point.setting.name) < 100


def test_teachers_are_shared_by_all_that_do_not_change_them():
    points = plan("distill.step_size=0.002,0.004")
    by_seed = {seed: {p.teachers for p in points if p.seed == seed} for seed in (0, 1)}
    assert len(by_seed[0]) == len(by_seed[1]) == 1 and by_seed[0] != by_seed[1]
    assert all(
        re.fullmatch(r"teachers/seed[01]-[0-9a-f]{8}", p.teachers) for p in points
    )
    # The same in another sweep of the same configuration.
    assert {p.teachers for p in plan("distill.alpha=1")} == by_seed[0] | by_seed[1]
    for key in ("teachers.num_epochs=3,4", "data.train_size=50,60", "model.width=4,8"):
        assert len({p.teachers for p in plan(key, seeds="0")}) == 2
    config = digits.get_config()
    config.teachers_workdir = "elsewhere"
    assert {p.teachers for p in plan("distill.alpha=1", config=config)} == {None}


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (
            "distill.step_sze=1",
            "no setting distill.step_sze; did you mean distill.step_",
        ),
        ("students.nobody.alpha=1", "there is no setting students.nobody.alpha"),
        ("distill=1", "there is no setting distill;"),
        ("seed=1,2", "seed is not for a grid; give --seeds"),
        ("teachers_workdir=x", "teachers_workdir is not for a grid"),
        ("distill.step_size=abc", "distill.step_size=abc: could not convert"),
        ("teachers.num_members=2.5", "teachers.num_members=2.5: invalid literal"),
        ("data.flip=7", "data.flip=7: .*[Nn]on-boolean"),
        ("distill.step_size=0.1,-1", "distill.step_size=-1: .* at least 0"),
        ("model.name=resnet,foo", "model.name=foo: model.name='foo' must be one of"),
        ("distill.step_size=1,1.0", "gives step_size=1.0 twice"),
    ],
)
def test_a_grid_at_fault_is_named(grid, words):
    with pytest.raises(InputError, match=f"--grid.*{words}"):
        plan(grid)


def test_flags_of_the_sweep_are_not_passed_on():
    argv = "--config=a.py --grid=x=1 --grid y=2,3 --config.grid=4 -seeds 0:2 --debug"
    passed = subprocesses.passed_on(argv.split(), ("seeds", "grid", "workdir"))
    assert passed == ["--config=a.py", "--config.grid=4", "--debug"]


def test_a_run_is_done_when_it_ended_with_the_same_settings(tmp_path):
    before, other = plan("distill.alpha=0.5", seeds="0:2")
    assert not sweep_results.is_done(tmp_path, before)
    sweep_results.mark_done(tmp_path, before)
    assert sweep_results.is_done(tmp_path, before) and not sweep_results.is_done(
        tmp_path, other
    )
    config = digits.get_config()
    config.evaluation.ood_sets = ("noise",)
    (after,) = plan("distill.alpha=0.5", seeds="0", config=config)
    assert after.directory == before.directory and not sweep_results.is_done(
        tmp_path, after
    )


# Synthetic runs: three students; the second improves with the value.


@pytest.fixture(scope="module")
def points():
    return plan("distill.step_size=0.002,0.004", seeds="0:3")


@pytest.fixture
def directory(points, tmp_path):
    for point in points:
        better = point.setting.name == "step_size=0.004"
        path = tmp_path / point.directory
        path.mkdir(parents=True)
        make_run(path, point.seed, (1.0, 2.0 + 0.5 * better, 2.2))
        sweep_results.mark_done(tmp_path, point)
    return tmp_path


def rows_of(result, model):
    return [row for row in result["rows"] if row["model"] == model]


def test_the_table_of_a_sweep(points, directory):
    result = sweep_results.summarize_sweep(directory, points)
    assert [s["name"] for s in result["settings"]] == [
        "step_size=0.002",
        "step_size=0.004",
    ]
    assert result["settings"][1]["values"] == {"distill.step_size": "0.004"}
    assert result["settings"][0]["seeds"] == [0, 1, 2]
    # Equal teachers appear once, without a setting.
    assert [(row.get("setting"), row["model"]) for row in result["rows"][:2]] == [
        (None, "DE-1"),
        (None, "DE-2"),
    ]
    assert result["rows"][0]["cnll"]["mean"] == 2.0
    assert len(result["rows"]) == 2 + 2 * 3 and result["notes"] == []
    first, second = rows_of(result, "be_none")
    found, by_seed = second["difference"]["cnll"], "by_seed"
    for seed in "012":
        of = (row["cnll"][by_seed][seed] for row in (second, first))
        assert found[by_seed][seed] == pytest.approx(next(of) - next(of))
    assert found["mean"] < 0 and 0 < found["p"] < 1 and "difference" not in first
    # Chosen on the validation images alone.
    assert second["validation_cnll"]["mean"] < first["validation_cnll"]["mean"]
    assert second["best"] and "best" not in first
    assert result["best"]["model"] == "be_none"
    assert result["best"]["setting"] == "step_size=0.004"
    # A student that no setting changes has no differences and no best setting.
    same = rows_of(result, "single_none")
    assert same[1]["difference"]["cnll"]["mean"] == 0
    assert not any("best" in row for row in same)


def test_the_best_is_chosen_on_validation_and_not_on_test(points, directory):
    """The first setting wins the test set, the second the validation set."""
    for point in points:
        path = directory / point.directory / "predictions/be_none.npz"
        with np.load(path) as file:
            arrays = dict(file)
        if point.setting.name == "step_size=0.004":
            arrays["test_probs"] = np.full_like(arrays["test_probs"], 0.25)
        np.savez(path, **arrays)
        if point.setting.name == "step_size=0.004":
            results = directory / point.directory / "results.json"
            rows = json.loads(results.read_text())
            rows[3]["cnll"] = 9.0
            results.write_text(json.dumps(rows))
    result = sweep_results.summarize_sweep(directory, points)
    first, second = rows_of(result, "be_none")
    assert second["best"] and second["cnll"]["mean"] == 9.0 > first["cnll"]["mean"]


def test_what_is_not_done_is_left_out_and_said(points, directory):
    for point in (points[1], points[3]):
        (directory / point.directory / "finished.json").unlink()
    result = sweep_results.summarize_sweep(directory, points)
    assert result["settings"][1]["seeds"] == [2]
    assert result["notes"] == [
        "Left out because unfinished: step_size=0.004/seed0, step_size=0.004/seed1."
    ]
    second = rows_of(result, "be_none")[1]
    assert second["difference"]["cnll"]["by_seed"].keys() == {"2"}
    # One seed is not compared with three.
    assert "best" not in second and result["best"]["setting"] == "step_size=0.002"
    text = sweep_tables.format_markdown(result)
    assert "| seeds |" in text and "Left out because unfinished" in text
    with pytest.raises(InputError, match="has no finished run"):
        sweep_results.summarize_sweep(directory / "elsewhere", points)


def test_settings_of_other_images_are_not_compared(tmp_path):
    points = plan("data.validation_size=150,200", seeds="0")
    for point in points:
        (tmp_path / point.directory).mkdir(parents=True)
        make_run(tmp_path / point.directory, 0)
        sweep_results.mark_done(tmp_path, point)
    result = sweep_results.summarize_sweep(tmp_path, points)
    assert "best" not in result and not any("best" in row for row in result["rows"])
    assert "Validation images differ" in result["notes"][0]
    # Other teachers: those of each setting.
    assert [row["setting"] for row in rows_of(result, "DE-2")] == [
        "validation_size=150",
        "validation_size=200",
    ]
    assert "DE-2 " not in sweep_figure.draw(result)  # no level that is of them all


def test_files_of_a_sweep(points, directory):
    result = sweep_results.summarize_sweep(directory, points)
    assert sweep_tables.write_sweep(result, directory) == [
        "sweep.svg",
        "sweep.json",
        "sweep.md",
    ]
    assert json.loads((directory / "sweep.json").read_text()) == result
    text = (directory / "sweep.md").read_text()
    (best,) = [
        line for line in text.splitlines() if line.startswith("| **step_size=0.004**")
    ]
    assert "**be\\_none**" in best or "**be_none**" in best
    assert "Best on validation: be_none at step_size=0.004" in text.replace("\\", "")
    assert text.count("±") > 20 and "![cNLL by setting](sweep.svg)" in text
    svg = (directory / "sweep.svg").read_text()
    assert "Calibrated NLL by distill.step_size: DE-1 2.0000" in svg
    terminal = sweep_tables.format_terminal(result, 100)
    assert terminal.count("★") == 1 and "Δ cNLL" in terminal
    assert max(map(len, terminal.splitlines()[:-1])) <= 100


def test_settings_that_are_not_numbers_are_drawn_as_dots(tmp_path):
    points = plan("distill.perturbation=ods,gaussian", seeds="0:2")
    for point in points:
        (tmp_path / point.directory).mkdir(parents=True)
        make_run(tmp_path / point.directory, point.seed)
        sweep_results.mark_done(tmp_path, point)
    svg = sweep_figure.draw(sweep_results.summarize_sweep(tmp_path, points))
    assert "be_none, perturbation=ods" in svg and "DE-2" in svg


# The command.


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("compiled"))


def flags(workdir, *more):
    key = "students.single_conf_ods.step_size"
    little = [
        f"--config.evaluation.{key}=()"
        for key in ("ood_sets", "corruptions", "step_sizes")
    ]
    return [
        f"--config={TINY}:single_none,single_conf_ods",
        *little,
        f"--workdir={workdir}",
        "--seeds=0:2",
        f"--grid={key}=0.01,0.02",
        *more,
    ]


def test_bad_input_is_told_in_a_line_before_any_work(commands, tmp_path):
    done = commands.run("sweep", *flags(tmp_path / "x", "--grid=distill.alpha=2"))
    assert done.code == 2 and done.stderr.count("\n") == 1
    assert "distill.alpha=2.0 must be a number from 0 to 1" in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.long
def test_a_sweep_killed_half_way_goes_on(commands, tmp_path):
    """Is killed in the second run, stopped in the third, then finishes."""
    runs = [
        tmp_path / f"step_size={step}/seed{seed}"
        for seed in (0, 1)
        for step in (0.01, 0.02)
    ]

    def start():
        return commands.start("sweep", *flags(tmp_path))

    process = start()
    wait_for(lambda: num_lines(runs[1] / "students/single_none/metrics.jsonl"), process)
    process.kill()  # its child process continues
    finish(process)
    assert (runs[0] / "finished.json").exists() and not (
        runs[1] / "finished.json"
    ).exists()
    time.sleep(1)
    while not (runs[1] / "report.html").exists():
        time.sleep(0.1)
    first = (runs[0] / "finished.json").stat().st_mtime_ns

    process = start()
    wait_for(lambda: (runs[2] / "students").exists(), process)
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == 75, done
    assert "interrupted: 2 of 4 runs are done; run the command again" in done.stderr
    assert f"{runs[0]}: complete" in done.stdout

    done = finish(start())
    assert done.code == 0, done
    assert not re.search(r"^teachers  epoch", done.stderr, re.M)
    assert (runs[0] / "finished.json").stat().st_mtime_ns == first
    assert len(list((tmp_path / "teachers").iterdir())) == 2  # one of each seed
    for run in runs:
        log = (run / "students/single_conf_ods/metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3]
        assert not (run / "teachers").exists()
    result = json.loads((tmp_path / "sweep.json").read_text())
    rows = rows_of(result, "single_conf_ods")
    assert [row["setting"] for row in rows] == ["step_size=0.01", "step_size=0.02"]
    assert all(row["seeds"] == [0, 1] and "se" in row["cnll"] for row in rows)
    assert rows[1]["difference"]["cnll"]["mean"] != 0
    same = rows_of(result, "single_none")
    assert same[1]["difference"]["cnll"]["mean"] == 0
    assert "Δ cNLL" in done.stdout and (tmp_path / "sweep.md").exists()

    done = commands.run("sweep", *flags(tmp_path))
    assert done.code == 0 and done.stdout.count(": complete") == 4
    assert done.stderr == ""


@pytest.mark.long
def test_a_run_that_fails_does_not_end_the_sweep(commands, tmp_path):
    grid = "--grid=distill.learning_rate=1e30,0.1"
    one = [f"--config={TINY}:single_none", f"--workdir={tmp_path}", "--seeds=0", grid]
    done = commands.run("sweep", *one)
    assert done.code == 1 and "learning_rate=1e+30/seed0 (exit code 1)" in done.stderr
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert [s["name"] for s in result["settings"]] == ["learning_rate=0.1"]
    assert result["notes"] == [
        "Left out because unfinished: learning_rate=1e+30/seed0."
    ]
