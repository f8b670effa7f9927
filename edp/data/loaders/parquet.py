"""Parquet files of encoded images and labels, as the Hugging Face Hub has them.

`data.path` is a folder with files such as train-00000-of-00002.parquet and
test-00000-of-00001.parquet, in it or below it; validation files are optional. One
column has the images, structs of `bytes` and `path`; one has integer labels.
"""

import dataclasses
import io
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from edp.data.arrays import Source, Split
from edp.data.image_reader import Records
from edp.data.loaders.location import existing_directory
from edp.errors import InputError

_SPELLINGS = {"train": "train", "validation": "validation|valid|val", "test": "test"}
_LABELS = ("label", "labels", "fine_label", "target", "class")


def load_parquet(
    *, path: str | os.PathLike | None, image_shape: tuple[int, int, int], resize: str
) -> Source:
    """Reads labels and encoded images, which stay in memory undecoded.

    The column of images is the only one of structs with `bytes`; that of labels is
    the one named `label`, `labels`, `fine_label`, `target` or `class`. Class names are
    those of the Hub's metadata, if any. If there are validation but no test files,
    the validation split is the test split.

    Raises:
      InputError: if files are missing or cannot be read, or the columns are not such.
    """
    path = existing_directory(path, "parquet")
    files = sorted(p for p in path.rglob("*.parquet") if not p.name.startswith("."))
    by_part: dict[str, list[pathlib.Path]] = {}
    for file in files:
        # The name of the file tells; of `train/0000.parquet`, that of its folder.
        part = _part(file.name) or _part(file.parent.name)
        if part is not None:
            by_part.setdefault(part, []).append(file)
    if "test" not in by_part and "validation" in by_part:
        by_part["test"] = by_part.pop("validation")
    for part in ("train", "test"):
        if part not in by_part:
            raise InputError(
                f"{path} has no {part}*.parquet; it has "
                f"{', '.join(p.name for p in files[:10]) or 'no Parquet files'}"
            )
    for own in by_part.values():
        _check_shards(path, own)
    names = None
    splits: dict[str, Split] = {}
    for part, own in by_part.items():
        column, labels, found = _read(own)
        names = names or found
        encoded = _Encoded(f"{path}, {part}", column)
        records = Records(encoded, np.arange(len(labels)), image_shape, resize)
        splits[part] = Split(records, labels)
    return Source(
        origin=str(path),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        class_names=names,
    )


def _part(name: str) -> str | None:
    """Returns the split that the name of a file or folder begins with, if any."""
    for part, spelling in _SPELLINGS.items():
        if re.match(rf"({spelling})(\W|_|$)", name):
            return part
    return None


def _check_shards(path: pathlib.Path, files: Sequence[pathlib.Path]) -> None:
    """Checks that the files of a split are all shards of one configuration."""
    folders = sorted({str(file.parent) for file in files})
    if len(folders) > 1:
        raise InputError(
            f"data.path is {path}, which has several datasets ({', '.join(folders)}); "
            "give the folder of one of them"
        )
    for file in files:
        # Some names end in a digest of the content.
        total = re.search(r"-of-(\d+)(-[0-9a-f]+)?\.parquet$", file.name)
        if total and int(total[1]) != len(files):
            raise InputError(
                f"{file.parent} has {len(files)} files of which {file.name} is one; "
                f"there must be {int(total[1])}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class _Encoded:
    """Encoded images of one split, in a column of a `pyarrow.Table`."""

    where: str
    column: Any

    def fetch(self, indices: Sequence[int]) -> list[io.BytesIO]:
        """Returns the encoded images."""
        return [io.BytesIO(self._bytes(index)) for index in indices]

    def describe(self, index: int) -> str:
        """Names the split and the row."""
        return f"{self.where}: row {index}"

    def fingerprint(self, index: int) -> bytes:
        """Returns the encoded image."""
        return self._bytes(index)

    def _bytes(self, index: int) -> bytes:
        return self.column[index].as_py() or b""


def _read(
    files: Sequence[pathlib.Path],
) -> tuple[Any, np.ndarray, tuple[str, ...] | None]:
    """Returns a column of encoded images, int32 labels [N] and the class names."""
    import pyarrow as pa  # slow to import
    import pyarrow.compute as pc
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(files[0])
        image, label = _columns(files[0], schema)
        table = pa.concat_tables(
            [parquet.read_table(file, columns=[image, label]) for file in files]
        )
        encoded = table.column(image)
        if pa.types.is_struct(encoded.type):
            encoded = pc.struct_field(encoded, "bytes")
        labels = table.column(label)
        if labels.null_count or encoded.null_count:
            raise InputError(
                f"{files[0].parent}: {image} or {label} has empty rows; every image "
                "must be in the file and have a label"
            )
        values = labels.to_numpy()
    except (pa.ArrowException, OSError) as error:
        first, *_ = str(error).splitlines() or [""]
        raise InputError(f"{files[0]} cannot be read: {first}") from error
    return encoded, np.asarray(values, np.int32), _names(schema, label)


def _columns(path: pathlib.Path, schema: Any) -> tuple[str, str]:
    """Returns the names of the columns of images and of labels."""
    import pyarrow as pa

    def has_bytes(kind):
        fields = kind.fields if pa.types.is_struct(kind) else []
        return any(field.name == "bytes" for field in fields)

    images = [f.name for f in schema if has_bytes(f.type) or pa.types.is_binary(f.type)]
    labels = [
        name
        for name in _LABELS
        if name in schema.names and pa.types.is_integer(schema.field(name).type)
    ]
    if len(images) != 1 or not labels:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(
            f"{path} has the columns {kinds}; it must have one of images (a struct "
            f"with bytes) and one of integers named {', '.join(_LABELS)}"
        )
    return images[0], labels[0]


def _names(schema: Any, label: str) -> tuple[str, ...] | None:
    """Returns the class names in the Hub's metadata, if any."""
    try:
        metadata_json = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(map(str, metadata_json["info"]["features"][label]["names"]))
    except (KeyError, TypeError, ValueError):
        return None
