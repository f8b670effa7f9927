"""Tests that data that cannot be used are refused before anything is written."""

import pytest
from refusals import settings

# Case -> flags and words of the message. Later flags win.
BAD = {
    "normalisation": (
        settings(data__mean="(0.5, 0.5)", data__std="(0.,)"),
        ["data.mean=(0.5, 0.5) must be 1 value", "data.std=(0.0,)", "above 0"],
    ),
    "path that is not there": (
        settings(data__source="npz", data__path="none.npz"),
        ["data.path is none.npz", "not exist"],
    ),
    "unknown source": (settings(data__source="web"), ["data.source='web'", "npz"]),
    "image shape": (
        settings(data__image_shape="(8, 9, 1)"),
        ["data.image_shape is (8, 9, 1)", "(8, 8, 1)"],
    ),
    "number of classes": (settings(data__num_classes=11), ["is 11", "10 classes"]),
    "corrupt image": (
        settings(data__source="folder", data__path="{digits_folder}"),
        ["cannot read the image {corrupt}"],
    ),
    "empty split": (
        settings(data__source="npz", data__path="{digits_npz}"),
        ["the test split has no examples"],
    ),
    "parts of data": (
        settings(data__train_split="", data__validation="first", data__num_workers=-1),
        [
            "data.train_split='' must be a non-empty text",
            "data.validation='first' must be one of stratified, last",
            "data.num_workers=-1 must be an integer of at least 0",
        ],
    ),
    "stream of what is in memory": (
        settings(data__stream=True),
        ["data.stream=True must be False for data.source='digits'"],
    ),
    "channels of images that are decoded": (
        settings(data__source="tfds", data__name="x", data__image_shape="(8, 8, 2)"),
        ["data.image_shape=(8, 8, 2) must have 1 or 3 channels"],
    ),
    "shape of two numbers": (
        settings(data__image_shape="(8, 8)"),
        ["data.image_shape=(8, 8) must be (height, width, channels)"],
    ),
    "no name of a TFDS set": (
        settings(data__source="tfds"),
        ["data.name=None must be given for data.source='tfds'"],
    ),
    "more to train on than there are": (
        settings(data__train_size=10_000),
        ["data.train_size is 10000", "1 to"],
    ),
    "more to test on than there are": (
        settings(data__test_size=5000),
        ["data.test_size is 5000"],
    ),
    "no validation": (
        settings(data__validation_size=0),
        ["data.validation_size=0 must be an integer of at least 1"],
    ),
    "own set as an unseen one": (
        settings(evaluation__ood_sets="('digits',)"),
        ["evaluation.ood_sets=('digits',)", "the run's own"],
    ),
    "unknown corruption": (
        settings(evaluation__corruptions="('frost',)"),
        ["evaluation.corruptions=('frost',)", "fog"],
    ),
    "unseen set that is not there": (
        settings(evaluation__ood_sets="('{root}/none.npz',)"),
        ["{root}/none.npz does not exist"],
    ),
}


# Invalid .npz files and folders of images -> words of the message.
DATA = {
    "names_twice.npz": ["two classes are named 'a'"],
    "pickled.npz": ["plain arrays"],
    "nan_pixels.npz": ["train_images is float32 [120, 8, 8, 1]; it must be uint8"],
    "two_channels.npz": ["data.image_shape is (8, 8, 1)", "(8, 8, 2)"],
    "float_labels.npz": ["train_labels is float32 [120]; it must be integers"],
    "negative_label.npz": ["label -1 of train example 0", "0 to 9"],
    "large_label.npz": ["data.num_classes is 10", "has 13 classes (largest label 12"],
    "text.npz": ["cannot be read as an .npz"],
    "cut.npz": ["cannot be read as an .npz"],
    "empty": ["empty/train is not a directory"],
    "sizes": ["sizes/train/3/0.png", "9x8", "8x8"],
    "unknown_class": ["unknown_class/test/eleven is a class that the training split"],
    "no_images": ["no_images/train/4 has no images"],
    "truncated": ["truncated/test/5/0.png"],
}
for name, words in DATA.items():
    source = "npz" if name.endswith(".npz") else "folder"
    path = f"{{root}}/{name}"
    flags = settings(data__source=source, data__path=path)
    if source == "folder":  # with one image per class
        sizes = {"train_size": 8, "validation_size": 2, "test_size": 10}
        flags += [f"--config.data.{key}={size}" for key, size in sizes.items()]
    BAD[f"data: {name}"] = (flags, words)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_a_line_and_nothing_is_written(case, refused):
    refused(*BAD[case])
