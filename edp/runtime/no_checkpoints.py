"""Checkpoints of training that writes nothing."""

from typing import Any


class NoCheckpoints:
    """The interface of `checkpoint.Checkpoints`; keeps nothing."""

    blocked_seconds = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def save(self, step: int, tree: Any, record: dict[str, Any]) -> None:
        pass

    def poll(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def restore_latest(self, like: Any) -> None:
        return None

    def newest(self) -> None:
        return None
