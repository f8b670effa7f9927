"""Width and encoding of the terminal."""

import codecs
import io
import shutil
import sys


def escape_unencodable() -> None:
    """Makes stdout and stderr accept all text, instead of failing.

    A terminal of UTF-8 escapes file names that are not UTF-8; another shows a question
    mark for what it cannot show, so that tables stay aligned.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a test replaced it
            utf_8 = codecs.lookup(stream.encoding).name == "utf-8"
            stream.reconfigure(errors="backslashreplace" if utf_8 else "replace")


def width() -> int:
    """Returns the terminal's columns, at least 80; 120 without a terminal."""
    return max(shutil.get_terminal_size(fallback=(120, 24)).columns, 80)
