"""Trackers of training: TensorBoard and Weights & Biases.

Each tracker logs the rows of a stage's `metrics.jsonl` as they are written. Both
packages are optional; each is imported only if its setting asks for it.
"""

import contextlib
import importlib
import pathlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from edp.errors import InputError
from edp.runtime import multihost, storage

Row = Mapping[str, Any]


class TrackedStage(NamedTuple):
    """Stage whose training is logged.

    Attributes:
      directory: the run's directory.
      path: the stage's directory in it.
      label: the stage's name: `teachers` or a student's name.
      settings: the settings that the stage depends on.
    """

    directory: pathlib.Path
    path: pathlib.Path
    label: str
    settings: Mapping[str, Any]


class _TensorBoard:
    """Event files in `tensorboard/<label>`, by optimizer step."""

    def __init__(self, package: Any, chosen: bool, stage: TrackedStage, first: Row):
        # Hides rows logged after the checkpoint that training resumed from.
        self._writer = package.SummaryWriter(
            str(stage.directory / "tensorboard" / stage.label),
            purge_step=first["step"],
        )

    def log(self, row: Row) -> None:
        for name, value in _scalars(row).items():
            self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run of the project for each stage; the stages of a workdir form a group."""

    def __init__(self, package: Any, chosen: str, stage: TrackedStage, first: Row):
        group = stage.directory.name
        self._run = package.init(
            project=chosen,
            group=group,
            name=f"{group}/{stage.label}",
            id=_wandb_id(stage),
            resume="allow",
            config=dict(stage.settings),
            dir=str(stage.directory),
        )

    def log(self, row: Row) -> None:
        self._run.log(_scalars(row), step=row["step"])

    def close(self) -> None:
        self._run.finish()


def _wandb_id(stage: TrackedStage) -> str:
    """Returns the id of the stage's run; draws and stores it the first time.

    So a resumed stage continues its run, also in a workdir that was moved; a retrained
    stage is a new run, also in the same place.

    Raises:
      InputError: if the file is damaged.
    """
    path = stage.path / "wandb.json"
    if not path.exists():
        storage.write_json(path, {"id": uuid.uuid4().hex})
    found = storage.read_mapping(path).get("id")
    if not isinstance(found, str) or not found:
        raise InputError(
            f"{path} is damaged: it has no id; remove it to log the stage as a new run"
        )
    return found


# Setting -> (package, tracker).
_TRACKERS = {
    "tensorboard": ("tensorboardX", _TensorBoard),
    "wandb_project": ("wandb", _WandB),
}


@contextlib.contextmanager
def open_trackers(
    config: Mapping[str, Any], stage: TrackedStage
) -> Iterator[Callable[[Row], None]]:
    """Yields a function that logs a row of a stage to the trackers in the settings.

    Process 0 logs. Nothing is written before the first row.

    Args:
      config: the run's config; reads `tensorboard` and `wandb_project`.
      stage: the stage that the rows belong to.

    Raises:
      InputError: if a package is not installed.
    """
    chosen = {name: config.get(name) for name in _TRACKERS if config.get(name)}
    packages = {name: _import(name, value) for name, value in chosen.items()}
    trackers = []
    with contextlib.ExitStack() as opened:

        def log(row: Row) -> None:
            if not multihost.is_first():
                return
            if not trackers:
                for name, value in chosen.items():
                    create = _TRACKERS[name][1]
                    trackers.append(create(packages[name], value, stage, row))
                    opened.callback(trackers[-1].close)
            for tracker in trackers:
                tracker.log(row)

        yield log


def _import(name: str, value: Any) -> Any:
    package, _ = _TRACKERS[name]
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{name}={value!r} needs {package}: pip install {package}"
        ) from error


def _scalars(row: Row) -> dict[str, float]:
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and name != "step"
    }
