"""Tests that no terminal ends a command."""

import io
import os
import sys

import pytest

from edp.runtime import storage
from launch.cli import terminal

NAME = os.fsdecode(b"caf\xe9")  # not UTF-8


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "\u2500 caf\\udce9"), ("ascii", "? caf?")]
)
def test_what_a_terminal_cannot_show_is_escaped(encoding, shown, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    terminal.escape_unencodable()
    print(f"\u2500 {NAME}", end="", flush=True)
    assert raw.getvalue().decode() == shown


def test_files_keep_names_that_are_not_utf_8(tmp_path):
    storage.write_text(tmp_path / "a.csv", f"{NAME},0.5\n")
    assert (tmp_path / "a.csv").read_bytes() == b"caf\xe9,0.5\n"
