"""Times reading a data set of small images, beside torchvision and `datasets`.

    python -m benchmarks.reading                 # 60,000 images of 32x32
    python -m benchmarks.reading --images=6000   # seconds

Writes the same images as a folder of PNG files, as Parquet files and as an .npz, and
reads each from the first file found to the last pixel in memory, in a process of its
own. Contenders alternate, so that they share the drift of the machine. torchvision and
`datasets` are left out where they are not installed; without torchvision, PyTorch's
loader reads the files as `ImageFolder` does.
"""

import importlib
import io
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import app, flags
from PIL import Image

from edp import data

_SIDE, _CLASSES, _BATCH, _WORKERS = 32, 10, 256, 2
_IMAGES = flags.DEFINE_integer("images", 60_000, "Number of images.", 120)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each contender.", 1)
_ONE = flags.DEFINE_string("one", "", "Times this contender once, for the others.")
_ROOT = flags.DEFINE_string("root", "", "Directory to keep the images in.")


def write_images(root: pathlib.Path, number: int) -> None:
    """Writes the images: five sixths for training, the others for testing.

    They are smooth with some noise, so that they compress as photographs do.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (number, 4, 4, 3), np.uint8)
    images = np.empty((number, _SIDE, _SIDE, 3), np.uint8)
    for image, small in zip(images, coarse, strict=True):
        image[:] = Image.fromarray(small).resize((_SIDE, _SIDE), Image.BICUBIC)
    noise = rng.integers(-8, 8, images.shape, np.int8)
    images = np.clip(images.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    labels = np.arange(number) % _CLASSES
    parts = {"train": slice(number // 6, None), "test": slice(number // 6)}
    arrays = {}
    for part, chosen in parts.items():
        arrays |= {f"{part}_images": images[chosen], f"{part}_labels": labels[chosen]}
        encoded = []
        for i, (image, label) in enumerate(
            zip(images[chosen], labels[chosen], strict=True)
        ):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            encoded.append({"bytes": file.getvalue(), "path": None})
            path = root / "folder" / part / str(label) / f"{i:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
        (root / "parquet").mkdir(exist_ok=True)
        table = pa.table({"image": encoded, "label": labels[chosen]})
        parquet.write_table(table, root / "parquet" / f"{part}-00000-of-00001.parquet")
    np.savez(root / "arrays.npz", **arrays)


def _edp(source: str, path: str) -> Callable[[pathlib.Path], int]:
    def read(root: pathlib.Path) -> int:
        config = {
            "source": source,
            "path": str(root / path),
            "image_shape": (_SIDE, _SIDE, 3),
            "num_classes": _CLASSES,
            "validation_size": 100,
        }
        dataset = data.create_dataset(config, seed=0)
        return sum(len(split.images) for split in dataset[:3])

    return read


def _edp_streamed(root: pathlib.Path) -> int:
    config = {
        "source": "folder",
        "path": str(root / "folder"),
        "image_shape": (_SIDE, _SIDE, 3),
        "num_classes": _CLASSES,
        "validation_size": 100,
        "stream": True,
    }
    number = 0
    for split in data.create_dataset(config, seed=0)[:3]:
        for start in range(0, len(split.labels), _BATCH):
            number += len(split.images[start : start + _BATCH])
    return number


def _image_folder(root: pathlib.Path) -> int:
    """Reads batches with torchvision's `ImageFolder` and two workers."""
    import torch

    number = 0
    for part in ("train", "test"):
        dataset = _torch_dataset(root / "folder" / part)
        loader = torch.utils.data.DataLoader(dataset, _BATCH, num_workers=_WORKERS)
        number += sum(len(images) for images, _ in loader)
    return number


def _torch_dataset(path: pathlib.Path):
    try:
        from torchvision import datasets, transforms
    except (ImportError, RuntimeError):
        print("without torchvision", file=sys.stderr)
        return _PlainFolder(path)
    return datasets.ImageFolder(path, transforms.PILToTensor())


class _PlainFolder:
    """What `ImageFolder` does, where torchvision is not installed."""

    def __init__(self, path: pathlib.Path):
        self._files = [
            (file, label)
            for label, directory in enumerate(sorted(path.iterdir()))
            for file in sorted(directory.iterdir())
        ]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int):
        import torch

        file, label = self._files[index]
        with file.open("rb") as opened:
            pixels = np.array(Image.open(opened).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1), label


def _hub_datasets(root: pathlib.Path) -> int:
    """Reads batches with `datasets`, in this process."""
    import datasets

    number = 0
    for part in ("train", "test"):
        file = str(root / "parquet" / f"{part}-00000-of-00001.parquet")
        dataset = datasets.Dataset.from_parquet(file, cache_dir=root / "cache")
        dataset = dataset.cast_column("image", datasets.Image()).with_format("numpy")
        number += sum(len(batch["image"]) for batch in dataset.iter(_BATCH))
    return number


# Name -> what it is, the module that it needs, and the function to time.
CONTENDERS = {
    "edp folder": ("data.source=folder", "edp", _edp("folder", "folder")),
    "edp folder, streamed": ("the same in batches of 256", "edp", _edp_streamed),
    "edp parquet": ("data.source=parquet", "edp", _edp("parquet", "parquet")),
    "edp npz": ("data.source=npz", "edp", _edp("npz", "arrays.npz")),
    "ImageFolder": (f"{_WORKERS} workers, batches of 256", "torch", _image_folder),
    "datasets": ("Parquet, batches of 256", "datasets", _hub_datasets),
}


def main(argv: list[str]) -> None:
    del argv
    if _ONE.value:
        _, module, read = CONTENDERS[_ONE.value]
        importlib.import_module(module)  # not timed
        before = time.perf_counter()
        number = read(pathlib.Path(_ROOT.value))
        print(number / (time.perf_counter() - before))
        return
    with tempfile.TemporaryDirectory() as scratch:
        directory = _ROOT.value or scratch
        if not (pathlib.Path(directory) / "arrays.npz").exists():
            write_images(pathlib.Path(directory), _IMAGES.value)
        speeds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(_ROUNDS.value):
            for name in CONTENDERS:
                speeds[name] += _time_one(name, directory)
    print(f"{_IMAGES.value} images, {len(os.sched_getaffinity(0))} cores")
    print("| contender | images/s |\n| --- | ---: |")
    for name, (what, *_) in CONTENDERS.items():
        median = statistics.median(speeds[name]) if speeds[name] else float("nan")
        print(f"| {name} ({what}) | {median:,.0f} |")


def _time_one(name: str, directory: str) -> Iterator[float]:
    """Yields the images per second of one turn; nothing if it cannot be timed."""
    command = [sys.executable, "-m", "benchmarks.reading", f"--one={name}"]
    done = subprocess.run(
        [*command, f"--root={directory}"], capture_output=True, text=True
    )
    if done.returncode:
        print(f"{name} was left out: {done.stderr.strip().splitlines()[-1]}")
    else:
        yield float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    app.run(main)
