"""Exports predictors that run without this project: programs and their loader."""

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
from edp.export.targets import TARGETS, Examples

__all__ = [
    "FORMAT",
    "PLATFORMS",
    "PROBS",
    "TARGETS",
    "Examples",
    "ProbsFn",
    "UncertaintyFn",
    "create_program",
    "serialize",
    "write_artifact",
]
