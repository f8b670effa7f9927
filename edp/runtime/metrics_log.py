"""The metrics of training steps: read from the device, averaged, logged by epoch."""

import json
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
import tqdm

from edp.runtime import multihost, storage

# By metric; one step's.
Row = dict[str, float]


def read(dispatches: list[dict[str, Any]]) -> list[Row]:
    """The metrics of each step, of members their mean; one transfer for all of them.

    Args:
      dispatches: by metric, of the steps of each [n] or [n, M].
    """
    return [
        {name: float(np.mean(values[i])) for name, values in metrics.items()}
        for metrics in jax.device_get(dispatches)
        for i in range(len(metrics["loss"]))
    ]


def taken(rows: list[Row]) -> list[Row]:
    """The rows of steps that were not skipped, without what says so."""
    return [
        {name: value for name, value in row.items() if name != "skipped"}
        for row in rows
        if not row.get("skipped")
    ]


def means(rows: list[Row]) -> Row:
    """Over the steps taken; and the number of the others, if there were any."""
    kept = taken(rows)
    result = {name: float(np.mean([row[name] for row in kept])) for name in kept[0]}
    skipped = len(rows) - len(kept)
    return {**result, "skipped_steps": skipped} if skipped else result


def truncate(path: pathlib.Path, step: int) -> None:
    """Drops what was logged after `step`, from which training goes on.

    And lines that are damaged, as one cut off when the process was killed.
    """
    if not path.exists():
        return
    lines = path.read_bytes().decode(errors="replace").splitlines(True)
    storage.write_text(path, "".join(line for line in lines if _is_by(line, step)))


def _is_by(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (KeyError, TypeError, ValueError):
        return False


# How often a terminal's bar shows a new loss; reading it waits for the device.
_REFRESH_SECONDS = 1.0


class Progress:
    """A bar on a terminal, a line per epoch elsewhere; of several processes one's."""

    def __init__(
        self,
        label: str,
        *,
        num_epochs: int,
        num_steps: int,
        images_per_step: int,
        step: int,
    ):
        """Of `num_steps` in all, from `step` on."""
        self._label, self._num_epochs = label, num_epochs
        self._images_per_step = images_per_step
        self._shown = multihost.is_first()
        self._interactive = self._shown and sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            desc=label,
            total=num_steps * images_per_step,
            initial=step * images_per_step,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self._interactive,
        )
        self._epoch_started = self._refreshed = time.monotonic()
        self._epoch_steps = 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._bar.close()

    def steps(self, size: int, metrics: dict[str, jax.Array]) -> None:
        self._epoch_steps += size
        self._bar.update(size * self._images_per_step)
        now = time.monotonic()
        if self._interactive and now - self._refreshed > _REFRESH_SECONDS:
            self._bar.set_postfix(loss=f"{np.mean(metrics['loss']):.4f}")
            self._refreshed = now

    def epoch(self, epoch: int, means: dict[str, float]) -> None:
        now = time.monotonic()
        images = self._epoch_steps * self._images_per_step
        speed = images / max(now - self._epoch_started, 1e-9)
        self._epoch_started, self._epoch_steps = now, 0
        if self._shown and not self._interactive:
            values = "  ".join(
                f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in means.items()
            )
            print(
                f"{self._label}  epoch {epoch}/{self._num_epochs}  {values}"
                f"  {speed:,.0f} images/s",
                file=sys.stderr,
                flush=True,
            )
