"""Tests of the planned runs of sweeps, and of the teachers that they share."""

import re

import pytest
from sweep_plans import plan

from configs import digits
from edp.errors import InputError
from edp.experiment import sweep


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
    for key in (
        *("teachers.num_epochs=3,4", "data.train_size=50,60", "model.width=4,8"),
        "data.soft_labels=None,people.npy",  # the teachers train on them
    ):
        assert len({p.teachers for p in plan(key, seeds="0")}) == 2
    config = digits.get_config()
    config.teachers_workdir = "elsewhere"
    assert {p.teachers for p in plan("distill.alpha=1", config=config)} == {None}


def test_settings_that_nothing_reads_are_refused():
    def refused(key, *grid, **change):
        config = digits.get_config()
        config.update(change)
        with pytest.raises(InputError, match=rf"same results, as nothing reads {key};"):
            plan(*grid, config=config)

    refused("distill.mixup_alpha", "distill.mixup_alpha=0.5,1")
    refused("teachers.num_epochs", "teachers.num_epochs=2,3", teachers_workdir="there")
    refused("distill.milestones", "distill.milestones=(1, 2),(3, 4)")
    own = {name: {"temperature": 4.0} for name in digits.get_config().students}
    refused("distill.temperature", "distill.temperature=1,2", students=own)
    del own["be_none"]
    config = digits.get_config()
    config.update(students=own)
    grid = ("distill.temperature=1,2", "teachers.member_strategy=vmap,unroll")
    assert len(plan(grid[0], seeds="0", config=config)) == 2
    assert len(plan(grid[1], seeds="0")) == 2  # to time them


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


def test_paths_that_do_not_exist_are_named_before_the_first_run(tmp_path):
    (tmp_path / "there.npy").touch()
    grid = f"data.soft_labels=None,{tmp_path / 'there.npy'}"
    sweep.check_paths(plan(grid))
    with pytest.raises(
        InputError, match=r"data\.soft_labels is .*gone.npy, which does"
    ):
        sweep.check_paths(plan(f"{grid},{tmp_path / 'gone.npy'}"))
