"""Sweeps: the runs of several seeds and of a grid of settings."""

import copy
import difflib
import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags
from ml_collections import config_flags

from edp.errors import InputError
from edp.experiment import none_flags, settings, validate
from edp.experiment.rules import SEED

# Longer names of directories are cut and end in a digest.
_LONGEST_NAME = 80
# Settings that are paths of what a run reads.
_PATHS = ("data.path", "data.soft_labels", "evaluation.soft_labels")
# Settings that a sweep determines.
_OWN = {"seed": "give --seeds", "teachers_workdir": "give it as --config."}


class Setting(NamedTuple):
    """One point of the grid, without a seed.

    Attributes:
      name: the name of its directory, such as `step_size=0.002`; "" without a grid.
      values: by dotted key, the value as text.
    """

    name: str
    values: dict[str, str]

    @property
    def flags(self) -> list[str]:
        """The command-line flags that set the values."""
        return [f"--config.{key}={text}" for key, text in self.values.items()]


class Point(NamedTuple):
    """One run of a sweep.

    Attributes:
      setting: its point of the grid.
      seed: the seed of the run.
      config: the configuration with both.
      directory: the run's directory, relative to the sweep's.
      teachers: the directory of its teachers, relative to the sweep's; shared by all
        points whose teachers depend on equal settings. None: `teachers_workdir`.
    """

    setting: Setting
    seed: int
    config: ml_collections.ConfigDict
    directory: str
    teachers: str | None


def parse_seeds(text: str) -> list[int]:
    """Parses seeds: `0:3` is 0, 1, 2; `0,4` is 0, 4; `0:2,7` is 0, 1, 7.

    Raises:
      InputError: if there is no seed, a duplicate or an invalid one.
    """
    try:
        seeds = [seed for part in text.split(",") for seed in _range(part)]
    except ValueError:
        seeds = []
    if not seeds or not all(map(SEED, seeds)) or len(set(seeds)) < len(seeds):
        raise InputError(
            f"--seeds={text!r} must be START:END (without the end) or distinct seeds "
            "joined by commas, such as 0:3 or 0,1,2"
        )
    return seeds


def _range(part: str) -> Sequence[int]:
    start, colon, end = part.partition(":")
    return range(int(start), int(end)) if colon else [int(start)]


def parse_grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """Parses `KEY=VALUE,VALUE,...`; commas in brackets do not separate values.

    Raises:
      InputError: if a text is not of this form, or a key is given twice.
    """
    grid: dict[str, list[str]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        # A comma is inside brackets if the next bracket after it closes.
        found = [v.strip() for v in re.split(r",(?![^(\[]*[)\]])", values)]
        if not key or not equals or not all(found):
            raise InputError(f"--grid={text!r} must be KEY=VALUE,VALUE,...")
        if key in grid:
            raise InputError(f"--grid={text!r}: {key} is given twice")
        grid[key] = found
    return grid


def points(
    config: ml_collections.ConfigDict,
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[str]],
) -> list[Point]:
    """Returns the runs, all settings under the first seed, then under the next.

    Args:
      config: the configuration that the grid changes; `validate.check` accepts it.
      seeds: from `parse_seeds`.
      grid: from `parse_grid`; settings are the product of its values, in order.

    Raises:
      InputError: if a key does not exist or is determined by the sweep, a value is
        not accepted, or two settings are equal or have the same results; names the
        key and the value.
    """
    _check_keys(config, grid)
    configs: dict[str, tuple[Setting, ml_collections.ConfigDict]] = {}
    for texts in itertools.product(*grid.values()):
        values = dict(zip(grid, texts, strict=True))
        changed = _override(config, values)
        setting = Setting(_name(changed, values), values)
        if setting.name in configs:
            raise InputError(f"--grid gives {setting.name} twice")
        configs[setting.name] = setting, changed
    if not any(map(settings.is_execution_option, grid)):
        _check_effects(configs.values())
    found = []
    for seed in seeds:
        for setting, changed in configs.values():
            own = copy.deepcopy(changed)
            own.seed = seed
            directory = "/".join(filter(None, (setting.name, f"seed{seed}")))
            found.append(Point(setting, seed, own, directory, _teachers(own)))
    return found


