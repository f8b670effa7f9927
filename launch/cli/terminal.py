"""Width of the terminal."""

import shutil


def width() -> int:
    """Returns the terminal's columns, at least 80; 120 without a terminal."""
    return max(shutil.get_terminal_size(fallback=(120, 24)).columns, 80)
