"""Tests of whole runs on small copies of published data sets, as they unpack."""

import json

import numpy as np
import pytest
import small_copies
from launching import succeed, tiny

from edp import data

SIZES = {"train_size": 60, "validation_size": 20, "test_size": 30}


@pytest.mark.parametrize("write", ["medmnist", "tiny_imagenet", "cifar10"])
def test_every_copy_is_read_with_its_own_labels(write, tmp_path):
    settings = getattr(small_copies, write)(tmp_path)
    config = {"num_classes": 10, **SIZES, **settings}
    dataset = data.create_dataset(config, seed=0)
    assert [len(split.labels) for split in dataset[:3]] == [60, 20, 30]
    for split in dataset[:3]:
        # The images of a class are brighter than those of the class before.
        brightness = split.images.mean(axis=(1, 2, 3))
        means = [brightness[split.labels == label].mean() for label in range(10)]
        # Those of Tiny ImageNet are darker, as its wnids are in reverse.
        assert (np.diff(means) * (-1 if write == "tiny_imagenet" else 1) > 10).all()
    if write == "tiny_imagenet":
        assert dataset.class_names == tuple(f"thing {k}" for k in range(9, -1, -1))


@pytest.mark.long
@pytest.mark.parametrize("write", ["medmnist", "tiny_imagenet", "cifar10"])
def test_a_run_on_each(write, server, tmp_path):
    settings = getattr(small_copies, write)(tmp_path)
    flags = [f"--config.data.{key}={value}" for key, value in settings.items()]
    flags += [f"--config.data.{key}={n}" for key, n in SIZES.items()]
    if write == "cifar10":
        flags.append(
            f"--config.evaluation.corruptions={small_copies.cifar10_c(tmp_path)}"
        )
        flags.append(
            f"--config.evaluation.soft_labels={small_copies.cifar10h(tmp_path)}"
        )
    workdir = tmp_path / "run"
    succeed(server.run("run", *tiny(workdir, "single_none,single_conf_ods"), *flags))
    rows = json.loads((workdir / "results.json").read_text())
    assert (workdir / "report.html").exists() and len(rows) >= 3
    if write == "cifar10":
        assert all(row["soft_kl"] > 0 for row in rows)
        corrupted = json.loads((workdir / "corruptions.json").read_text())["rows"]
        assert {row["corruption"] for row in corrupted} == {
            *("none", "CIFAR-10-C/frost", "CIFAR-10-C/snow", "CIFAR-10-C/mean")
        }
