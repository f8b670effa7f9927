"""Small copies of published data sets, in the layouts in which they are distributed."""

import pathlib

import numpy as np
from PIL import Image

NUM_CLASSES = 10


def images(number, side, channels, seed=0):
    """Returns uint8 images of a brightness by class, and labels 0, 1, ..., 9, 0, ..."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % NUM_CLASSES
    noise = rng.integers(0, 40, (number, side, side, channels))
    return np.uint8(20 * labels[:, None, None, None] + noise), labels


def medmnist(root: pathlib.Path) -> dict:
    """Writes an .npz with grey images [N, 28, 28] and labels [N, 1]."""
    arrays = {}
    for seed, (part, number) in enumerate({"train": 60, "val": 20, "test": 30}.items()):
        x, y = images(number, 28, 1, seed)
        arrays |= {f"{part}_images": x[..., 0], f"{part}_labels": y[:, None]}
    np.savez(root / "medmnist.npz", **arrays)
    return {
        "source": "npz",
        "path": str(root / "medmnist.npz"),
        "image_shape": (28, 28, 1),
        "downsample": 2,
    }


def tiny_imagenet(root: pathlib.Path) -> dict:
    """Writes train/<wnid>/images, val/images with val_annotations.txt, words.txt."""
    base = root / "tiny-imagenet-200"
    wnids = [f"n{10 - k:08}" for k in range(NUM_CLASSES)]  # not in the order of words
    lines = []
    for part, number in (("train", 80), ("val", 30)):
        for i, (x, label) in enumerate(zip(*images(number, 64, 3), strict=True)):
            folder = base / part / wnids[label] if part == "train" else base / part
            name = f"{wnids[label]}_{i}.JPEG" if part == "train" else f"val_{i}.JPEG"
            (folder / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(folder / "images" / name, quality=95)
            if part == "val":
                lines.append(f"{name}\t{wnids[label]}\t0\t0\t63\t63")
    (base / "val/val_annotations.txt").write_text("\n".join(lines))
    words = [f"{wnid}\tthing {label}" for label, wnid in enumerate(wnids)]
    (base / "words.txt").write_text("\n".join(words))
    return {
        "source": "folder",
        "path": str(base),
        "image_shape": (64, 64, 3),
        "downsample": 4,
    }


def cifar10(root: pathlib.Path) -> dict:
    """Writes the binary version of CIFAR-10."""
    base = root / "cifar-10-batches-bin"
    base.mkdir()
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for seed, name in enumerate(names):
        x, y = images(30, 32, 3, seed)
        rows = [
            bytes([k]) + i.transpose(2, 0, 1).tobytes()
            for i, k in zip(x, y, strict=True)
        ]
        (base / name).write_bytes(b"".join(rows))
    (base / "batches.meta.txt").write_text("\n".join(f"thing{k}" for k in range(10)))
    return {
        "source": "cifar",
        "path": str(base),
        "image_shape": (32, 32, 3),
        "downsample": 2,
    }


def cifar10_c(root: pathlib.Path) -> str:
    """Writes CIFAR-10-C: the test images of `cifar10`, darker with the severity."""
    base = root / "CIFAR-10-C"
    base.mkdir()
    x, y = images(30, 32, 3, 5)
    for name in ("frost", "snow"):
        darker = [np.uint8(x * (1 - severity / 6)) for severity in range(1, 6)]
        np.save(base / f"{name}.npy", np.concatenate(darker))
    np.save(base / "labels.npy", np.tile(np.uint8(y), 5))
    return str(base)


def cifar10h(root: pathlib.Path) -> str:
    """Writes cifar10h-probs.npy: nine tenths for the label, the rest for the next."""
    labels = np.arange(30) % NUM_CLASSES
    probs = 0.9 * np.eye(NUM_CLASSES)[labels]
    probs += 0.1 * np.eye(NUM_CLASSES)[(labels + 1) % NUM_CLASSES]
    np.save(root / "cifar10h-probs.npy", probs)
    return str(root / "cifar10h-probs.npy")
