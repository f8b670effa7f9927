"""Metrics of training steps: read from the device, averaged, logged by epoch."""

import json
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
import tqdm

from edp.runtime import multihost, storage

# Metric -> value, of one step.
Row = dict[str, float]


def read(dispatches: list[dict[str, Any]]) -> list[Row]:
    """Reads the metrics of each step, averaged over members, in one transfer.

    Args:
      dispatches: of each dispatch of n steps, its metrics, each [n] or [n, M].
    """
    return [
        {name: float(np.mean(values[i])) for name, values in metrics.items()}
        for metrics in jax.device_get(dispatches)
        for i in range(len(metrics["loss"]))
    ]


def taken(rows: list[Row]) -> list[Row]:
    """Returns the rows of the steps that were not skipped, without `skipped`."""
    return [
        {name: value for name, value in row.items() if name != "skipped"}
        for row in rows
        if not row.get("skipped")
    ]


def means(rows: list[Row]) -> Row:
    """Averages the steps taken; adds `skipped_steps`, if there were any."""
    kept = taken(rows)
    result = {name: float(np.mean([row[name] for row in kept])) for name in kept[0]}
    skipped = len(rows) - len(kept)
    return {**result, "skipped_steps": skipped} if skipped else result


def truncate(path: pathlib.Path, step: int) -> None:
    """Drops rows logged after `step`, from which training resumes.

    Also drops damaged lines, such as one cut off when the process was killed.
    """
    if not path.exists():
        return
    lines = path.read_bytes().decode(errors="replace").splitlines(True)
    storage.write_text(path, "".join(line for line in lines if _is_until(line, step)))


def _is_until(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (KeyError, TypeError, ValueError):
        return False


# Least time between two losses in a terminal's bar; reading one waits for the device.
_REFRESH_SECONDS = 1.0


class Progress:
    """Progress on stderr of process 0: a bar on a terminal, else a line per epoch."""

    def __init__(
        self,
        label: str,
        *,
        num_epochs: int,
        num_steps: int,
        images_per_step: int,
        step: int,
    ):
        """Begins at `step` of `num_steps`."""
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

    def epoch(self, row: dict[str, Any]) -> None:
        """Ends an epoch with its row of the log."""
        now = time.monotonic()
        images = self._epoch_steps * self._images_per_step
        speed = images / max(now - self._epoch_started, 1e-9)
        self._epoch_started, self._epoch_steps = now, 0
        if self._shown and not self._interactive:
            values = "  ".join(
                f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in row.items()
                if name not in ("epoch", "step")
            )
            print(
                f"{self._label}  epoch {row['epoch']}/{self._num_epochs}  {values}"
                f"  {speed:,.0f} images/s",
                file=sys.stderr,
                flush=True,
            )
