"""Small pieces of HTML and Markdown, with what users wrote escaped."""

import html
import re
from collections.abc import Mapping
from typing import NamedTuple


class Section(NamedTuple):
    """What a section of the page holds.

    Attributes:
      html: all of it.
      figures: the `<svg>` elements in it by the names of their files, without
        `.svg`; those within a table or a gallery are not among them.
    """

    html: str
    figures: Mapping[str, str] = {}


def paragraph(text: str, kind: str = "") -> str:
    """An HTML paragraph of class `kind`; nothing where there is no text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{html.escape(text)}</p>" if text else ""


def absent(text: str) -> str:
    """An HTML paragraph on what is not shown, and why."""
    return paragraph(text, "absent")


def figure(caption: str, body: str) -> str:
    """HTML `body` under a caption, which is plain text."""
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{body}</figure>"


def escape_markdown(text: str) -> str:
    """Escapes what Markdown would format; a `_` within a word stays as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([\\`*|\[\]~])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def shorten(text: str, width: int) -> str:
    """Cuts the middle out of a text that is too long: names differ at the ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def unbroken(heading: str) -> str:
    """A heading that may be broken, but not before a sign at its end."""
    return re.sub(r" (?=\S$)", "\N{NO-BREAK SPACE}", heading)
