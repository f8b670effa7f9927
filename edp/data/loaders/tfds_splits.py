"""Examples that two splits of a TFDS dataset share."""

from typing import Any

from edp.errors import InputError


def check_disjoint(name: str, builder: Any, train_split: str, test_split: str) -> None:
    """Raises an InputError if examples of the training split are in the test split.

    Args:
      name: of the dataset, for the message.
      builder: of the dataset, prepared.
      train_split: split, or slice of one in TFDS notation.
      test_split: likewise.
    """
    shared = sum(
        max(0, min(end, other_end) - max(start, other_start))
        for file, start, end in _ranges(builder, train_split)
        for other, other_start, other_end in _ranges(builder, test_split)
        if file == other
    )
    if shared:
        raise InputError(
            f"data.train_split={train_split!r} and data.test_split={test_split!r} of "
            f"TFDS set {name!r} have {shared} examples in common; accepted: splits "
            "without common examples"
        )


def _ranges(builder: Any, split: str) -> list[tuple[str, int, int]]:
    """Returns the file, the first example and the end of each range of a split."""
    parts = builder.info.splits[split].file_instructions
    return [(str(p.filename), p.skip, p.skip + p.take) for p in parts]
