"""Parses code blocks, commands and links of the README and docs/."""

import os
import pathlib
import re
import shlex
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
_FOLDERS = ("docs", "examples")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(p for f in _FOLDERS for p in (ROOT / f).rglob("*.md"))]
)
# On a page whose Python takes more than seconds, and is left to `make test-long`.
LONG = "<!-- long -->"

# A block that is a file begins with its name.
_FILE = re.compile(r"# (\S+\.py)\n")
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """Fenced block.

    Attributes:
      language: the text after the fence, or "".
      text: its content.
      line: number of its first line.
    """

    language: str
    text: str
    line: int


def name(page: pathlib.Path) -> str:
    """Returns the page's path in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: pathlib.Path, *languages: str) -> list[Block]:
    """Returns the fenced blocks of a page in some languages, in order."""
    text = page.read_text("utf-8")
    found = [
        Block(match[1].strip(), match[2], text[: match.start(2)].count("\n") + 1)
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if block.language in languages]


def files(page: pathlib.Path) -> dict[str, str]:
    """Returns the blocks that are files, by name."""
    found = [block.text for block in blocks(page, "python")]
    return {match[1]: text for text in found if (match := _FILE.match(text))}


def run_python(page: pathlib.Path) -> dict:
    """Runs the Python blocks of a page in order; returns their namespace.

    Blocks that are files are skipped.
    """
    names = {"__name__": "__page__"}
    for block in blocks(page, "python"):
        if _FILE.match(block.text):
            continue
        source = "\n" * (block.line - 1) + block.text  # so that errors name the line
        exec(compile(source, name(page), "exec"), names)
    return names


def commands(page: pathlib.Path) -> list[list[str]]:
    """Returns the shell commands of a page as words, with continued lines joined."""
    lines = []
    for block in blocks(page, "", "sh"):
        lines += block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def environment() -> dict[str, str]:
    """Returns an environment in which the repository can be imported."""
    return os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def without_code(page: pathlib.Path) -> str:
    """Returns the text without fenced blocks and code in backticks."""
    return re.sub(r"`[^`]*`", "", _FENCE.sub("", page.read_text("utf-8")))


def links(page: pathlib.Path) -> list[str]:
    """Returns the targets of a page's links and images within the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(page))
    return [target for target in targets if not re.match(r"\w+:", target)]


def anchors(page: pathlib.Path) -> set[str]:
    """Returns the anchors of the headings of a page and its includes, as MyST does."""
    pages = [page]
    for target in re.findall(
        r"^```{include} (\S+)", page.read_text("utf-8"), re.MULTILINE
    ):
        pages.append((page.parent / target).resolve())
    text = "\n".join(_FENCE.sub("", page.read_text("utf-8")) for page in pages)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {slug.strip().replace(" ", "-") for slug in slugs}
