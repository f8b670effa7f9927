"""Tests the report in Chromium at phone and desktop widths."""

import browser
import pytest
import scored_runs
from report_pages import make_run

from edp import report

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(browser.EXECUTABLE is None, reason="there is no Chromium"),
]
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    make_run(workdir)
    return report.write_report(workdir)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_asks_for_nothing(path, width, dark):
    with browser.Page(width, dark=dark) as page:
        page.open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = (
            "[...document.querySelectorAll('body *')].filter((e) =>"
            " !e.closest('.scroll, pre')"
            f" && e.getBoundingClientRect().right > {width})"
            ".map((e) => e.tagName + '.' + e.className)"
        )
        assert page.evaluate(wide) == []
        elsewhere = [url for url in page.requests if not url.startswith("data:")]
        assert elsewhere == [path.as_uri()]
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("scored")
    perturbations = ("none", "ods", "conf_ods", "mixup", "disagreement", "gaussian")
    students = {
        f"single_{name}": (name, 2 + i / 10, 2 + i / 10)
        for i, name in enumerate(perturbations)
    }
    scored_runs.write(workdir, students)
    return report.write_report(workdir)


@pytest.mark.parametrize(
    ("width", "height", "latest"), [(1280, 800, 700), (390, 844, 900)]
)
def test_the_first_screen_holds_headline_tiles_and_figure(
    scored, width, height, latest
):
    with browser.Page(width, height) as page:
        page.open(scored)

        def edge(selector, side):
            return page.evaluate(
                f"document.querySelector('{selector}').getBoundingClientRect().{side}"
            )

        ends = [
            (edge(selector, "top"), edge(selector, "bottom"))
            for selector in (".headline", ".tiles", "#cnll svg")
        ]
        assert ends == sorted(ends)
        assert 0 < ends[-1][0] < latest and ends[-1][1] <= height
        assert edge("#cnll svg", "right") <= width and edge("#cnll svg", "left") >= 0


def test_headings_sort_in_both_directions(path):
    with browser.Page(1280) as page:
        page.open(path)

        def column(name):
            return page.evaluate(
                f"""(() => {{
                  const table = document.querySelector("#results table");
                  const heads = [...table.tHead.rows[0].cells];
                  const of = (h) => h.innerText.replace(/[^\\w %]/g, "").trim();
                  const i = heads.findIndex((h) => of(h) === "{name}");
                  heads[i].querySelector("button").click();
                  return [...table.tBodies[0].rows].map(
                    (row) => Number(row.cells[i].dataset.value));
                }})()"""
            )

        first = [value for value in column("cNLL") if value is not None]
        assert first == sorted(first) and len(set(first)) > 2
        again = [value for value in column("cNLL") if value is not None]
        assert again == first[::-1]


def test_the_sections_named_at_the_top_exist(path):
    with browser.Page(390) as page:
        page.open(path)
        missing = (
            "[...document.querySelectorAll('nav a')].map((a) => a.hash)"
            ".filter((hash) => !document.querySelector(hash))"
        )
        assert page.evaluate("document.querySelectorAll('nav a').length") > 5
        assert page.evaluate(missing) == []