def check_paths(points: Iterable[Point]) -> None:
    """Checks that the paths of the grid exist, before the first of many runs.

    Args:
      points: the runs to be done.

    Raises:
      InputError: if one does not; names the key and the value.
    """
    for point in points:
        for key in point.setting.values.keys() & _PATHS:
            section, name = key.split(".")
            path = point.config[section][name]
            if path is not None and not pathlib.Path(path).expanduser().exists():
                raise InputError(
                    f"--grid: {key} is {path}, which does not exist; accepted: files "
                    "and folders that exist"
                )


def _teachers(config: ml_collections.ConfigDict) -> str | None:
    """Returns the directory of the teachers: a digest of their dependencies.

    The paths of the data and of their soft labels count, as a sweep may compare
    several data sets, or soft labels with plain ones.
    """
    if config.teachers_workdir is not None:
        return None
    depends = settings.teacher_dependencies(config)
    depends["data"]["path"] = config.data.path
    if (soft_labels := config.data.get("soft_labels")) is not None:
        depends["data"]["soft_labels"] = soft_labels
    record = json.dumps(depends, sort_keys=True)
    return f"teachers/seed{config.seed}-{_digest(record)}"


def _check_effects(
    configs: Iterable[tuple[Setting, ml_collections.ConfigDict]],
) -> None:
    """Raises an InputError if nothing reads the settings in which two points differ."""
    seen: dict[str, Setting] = {}
    for setting, config in configs:
        other = seen.setdefault(_effects(config), setting)
        if other is not setting:
            keys = [k for k, v in setting.values.items() if other.values[k] != v]
            raise InputError(
                f"--grid: {other.name} and {setting.name} have the same results, as "
                f"nothing reads {' and '.join(keys)}; accepted: settings of this "
                "configuration's teachers and students (a value of a student's own "
                "has precedence over distill, and teachers_workdir over teachers)"
            )


def _effects(config: ml_collections.ConfigDict) -> str:
    """Returns all that the results depend on, as text."""
    values = config.to_dict()
    sections = ("teachers", "distill", "students")
    rest = {key: value for key, value in values.items() if key not in sections}
    trained = config.teachers_workdir is None
    teachers = settings.teacher_dependencies(config) if trained else {}
    students = {
        name: settings.student_dependencies(config, student, {})
        for name, student in settings.resolve_students(config).items()
    }
    return json.dumps([rest, teachers, students], sort_keys=True)


def _check_keys(config: ml_collections.ConfigDict, grid: Mapping[str, Any]) -> None:
    known = list(_keys(config.to_dict()))
    for key in grid:
        if key in _OWN:
            raise InputError(f"--grid: {key} is not for a grid; {_OWN[key]}")
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise InputError(
                f"--grid: there is no setting {key}; did you mean {nearest}?"
            )


def _keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _override(
    config: ml_collections.ConfigDict, values: Mapping[str, str]
) -> ml_collections.ConfigDict:
    """Returns a copy with the values, parsed as command-line flags and validated."""
    changed = copy.deepcopy(config)
    if not values:
        return changed
    argv = ["", *Setting("", dict(values)).flags]
    parsed = flags.FlagValues()
    none_flags.register()
    try:
        config_flags.DEFINE_config_dict(
            "config", changed, flag_values=parsed, sys_argv=argv
        )
        parsed(argv)
        none_flags.set_tuples(changed, parsed["config"])
    except (flags.Error, TypeError, ValueError) as error:
        why = str(error).removeprefix("flag --config.")
        raise InputError(f"--grid: {why}") from error
    try:
        validate.check(changed)
    except InputError as error:
        given = ", ".join(f"{key}={text}" for key, text in values.items())
        raise InputError(f"--grid: {given}: {error}") from error
    return changed


def _name(config: ml_collections.ConfigDict, values: Mapping[str, str]) -> str:
    """Joins `key=value`; a key is shortened to its last part where that is unique."""
    parts = []
    for key in values:
        value = config
        for name in key.split("."):
            value = value[name]
        last = key.rpartition(".")[2]
        alike = [other for other in values if other.rpartition(".")[2] == last]
        parts.append(f"{last if len(alike) == 1 else key}={value}")
    name = "+".join(parts)
    plain = re.sub(r"[^\w.=+-]+", "_", name)
    if plain == name and len(name) <= _LONGEST_NAME:
        return name
    return f"{plain[:_LONGEST_NAME]}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
