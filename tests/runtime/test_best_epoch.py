"""Tests best-epoch selection on scores that can be followed by hand."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from edp.runtime import best_epoch, loop
from edp.runtime.feed import TrainingLength, resident_feed
from edp.runtime.stage import Stage
from edp.runtime.state import TrainState

SCHEDULE = TrainingLength(
    num_epochs=4, steps_per_epoch=2, images_per_step=1, checkpoint_minutes=0.0
)
# Scores of two members after each epoch, up and down, with a tie; and their means.
SCORES = [[0.1, 0.2], [0.5, 0.1], [0.5, 0.4], [0.3, 0.4]]
MEANS = [0.15, 0.3, 0.45, 0.35]
# Keys of every checkpoint's record.
RECORD = {"seconds", "checkpoint_seconds", "skipped_steps", "epoch_metrics"}


def step_fn(state, resources, inputs):
    """Sets every variable to the number of steps done."""
    step = state.step + 1
    params = {"a": jnp.full((2, 3), step), "b": jnp.full(2, step)}
    model_state = {"batch_stats": jnp.full((2, 1), step)}
    return TrainState(step, params, model_state, ()), {"loss": inputs * 1.0}


def score_each(variables):
    epoch = int(variables["params"]["b"][0]) // SCHEDULE.steps_per_epoch
    return np.array(SCORES[epoch - 1])


def score_mean(variables):
    return score_each(variables).mean()


def fit(path, score, should_stop=lambda: False):
    """Returns the variables kept, as lists, and the record without times."""
    params = {"a": jnp.zeros((2, 3), int), "b": jnp.zeros(2, int)}
    state = TrainState(
        jnp.int32(0), params, {"batch_stats": jnp.zeros((2, 1), int)}, ()
    )
    variables, record, _ = loop.fit(
        step_fn,
        state,
        None,
        resident_feed(lambda epoch: jnp.arange(SCHEDULE.steps_per_epoch)),
        SCHEDULE,
        Stage(path, {}),
        label="this",
        should_stop=should_stop,
        select=score and best_epoch.by_score("score", score),
    )
    assert record.pop("train_seconds") > record.pop("checkpoint_seconds")
    kept = variables["params"]["a"], variables["batch_stats"]
    return [np.asarray(x).tolist() for x in kept], record


def read_log(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").open()]


# Variables and record kept by each score: epoch e ends with step 2 e.
KEPT = {
    None: ([[[8] * 3] * 2, [[8]] * 2], {}),
    score_mean: (
        [[[6] * 3] * 2, [[6]] * 2],
        {"selected_epoch": 3, "score": np.mean([0.5, 0.4])},
    ),
    score_each: (
        [[[4] * 3, [6] * 3], [[4], [6]]],
        {"selected_epoch": [2, 3], "score": [0.5, 0.4]},
    ),
}


@pytest.mark.parametrize("score", KEPT)
def test_keeps_the_best_epoch_and_the_first_of_equal_ones(tmp_path, score, capfd):
    assert fit(tmp_path, score) == KEPT[score]
    log = read_log(tmp_path)
    lines = capfd.readouterr().err.splitlines()
    if score is None:
        assert all(row.keys() == {"epoch", "step", "loss"} for row in log)
    else:
        np.testing.assert_allclose([row["score"] for row in log], MEANS)
        assert [line.split("  ")[3] for line in lines] == [
            f"score {mean:.4f}" for mean in MEANS
        ]
    assert fit(tmp_path, score) == KEPT[score]  # nothing is left to do


@pytest.mark.parametrize(
    ("score", "num_steps"),
    [(score_mean, 7), *((score_each, num_steps) for num_steps in (1, 4, 5, 7))],
)
def test_resumes_with_the_best_epoch_so_far(tmp_path, score, num_steps):
    fit(tmp_path / "whole", score)
    asked = itertools.count()
    with pytest.raises(loop.Interrupted, match=f"at step {num_steps} of 8"):
        fit(tmp_path / "parts", score, lambda: next(asked) >= num_steps)
    assert fit(tmp_path / "parts", score) == KEPT[score]
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")


def test_only_a_selection_adds_to_the_checkpoint(tmp_path):
    def saved(score):
        fit(tmp_path / str(score), score)
        (record,) = (tmp_path / str(score)).glob("checkpoints/8/record/metadata")
        return json.loads(record.read_text()).keys()

    assert saved(None) == RECORD
    assert saved(score_each) == RECORD | {"best"}


def test_accuracy_of_each_member_or_their_mean():
    labels = np.array([0, 1, 1, 2])
    predicted = np.array([[0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 2]])
    probs = np.eye(3)[predicted]

    def score(of_each):
        select = best_epoch.by_accuracy(lambda _: probs, labels, of_each=of_each)
        best = best_epoch.Best({}, np.asarray(-np.inf), np.asarray(0))
        best, row = select.update(best, {}, 1)
        assert row == {"validation_accuracy": pytest.approx(best.scores.mean())}
        return best.scores.tolist()

    assert score(of_each=True) == [0.75, 0.25, 0.75]
    # Not the accuracy of their mean probabilities, which is wrong on the last alone.
    assert score(of_each=False) == pytest.approx(1.75 / 3)


def test_a_score_of_minus_infinity_never_keeps_the_initial_variables():
    """As that of an NLL that is infinite."""
    scores = iter([[-np.inf, -np.inf], [-np.inf, 0.5]])
    select = best_epoch.by_score("score", lambda variables: np.array(next(scores)))
    best = select.begin(jnp.zeros(2))
    for epoch, (kept, epochs) in enumerate(([[1, 1], [1, 1]], [[1, 2], [1, 2]]), 1):
        best, _ = select.update(best, jnp.full(2, epoch), epoch)
        assert best.variables.tolist() == kept
        assert select.summary(best)["selected_epoch"] == epochs


def test_snapshots_are_the_ends_of_cycles_after_an_interruption_too(tmp_path):
    def fit(path, should_stop=lambda: False):
        state = TrainState(jnp.int32(0), {"w": jnp.zeros((1, 3), int)}, {}, ())

        def step(state, resources, inputs):
            new = {"w": jnp.full((1, 3), state.step + 1)}
            return TrainState(state.step + 1, new, {}, ()), {"loss": inputs * 1.0}

        variables, record, _ = loop.fit(
            step,
            state,
            None,
            resident_feed(lambda epoch: jnp.arange(SCHEDULE.steps_per_epoch)),
            SCHEDULE,
            Stage(path, {}),
            label="this",
            should_stop=should_stop,
            select=best_epoch.at((SCHEDULE.num_epochs // 2, SCHEDULE.num_epochs)),
        )
        assert record.pop("train_seconds") > record.pop("checkpoint_seconds")
        assert record == {"selected_epoch": [2, 4]}
        # Epoch e ends with step 2 e.
        assert variables["params"]["w"].tolist() == [[4] * 3, [8] * 3]

    asked = itertools.count()
    with pytest.raises(loop.Interrupted, match="at step 5 of 8"):
        fit(tmp_path, lambda: next(asked) >= 5)
    fit(tmp_path)
    assert all(row.keys() == {"epoch", "step", "loss"} for row in read_log(tmp_path))
