"""Tests of soft labels of test and of training images."""

import numpy as np
import pytest
from small_data import create, numbered, write_npz

from edp import data
from edp.errors import InputError

LABELS = numbered(9)[1]


@pytest.fixture
def dataset(tmp_path):
    """A dataset with 9 test images of 3 classes."""
    return create(write_npz(tmp_path / "set.npz"))


def soft(share=0.8):
    """Returns probabilities [9, 3]: `share` for the label, the rest for the next."""
    rows = np.zeros((9, 3))
    rows[np.arange(9), LABELS] = share
    rows[np.arange(9), (LABELS + 1) % 3] = 1 - share
    return rows


def save(tmp_path, rows, name="soft.npy"):
    path = tmp_path / name
    np.savez(path, soft=rows) if name.endswith("z") else np.save(path, rows)
    return path


def test_probabilities_and_counts_are_read(dataset, tmp_path, capsys):
    for name in ("soft.npy", "soft.npz"):
        path = save(tmp_path, np.float32(soft()), name)
        found = data.read_soft_labels(path, dataset)
        np.testing.assert_allclose(found, soft(), atol=1e-7)
        assert found.dtype == np.float64
    assert capsys.readouterr().out == ""
    counts = np.int64(np.rint(50 * soft()))
    found = data.read_soft_labels(save(tmp_path, counts), dataset)
    np.testing.assert_allclose(found, soft())
    assert "50.0 labels per image, normalised" in capsys.readouterr().out


def test_a_smaller_test_set_takes_its_rows(tmp_path):
    rows = soft() + np.linspace(0, 1e-4, 9)[:, None]  # each row is another
    config = write_npz(tmp_path / "set.npz")
    config.test_size = 4
    small = create(config)
    kept = small.test.images[:, 0, 0, 0] - 100  # as `numbered` made them
    assert len(kept) == 4
    found = data.read_soft_labels(save(tmp_path, rows), small)
    np.testing.assert_allclose(found, rows[kept] / rows[kept].sum(1, keepdims=True))
    again = data.read_soft_labels(save(tmp_path, rows[kept]), small)
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (soft()[:8], r"float64 \[8, 3\]; it must be numbers \[9, 3\]"),
        (soft()[:, :2], r"float64 \[9, 2\]; it must be numbers \[9, 3\]"),
        (LABELS, r"int64 \[9\]; it must be numbers"),
        (soft() * 0.9, "the row of test image 0 sums to 0.9"),
        (np.where(np.arange(9)[:, None] == 4, 0, soft()), "image 4 sums to 0;"),
        (np.where(np.arange(9)[:, None] == 4, np.nan, soft()), "image 4 sums to nan"),
        (soft()[:, [1, 2, 0]], "for 0% of the test images; .*order"),
    ],
)
def test_other_rows_are_refused(dataset, tmp_path, rows, words):
    with pytest.raises(InputError, match=rf"evaluation.soft_labels=.*{words}"):
        data.read_soft_labels(save(tmp_path, rows), dataset)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.arange(20) % 2, "for 50% of the test images; .*agree for 50%"),
        (np.arange(20) % 10 == 0, "for 80% of the test images; .*agree for 82%"),
    ],
)
def test_another_order_of_two_classes_is_refused(dataset, tmp_path, labels, words):
    """A share of rows that agree by chance is no sign of the right order."""
    labels = labels.astype(np.int32)
    images = np.zeros((20, 1, 1, 1), np.uint8)
    two = dataset._replace(
        test=data.Split(images, labels),
        tested=np.ones(20, bool),
        class_names=("a", "b"),
    )
    rows = np.eye(2)[labels] * 0.8 + 0.1
    np.testing.assert_allclose(data.read_soft_labels(save(tmp_path, rows), two), rows)
    # Labels 0, 0, 1, 1, ... beside 0, 1, 0, 1, ...; or the rare class one place later.
    order = np.arange(20) // 2 if labels.sum() == 10 else np.roll(np.arange(20), 1)
    with pytest.raises(InputError, match=words):
        data.read_soft_labels(save(tmp_path, rows[order]), two)


def test_training_images_take_the_rows_of_their_place_in_the_source(tmp_path):
    dataset = create(write_npz(tmp_path / "set.npz"))
    kept = dataset.train.images[:, 0, 0, 0]  # as `numbered` made them
    assert len(kept) == 24
    rows = np.eye(3)[np.arange(30) % 3] * 0.7 + 0.1
    rows[:, 0] += np.linspace(0, 1e-4, 30)  # each row is another
    found = data.read_training_labels(save(tmp_path, rows), dataset)
    expected = rows[kept] / rows[kept].sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    again = data.read_training_labels(save(tmp_path, rows[kept]), dataset)
    np.testing.assert_array_equal(again, found)
    for wrong, words in (
        (rows[:9], r"is float64 \[9, 3\]; it must be numbers \[30, 3\], .* training"),
        (
            np.roll(rows, 1, axis=0),
            "for 0% of the training images; .*order of the training set",
        ),
        (-rows, "the row of training image 0 sums to"),
    ):
        with pytest.raises(InputError, match=rf"data.soft_labels=.*{words}"):
            data.read_training_labels(save(tmp_path, wrong), dataset)


def test_other_files_are_refused(dataset, tmp_path):
    np.savez(tmp_path / "two.npz", a=soft(), b=soft())
    with pytest.raises(InputError, match="has the arrays a, b; it must have one"):
        data.read_soft_labels(tmp_path / "two.npz", dataset)
    (tmp_path / "text.npy").write_text("0.1 0.9")
    with pytest.raises(InputError, match=r"text\.npy.* cannot be read"):
        data.read_soft_labels(tmp_path / "text.npy", dataset)
    with pytest.raises(InputError, match=r"none\.npy.* cannot be read"):
        data.read_soft_labels(tmp_path / "none.npy", dataset)
