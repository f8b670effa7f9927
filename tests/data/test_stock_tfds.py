"""Tests of stock sets of TensorFlow Datasets, prepared without TensorFlow."""

import contextlib
import io
import sys
import tarfile

import numpy as np
from small_data import check_form, create, make_config, refused


def cifar_archive(corrupt=False):
    """Writes a small tar.gz with the layout of CIFAR-10's binary version."""
    rng = np.random.default_rng(0)
    files = {}
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        images = rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
        rows = [bytes([i]) + image.tobytes() for i, image in enumerate(images)]
        files[name] = b"".join(rows)
    names = [f"class {i}" for i in range(10)]
    files["batches.meta.txt"] = "\n".join([*names, ""]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue(), files


def svhn_file(num_examples):
    """Writes a .mat file with the layout of SVHN, where label 10 is the digit 0."""
    from scipy import io as scipy_io

    labels = np.arange(num_examples) % 10 + 1
    images = np.broadcast_to(labels.astype(np.uint8), (32, 32, 3, num_examples))
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {"X": images, "y": labels[:, None]})
    return buffer.getvalue()


def corrupted_archive():
    """Writes a small tar with the layout of CIFAR-10-C, 12 examples per severity."""
    severities = np.repeat(np.arange(5, dtype=np.uint8), 12)
    images = np.broadcast_to(severities[:, None, None, None], (60, 32, 32, 3))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        arrays = {"fog": np.array(images), "labels": np.arange(60) % 4}
        for name, array in arrays.items():
            file = io.BytesIO()
            np.save(file, array)
            member = tarfile.TarInfo(f"CIFAR-10-C/{name}.npy")
            member.size = len(file.getvalue())
            file.seek(0)
            tar.addfile(member, file)
    return buffer.getvalue()


def place_downloads(monkeypatch, name, data_dir, contents):
    """Writes synthetic archives where TFDS looks for manual downloads.

    TFDS compares them with the checksums it has on record, so these are set to
    what the made-up files have.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    manual = data_dir / "downloads" / "manual"
    manual.mkdir(parents=True, exist_ok=True)
    known = tfds.builder_cls(name).url_infos
    urls = {info.filename: url for url, info in known.items()}
    for filename, content in contents.items():
        (manual / filename).write_bytes(content)
        info = checksums.compute_url_info(manual / filename)
        monkeypatch.setitem(known, urls[filename], info)


def stock_config(name, data_dir, **settings):
    config = {"source": "tfds", "name": name, "data_dir": str(data_dir)}
    config.update(image_shape=(32, 32, 3), num_classes=10, validation_size=10)
    return make_config(**{**config, **settings})


@contextlib.contextmanager
def unchanged_tensorflow_names():
    """Checks that each module's `tf` is restored."""
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.core.utils import lazy_imports_utils
    from tensorflow_datasets.image_classification import cifar

    lazy = lazy_imports_utils.tensorflow
    assert cifar.tf is lazy and extractor.tf is lazy
    yield
    assert cifar.tf is lazy and extractor.tf is lazy
    assert "tensorflow" not in sys.modules


def test_stock_cifar10_is_prepared_without_tensorflow(tmp_path, monkeypatch):
    archive, files = cifar_archive()
    config = stock_config("cifar10", tmp_path)
    place_downloads(
        monkeypatch, "cifar10", tmp_path, {"cifar-10-binary.tar.gz": archive}
    )
    with unchanged_tensorflow_names():
        dataset = create(config)
    check_form(dataset)
    assert dataset.class_names == tuple(f"class {i}" for i in range(10))
    assert [len(split.labels) for split in dataset[:3]] == [40, 10, 10]
    expected = set()
    for name, content in files.items():
        if name.startswith("data"):
            rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
            images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            expected |= {
                (label, image.tobytes())
                for label, image in zip(rows[:, 0], images, strict=True)
            }
    found = {
        (label, image.tobytes())
        for split in (dataset.train, dataset.validation)
        for image, label in zip(*split, strict=True)
    }
    assert len(found) == 50 and found == expected


def test_stock_svhn_and_corrupted_cifar10_are_prepared_too(tmp_path, monkeypatch):
    contents = {f"{part}_32x32.mat": svhn_file(40) for part in ("train", "extra")}
    contents["test_32x32.mat"] = svhn_file(10)
    place_downloads(monkeypatch, "svhn_cropped", tmp_path, contents)
    contents = {"CIFAR-10-C.tar": corrupted_archive()}
    place_downloads(monkeypatch, "cifar10_corrupted", tmp_path, contents)
    with unchanged_tensorflow_names():
        svhn = create(stock_config("svhn_cropped", tmp_path))
        fog = create(
            stock_config(
                "cifar10_corrupted/fog_3",
                tmp_path,
                train_split="test[:6]",
                test_split="test[6:]",
                validation_size=2,
            )
        )
    for split in svhn[:3]:
        np.testing.assert_array_equal(split.labels, split.images[:, 0, 0, 0] % 10)
    assert [len(split.labels) for split in fog[:3]] == [4, 2, 6]
    assert all((split.images == 2).all() for split in fog[:3])


def test_a_set_that_cannot_be_prepared_is_told_in_one_line(tmp_path, monkeypatch):
    import requests

    def no_network(*args, **kwargs):
        raise requests.ConnectionError("the network is unreachable")

    monkeypatch.setattr(requests.Session, "get", no_network)
    config = stock_config("cifar10", tmp_path)
    with unchanged_tensorflow_names():
        refused(config, "'cifar10'", tmp_path, "the network is unreachable")
        refused(config, tmp_path / "downloads" / "manual")
        manual = tmp_path / "downloads" / "manual"
        manual.mkdir()
        (manual / "cifar-10-binary.tar.gz").write_bytes(cifar_archive()[0])
        refused(config, "'cifar10'", tmp_path, "wrong checksum")
        archive = cifar_archive()[0][:-2000]
        contents = {"cifar-10-binary.tar.gz": archive}
        place_downloads(monkeypatch, "cifar10", tmp_path, contents)
        refused(config, "'cifar10'", tmp_path, "xtract")
    assert not list((tmp_path / "cifar10").iterdir())


def test_a_builder_that_needs_more_of_tensorflow_says_so(tmp_path):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import lazy_imports_utils

    class EdpNeedsTensorflow(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"x": np.int64})
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"x": tf.image.decode_png(b"")}  # noqa: F821

    module = sys.modules[__name__]
    module.tf = lazy_imports_utils.tensorflow
    try:
        config = stock_config("edp_needs_tensorflow", tmp_path)
        refused(config, "'edp_needs_tensorflow'", "needs TensorFlow (image)")
        assert module.tf is lazy_imports_utils.tensorflow
    finally:
        del module.tf
