"""What is logged of training, where others show it: TensorBoard, Weights & Biases.

Of each stage, the rows of its `metrics.jsonl`, as they come. Neither package is needed
for anything else; each is imported when it is asked for.
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


class Stage(NamedTuple):
    """Whose training it is.

    Attributes:
      directory: of the run.
      path: of the stage's own files, in that directory.
      label: of the stage: `teachers` or a student's name.
      settings: that the stage depends on.
    """

    directory: pathlib.Path
    path: pathlib.Path
    label: str
    settings: Mapping[str, Any]


class _TensorBoard:
    """Event files in `tensorboard/<label>`; steps are those of the optimizer."""

    def __init__(self, package: Any, chosen: bool, stage: Stage, first: Row):
        # What was logged after the checkpoint that training went on from is not shown.
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
    """A run of the project for each stage, the stages of one workdir in a group."""

    def __init__(self, package: Any, chosen: str, stage: Stage, first: Row):
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


def _wandb_id(stage: Stage) -> str:
    """Returns the id of the stage's run there, which it draws and keeps if need be.

    So a stage that goes on is the same run, though the workdir be moved; one that is
    trained anew is another, also in the same place.

    Raises:
      InputError: for a file that is damaged.
    """
    path = stage.path / "wandb.json"
    if not path.exists():
        storage.write_json(path, {"id": uuid.uuid4().hex})
    found = storage.read_mapping(path).get("id")
    if not isinstance(found, str) or not found:
        raise InputError(
            f"{path} is damaged: an id is expected in it; remove it to have the stage "
            "logged as a new run"
        )
    return found


# By setting: the package, and what writes to it.
_TRACKERS = {
    "tensorboard": ("tensorboardX", _TensorBoard),
    "wandb_project": ("wandb", _WandB),
}


@contextlib.contextmanager
def open_trackers(
    config: Mapping[str, Any], stage: Stage
) -> Iterator[Callable[[Row], None]]:
    """While open, the function logs a row of a stage wherever the settings ask for.

    Of several processes the first does. Nothing is written before the first row.

    Args:
      config: of the run; reads `tensorboard` and `wandb_project`.
      stage: whose rows they are.

    Raises:
      InputError: a package that is not installed.
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
