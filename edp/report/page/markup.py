"""Templates, small pieces of HTML, and escaping for HTML and Markdown.

HTML is `markupsafe.Markup`, which escapes every plain string that is put into it.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup


class Section(NamedTuple):
    """A section of the page.

    Attributes:
      html: the HTML of the section; empty to leave it out, also in the navigation.
      figures: its `<svg>` elements by file name without `.svg`.
      left_out: what is missing of it and why; "" if nothing is.
    """

    html: Markup = Markup()
    figures: Mapping[str, str] = {}
    left_out: str = ""


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edp.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shorten": shorten, "unbroken": unbroken}
    return environment


def render(template: str, **values: Any) -> Markup:
    """Renders a file of `templates/`; escapes all values that are not `Markup`."""
    return Markup(_environment().get_template(template).render(values))


def paragraph(text: str, kind: str) -> Markup:
    """Returns a paragraph of class `kind`, or nothing if there is no text."""
    return Markup('<p class="{}">{}</p>').format(kind, text) if text else Markup()


def figure(caption: str, *body: Markup) -> Markup:
    """Returns HTML under a caption, which is plain text."""
    return Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(
        caption, Markup().join(body)
    )


def heading(text: str) -> Markup:
    """Returns a heading within a section."""
    return Markup("<h3>{}</h3>").format(text)


def single(svg: str, kind: str = "single") -> Markup:
    """Returns an `<svg>` element as wide as the page allows."""
    return Markup('<div class="{}">{}</div>').format(kind, Markup(svg))


def panels(svgs: Iterable[str]) -> Markup:
    """Returns `<svg>` elements side by side."""
    panel = Markup('<div class="panel">{}</div>')
    inside = Markup().join(panel.format(Markup(svg)) for svg in svgs)
    return Markup('<div class="panels large">{}</div>').format(inside)


def escape_markdown(text: str) -> str:
    """Escapes Markdown syntax; leaves a `_` within a word unchanged."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([\\`*|\[\]~])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def shorten(text: str, width: int) -> str:
    """Cuts the middle out of a long text, as names differ at the ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def unbroken(heading: str) -> str:
    """Forbids a line break before a single sign at the end of a heading."""
    return re.sub(r" (?=\S$)", "\N{NO-BREAK SPACE}", heading)
