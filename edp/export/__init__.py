"""Predictors that run without this project: programs, weights and their loader."""

from edp.export.artifact import (
    FORMAT,
    PLATFORMS,
    PROBS,
    ProbsFn,
    UncertaintyFn,
    create_program,
    serialize,
    write_artifact,
)

__all__ = [
    "FORMAT",
    "PLATFORMS",
    "PROBS",
    "ProbsFn",
    "UncertaintyFn",
    "create_program",
    "serialize",
    "write_artifact",
]
