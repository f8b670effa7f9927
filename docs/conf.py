"""Configures Sphinx; `make docs` builds the pages."""

import inspect
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import edp  # noqa: E402

project = "edp"
author = "the authors of edp"
copyright = author
release = version = edp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["results/comparison.md"]  # included elsewhere
if "links" not in globals()["tags"]:
    exclude_patterns.append("front.md")
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Backticks of docstrings are code.
default_role = "code"
# Links to repository files that are not pages; the tests check that all exist.
suppress_warnings = ["myst.xref_missing"]

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# Names of other projects are not resolved, so that building needs no network.
nitpick_ignore_regex = [("py:.*", r"(?!edp\.).*")]

html_theme = "furo"
html_title = "edp"
html_static_path = ["_static"]
html_css_files = ["edp.css"]
html_show_sphinx = False
linkcheck_timeout = 30
linkcheck_retries = 2


def _skip(app, what, name, obj, skip, options):
    """Skips the fields of NamedTuples, which their class's docstring describes."""
    if (inspect.getdoc(obj) or "").startswith("Alias for field number"):
        return True
    return skip


def _as_written(app, what, name, obj, options, lines):
    """Turns text indented after a colon into literal blocks, and escapes [*shape].

    Docstrings therefore need no markup except backticks.
    """
    for i, line in enumerate(lines):
        line = line.replace("[*", r"[\*")
        block = lines[i + 2] if i + 2 < len(lines) and not lines[i + 1].strip() else ""
        indent, own = (len(text) - len(text.lstrip()) for text in (block, line))
        if line.endswith(":") and not line.endswith("::") and block and indent > own:
            line += ":"
        lines[i] = line


def setup(app):
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", _as_written, priority=100)
