"""Rules for the values of settings, each in words and as a test."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

DATA_LOCATION = ("path", "data_dir", "stream", "num_workers")
"""Settings of `data` that say where images are and how they are read.

They do not decide which images are used: digests of the images do.
"""


class Rule(NamedTuple):
    """A condition on a value.

    Attributes:
      words: the condition in words, for errors.
      test: the condition as a predicate; a TypeError counts as False.
      required: whether the setting must be present.
    """

    words: str
    test: Callable[[Any], bool]
    required: bool = True

    def __call__(self, value: Any) -> bool:
        try:
            return bool(self.test(value))
        except TypeError:
            return False


def one_of(*names: str) -> Rule:
    return Rule(f"one of {', '.join(names)}", lambda v: v in names)


def optional(rule: Rule) -> Rule:
    return Rule(f"{rule.words}, or None", lambda v: v is None or rule(v))


def override(rule: Rule) -> Rule:
    """Returns the rule of an override, which may be missing or None."""
    return optional(rule)._replace(words=rule.words, required=False)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def are_names(value: Any) -> bool:
    """Returns whether a value is a sequence of distinct non-empty strings."""
    named = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    return named and all(value) and len(set(value)) == len(value)


TEXT = Rule("a non-empty text", lambda v: isinstance(v, str) and v != "")
ANYTHING = Rule("", lambda v: True)  # checked by the function that reads it
COUNT = Rule("an integer of at least 1", lambda v: _is_integer(v) and v >= 1)
INDEX = Rule("an integer of at least 0", lambda v: _is_integer(v) and v >= 0)
SEED = Rule("an integer from 0 to 2**32 - 1", lambda v: INDEX(v) and v < 2**32)
FINITE = Rule("a finite number", lambda v: _is_number(v) and abs(v) < math.inf)
POSITIVE = Rule("a finite number above 0", lambda v: FINITE(v) and v > 0)
NOT_NEGATIVE = Rule("a finite number of at least 0", lambda v: FINITE(v) and v >= 0)
FRACTION = Rule("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1)
MOMENTUM = Rule("a number from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1)
BOOL = Rule("True or False", lambda v: isinstance(v, bool))
MILESTONES = Rule(
    "two epochs E1 < E2", lambda v: len(v) == 2 and 0 < v[0] < v[1] < math.inf
)
SHARES = Rule(
    "two numbers from 0 to 1, the second not below the first",
    lambda v: len(v) == 2 and 0 <= v[0] <= v[1] <= 1,
)
TWO_POSITIVE = Rule(
    "two finite numbers above 0", lambda v: len(v) == 2 and all(map(POSITIVE, v))
)
STEP_SIZES = Rule(
    "distinct finite numbers above 0, or ()",
    lambda v: all(map(POSITIVE, v)) and len(set(v)) == len(v),
)
COVERAGES = Rule(
    "distinct numbers between 0 and 1, at least one",
    lambda v: all(_is_number(c) and 0 < c < 1 for c in v) and len(v) == len(set(v)) > 0,
)
IMAGE_SHAPE = Rule(
    "(height, width, channels), integers of at least 1",
    lambda v: len(v) == 3 and all(map(COUNT, v)),
)
# The files of results use the reserved names for something else.
PREDICTOR_NAME = Rule(
    "letters, digits, _ and -, and not teachers, train, test, clean or DE-1",
    lambda v: re.fullmatch(r"(?!(teachers|train|test|clean|DE-\d+)$)[\w-]+", v),
)
