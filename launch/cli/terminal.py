"""The terminal that commands print tables on."""

import shutil


def width() -> int:
    """Its columns, at least 80; 120 where there is no terminal."""
    return max(shutil.get_terminal_size(fallback=(120, 24)).columns, 80)
