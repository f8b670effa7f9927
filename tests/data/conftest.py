"""Fixtures of the data's tests: datasets to stream."""

import pytest
import streamed_sets


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    """A TFDS data directory with digits and photos of any size, to read."""
    directory = tmp_path_factory.mktemp("tfds")
    streamed_sets.prepare(directory)
    return directory
