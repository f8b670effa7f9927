"""Tests of the benchmark of reading."""

import pytest

from benchmarks import reading


def test_every_contender_of_ours_reads_every_image(tmp_path):
    reading.write_images(tmp_path, 240)
    for name, (_, module, read) in reading.CONTENDERS.items():
        if module == "edp":
            assert read(tmp_path) == 240, name
    assert len(reading._PlainFolder(tmp_path / "folder/train")) == 200


def test_torch_reads_them_too(tmp_path):
    pytest.importorskip("torch")
    reading.write_images(tmp_path, 240)
    assert reading._image_folder(tmp_path) == 240
