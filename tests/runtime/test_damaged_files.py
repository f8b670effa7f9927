"""Tests that damaged JSON and .npz files of a run are named."""

import numpy as np
import pytest

from edp.errors import InputError
from edp.report import files
from edp.runtime import storage
from edp.runtime.stage import read_record


def test_wrong_json_is_named(tmp_path):
    for text, words in (
        ("[]", "complete.json is damaged; accepted: a JSON object"),
        ('{"id": 1}', "complete.json is damaged: num_params, train_seconds is missing"),
        ("\xff", "complete.json is not valid JSON"),
    ):
        (tmp_path / "complete.json").write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=words):
            read_record(tmp_path)


@pytest.mark.parametrize("name", ["split.npz", "gallery.npz"])
def test_an_npz_with_any_bit_flipped_is_read_or_refused_by_name(name, tmp_path):
    """In whatever layer the bit is: zip, deflate, or the header of an array."""
    path = tmp_path / name
    arrays = {"a": np.arange(40), "b": np.float32(3), "names": np.array(["x", "yz"])}
    write = np.savez if name == "split.npz" else np.savez_compressed
    write(path, **arrays)
    data = path.read_bytes()
    refused = 0
    for at in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            storage.read_npz(path)
        except InputError as error:
            refused += 1
            assert name in str(error)
        found, why = files.read(path, files.load_arrays(*arrays))
        assert (found is None) == bool(why)
    assert refused > len(data) / 9
