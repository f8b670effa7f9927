"""Configurations of finished runs, and the settings in which they differ."""

import pathlib
from collections.abc import Collection
from typing import Any

from edp.errors import InputError
from edp.experiment.rules import DATA_LOCATION
from edp.runtime import storage
from edp.runtime.stage import different_settings, flatten

# Settings in which runs of one configuration may differ.
_MAY_DIFFER = (
    "seed",
    "teachers_workdir",
    "checkpoint_minutes",
    "checkpoint_steps",
    "nonfinite",
    "steps_per_dispatch",
    "tensorboard",
    "wandb_project",
)
# Key of the teachers' settings in settings.json of a student.
_FROM = "from"


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """Reads the configuration of an evaluated run.

    With the settings of its students' teachers as `from`, where they are known.

    Raises:
      InputError: if the run is not evaluated, or the file is damaged; names it.
    """
    for name in ("config.json", "results.json"):
        if not (path / name).exists():
            raise InputError(
                f"workdirs: there is no {path / name}; accepted: workdirs of runs "
                "finished by launch.run or launch.evaluate"
            )
    config = storage.read_mapping(path / "config.json")
    if not isinstance(config.get("seed"), int):
        raise InputError(f"{path / 'config.json'} is not the configuration of a run")
    return {**config, **_distilled_from(path, config)}


def _distilled_from(path: pathlib.Path, config: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of the students' teachers, without seeds; {} if unknown.

    With `teachers_workdir`, those of the configuration are of no use.
    """
    for name in config.get("students") or ():
        settings = path / "students" / name / "settings.json"
        stored = storage.read_mapping(settings) if settings.exists() else {}
        if teachers := stored.get(_FROM, {}).get("teachers"):
            flat = flatten({"teachers": teachers})
            return {_FROM: {k: v for k, v in flat.items() if not k.endswith(".seed")}}
    return {}


def differences(config: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that differ, of students those of common ones."""
    shared = (config.get("students") or {}).keys() & (other.get("students") or {})
    pair = [comparable(c, shared) for c in (config, other)]
    elsewhere = config.get("teachers_workdir") or other.get("teachers_workdir")
    if not (elsewhere and all(_FROM in c for c in pair)):
        pair = [{k: v for k, v in c.items() if k != _FROM} for c in pair]
    return different_settings(*pair)


def comparable(config: dict[str, Any], students: Collection[str]) -> dict[str, Any]:
    """Returns the settings that runs must share, with those of these students."""
    config = {key: value for key, value in config.items() if key not in _MAY_DIFFER}
    for section, keep in (
        ("students", lambda name: name in students),
        ("data", lambda name: name not in DATA_LOCATION),
    ):
        values = config.get(section) or {}
        config[section] = {key: values[key] for key in values if keep(key)}
    return config
