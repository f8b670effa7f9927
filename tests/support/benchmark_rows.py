"""Rows of measurements as `benchmarks.suite` makes them."""

from benchmarks import timing


def row(contender, rounds=None, **extra):
    """Returns the row of a contender, measured in rounds of these seconds per step."""
    common = {
        "case": "c",
        "what": "teacher_step",
        "num_members": 4,
        "batch_size": 64,
        "precision": "float32",
        "contender": contender,
    }
    measured = timing.summarise(rounds, 64) | {"mfu": 0.25} if rounds else {}
    return {**common, **measured, **extra}
