"""TensorFlow Datasets (TFDS), read and prepared without TensorFlow.

TFDS reads array_record files with NumPy alone. Preparing a dataset uses TensorFlow:
`tf.io.gfile` to open files, `tf.image` to encode images, and TensorFlow's files to
shuffle large datasets. During preparation, Python's `open`, Pillow and memory replace
them. No module named tensorflow is created or imported.
"""

import contextlib
import dataclasses
import io
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from edp.data.arrays import Source, Split
from edp.data.image_reader import WHOLE, Records
from edp.data.loaders.tfds_splits import check_disjoint
from edp.errors import InputError

_READ_SIZE = 1024  # records per read
_NUM_RETRIES = 4  # of downloads; fails after seconds, TFDS's default after minutes


def load_tfds(
    *,
    name: str | None,
    data_dir: str | os.PathLike | None,
    train_split: str,
    test_split: str,
    image_shape: tuple[int, int, int],
    resize: str,
    known_labels: Mapping[str, np.ndarray],
) -> Source:
    """Opens an image classification dataset by its TFDS name.

    A dataset that is not in `data_dir` is first downloaded and prepared there.
    Without a network, archives in `data_dir/downloads/manual` are used. Examples
    are in TFDS's order: the same on every machine, and shuffled once by TFDS for most
    datasets.

    Args:
      name: TFDS name, such as 'cifar10' or 'cifar10_corrupted/fog_3:1.0.0'.
      data_dir: TFDS data directory; None for the TFDS default.
      train_split: split, or slice of one in TFDS notation, to train with.
      test_split: split to test with.
      image_shape: (H, W, C) of the images.
      resize: see `Records`.
      known_labels: labels by split, 'train' and 'test'; those of a missing split, or
        of other examples, are read from the examples.

    Raises:
      InputError: if TFDS does not know the dataset, it cannot be prepared or read, it
        does not consist of images of this shape and integer labels, or the two splits
        have examples in common.
    """
    if not name:
        raise InputError(f"data.name is {name!r}; the source 'tfds' needs a TFDS name")
    with _quiet():
        import tensorflow_datasets as tfds

        builder = _prepared_builder(tfds, name, data_dir)
        image_key, label_key = _supervised_keys(tfds, name, builder)
        _check_image(name, builder.info.features[image_key].shape, image_shape, resize)

        def find(part: str, split: str) -> Split:
            examples = _open_split(tfds, name, builder, split, image_key, label_key)
            labels = known_labels.get(part, np.empty(0))
            if len(labels) != len(examples) or not examples.agree(labels):
                labels = examples.read_labels()
            everything = np.arange(len(examples))
            return Split(Records(examples, everything, image_shape, resize), labels)

        train, test = find("train", train_split), find("test", test_split)
        check_disjoint(name, builder, train_split, test_split)
    names = getattr(builder.info.features[label_key], "names", None) or ()
    return Source(f"TFDS set {name!r}", train, None, test, tuple(names) or None)


def open_tfds_images(
    name: str,
    *,
    data_dir: str | os.PathLike | None,
    image_shape: tuple[int, int, int],
    setting: str,
) -> Records:
    """Opens the test split of a dataset, read as images of another shape.

    Args:
      name: see `load_tfds`.
      data_dir: see `load_tfds`.
      image_shape: (H, W, C) to which whole images are resized.
      setting: the setting that holds `name`, for messages.

    Raises:
      InputError: as `load_tfds`, except for the shape.
    """
    with _quiet():
        import tensorflow_datasets as tfds

        builder = _prepared_builder(tfds, name, data_dir, setting)
        keys = _supervised_keys(tfds, name, builder)
        examples = _open_split(tfds, name, builder, "test", *keys)
    return Records(examples, np.arange(len(examples)), image_shape, WHOLE)


def _prepared_builder(
    tfds: Any,
    name: str,
    data_dir: str | os.PathLike | None,
    setting: str = "data.name",
) -> Any:
    """Returns the builder of a dataset, preparing it if it is not on disk."""
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        raise InputError(
            f"{setting} is {name!r} (data_dir {data_dir}), which TFDS does not "
            f"accept: {_one_line(error)}"
        ) from error
    if not builder.is_prepared():
        try:
            with _without_tensorflow(tfds, builder):
                builder.download_and_prepare(file_format="array_record")
        except Exception as error:
            raise InputError(
                f"TFDS set {name!r} is not in {builder.data_dir} and cannot be "
                f"prepared there: {_one_line(error)}. Copy that directory from a "
                "machine where it was prepared as array_record, or put the set's "
                f"archives in {builder.data_dir_root / 'downloads' / 'manual'}"
            ) from error
    formats = builder.info.available_file_formats()
    if formats.isdisjoint(tfds.core.FileFormat.with_random_access()):
        raise InputError(
            f"TFDS set {name!r} in {builder.data_dir} is stored as "
            f"{builder.info.file_format.value}, which only TensorFlow reads; with "
            "another data_dir it is prepared as array_record"
        )
    return builder


def _supervised_keys(tfds: Any, name: str, builder: Any) -> tuple[str, str]:
    """Returns the keys of the image and the label features."""
    keys, features = builder.info.supervised_keys, builder.info.features
    if (
        not isinstance(keys, tuple)
        or len(keys) != 2
        or not all(isinstance(key, str) for key in keys)
        or not isinstance(features[keys[0]], tfds.features.Image)
        or features[keys[0]].np_dtype != np.uint8
        or features[keys[1]].shape != ()
        or not np.issubdtype(features[keys[1]].np_dtype, np.integer)
    ):
        raise InputError(
            f"TFDS set {name!r} has supervised_keys {keys}; it must have a uint8 "
            "image and an integer label there"
        )
    return keys


