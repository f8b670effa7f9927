"""Tests that programs are read by other versions of JAX than wrote them."""

import shutil

import pytest
import version_matrix


@pytest.mark.long
@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv and a package index")
def test_older_and_newer_versions_read_the_lowest_supported_one():
    versions = ("0.8.3", "0.10.2", "0.12.0.1")
    found = version_matrix.matrix(versions)
    for reader in versions:
        assert found[reader]["0.10.2-any"] == found[reader]["0.10.2-fixed"] == "reads"
    # As docs/deploying.md has it: a fixed batch size helps older readers.
    assert found["0.10.2"]["0.12.0.1-fixed"] == "reads"
    assert "Failed to deserialize" in found["0.10.2"]["0.12.0.1-any"]