def _check_image(
    name: str,
    known_shape: tuple[int | None, ...],
    image_shape: tuple[int, int, int],
    resize: str,
) -> None:
    """Raises an InputError if the declared shape does not match `image_shape`."""
    expected_shape = known_shape if resize == "none" else (None, None, known_shape[-1])
    if any(
        t not in (None, s) for t, s in zip(expected_shape, image_shape, strict=True)
    ):
        raise InputError(
            f"data.image_shape is {image_shape}, but the images of TFDS set {name!r} "
            f"are {known_shape}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Examples:
    """Examples of one split: an `Encoded` that `Records` reads."""

    where: str
    serialized: Any  # random access to bytes
    features: Any
    image_key: str
    label_key: str

    def __len__(self) -> int:
        return len(self.serialized)

    def fetch(self, indices: Sequence[int]) -> list[io.BytesIO]:
        """Returns the encoded images."""
        return [io.BytesIO(image) for image in self._read(self.image_key, indices)]

    def describe(self, index: int) -> str:
        return f"{self.where}: example {index}"

    def fingerprint(self, index: int) -> bytes:
        """Returns the stored example: the encoded image, its label and the rest."""
        return self.serialized.__getitems__([index])[0]

    def agree(self, labels: np.ndarray) -> bool:
        """Compares labels [N] with those of 64 examples, spread evenly."""
        some = np.linspace(0, len(self) - 1, 64, dtype=int).tolist()
        return np.array_equal(labels[some], self._read(self.label_key, some))

    def read_labels(self) -> np.ndarray:
        """Reads all labels, int64 [N]; reads every example, without decoding images."""
        starts = range(0, len(self), _READ_SIZE)
        ranges = (range(s, min(s + _READ_SIZE, len(self))) for s in starts)
        labels = [label for r in ranges for label in self._read(self.label_key, r)]
        return np.asarray(labels, np.int64)

    def _read(self, key: str, indices: Sequence[int]) -> list[Any]:
        """Returns one feature of some examples; the image as stored, encoded."""
        import tensorflow_datasets as tfds

        feature = tfds.features.FeaturesDict({key: self.features[key]})
        stored = {self.image_key: tfds.decode.SkipDecoding()}
        decoders = stored if key == self.image_key else None
        try:
            return [
                feature.deserialize_example_np(example, decoders=decoders)[key]
                for example in self.serialized.__getitems__(list(indices))
            ]
        except Exception as error:
            raise InputError(
                f"{self.where}: examples {indices[0]} to {indices[-1]} cannot be "
                f"read: {_one_line(error)}"
            ) from error


def _open_split(
    tfds: Any, name: str, builder: Any, split: str, image_key: str, label_key: str
) -> _Examples:
    try:
        serialized = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
    except Exception as error:
        raise InputError(
            f"split {split!r} of TFDS set {name!r} in {builder.data_dir} cannot be "
            f"opened: {_one_line(error)} (splits: {', '.join(builder.info.splits)})"
        ) from error
    where = f"TFDS set {name!r}, split {split!r}"
    features = builder.info.features
    return _Examples(where, serialized, features, image_key, label_key)


def _one_line(error: BaseException) -> str:
    """Returns the first line of an error, at most 400 characters."""
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0][:400]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences TFDS's warnings and progress bars; errors are still raised."""
    import tensorflow_datasets as tfds

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.display_progress_bar(enable=False)
    try:
        yield
    finally:
        tfds.display_progress_bar(enable=True)
        logging.set_verbosity(verbosity)


class _PlainFiles(types.SimpleNamespace):
    """Stand-in for the parts of TensorFlow that plain Python can replace."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this set needs TensorFlow ({name}) to be prepared")


_TF = _PlainFiles(
    io=_PlainFiles(gfile=_PlainFiles(GFile=open)),
    compat=_PlainFiles(as_text=os.fsdecode),
)


@contextlib.contextmanager
def _without_tensorflow(tfds: Any, builder: Any) -> Iterator[None]:
    """Lets `builder` prepare its dataset without TensorFlow; restores on exit.

    Replaces module globals: `tf` where it is TFDS's lazy import of TensorFlow, the
    shuffler's memory limit (beyond it, TensorFlow writes files), and the number of
    download retries.
    """
    from tensorflow_datasets.core import shuffle
    from tensorflow_datasets.core.download import downloader, extractor
    from tensorflow_datasets.core.utils import lazy_imports_utils

    modules = {sys.modules[base.__module__] for base in type(builder).__mro__}
    with contextlib.ExitStack() as stack:
        for module in {extractor, *modules}:
            if vars(module).get("tf") is lazy_imports_utils.tensorflow:
                stack.enter_context(_replaced(module, "tf", _TF))
        stack.enter_context(_replaced(shuffle, "MAX_MEM_BUFFER_SIZE", sys.maxsize))
        stack.enter_context(_replaced(downloader, "MAX_RETRIES", _NUM_RETRIES))
        for feature in builder.info.features.values():
            if isinstance(feature, tfds.features.Image):
                encode = _png_encoder(feature.encode_example)
                stack.enter_context(_replaced(feature, "encode_example", encode))
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute of `owner` within the block."""
    missing = object()
    before = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _png_encoder(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Wraps an image feature's encoder to write uint8 arrays with Pillow.

    Arrays are always written as PNG (lossless), which TFDS decodes whatever the
    feature's format; other inputs are passed on unchanged.
    """

    def encode_example(image: Any) -> bytes:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            return encode(image)
        pixels = image[..., 0] if image.shape[-1:] == (1,) else image
        with io.BytesIO() as buffer:
            Image.fromarray(pixels).save(buffer, "png")
            return buffer.getvalue()

    return encode_example
