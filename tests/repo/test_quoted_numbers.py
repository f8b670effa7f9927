"""Tests that numbers in the prose of pages are those of the tables of results."""

import json
import re

import pytest
from documents import ROOT
from quotes import DIFFERENCES, DISTANCES, INTERVALS, OTHERS, QUOTES
from result_sources import DISAGREEMENT, LARGE, SMALL
from result_tables import agrees, prose, results_in


def without_braces(words):
    return words.replace("{", "").replace("}", "")


@pytest.mark.parametrize("quoted", INTERVALS)
def test_a_quoted_interval(quoted):
    """Compares an interval over images with the JSON of the summary."""
    folder, kind, baseline, model = INTERVALS[quoted]
    summary = json.loads((ROOT / "docs/results" / folder / "summary.json").read_text())
    (row,) = (
        row
        for row in summary[kind]
        if (row["baseline"], row["model"]) == (baseline, model)
    )
    low, high = row["cnll"]["interval"]
    assert quoted == f"[{low:+.3f}, {high:+.3f}]"


@pytest.mark.parametrize("quoted", DIFFERENCES)
def test_a_quoted_difference(quoted):
    """Compares a difference over seeds with the JSON of the summary."""
    folder, kind, model = DIFFERENCES[quoted]
    summary = json.loads((ROOT / "docs/results" / folder / "summary.json").read_text())
    (found,) = (
        row["cnll"]
        for row in summary[kind]
        if (row["baseline"], row["model"]) == ("single_none_tau4_long", model)
    )
    numbers = re.findall(r"[-+]?\d\.\d+", quoted)
    expected = [found[key] for key in ("mean", "se", "p")] + found["interval"]
    assert len(numbers) in (3, 5)
    for number, value in zip(numbers, expected, strict=False):
        written = f"{value:.{len(number.partition('.')[2])}f}"
        assert number.removeprefix("+") == written, model


def test_the_distances_from_the_teachers():
    heading = "the same at the temperature of distillation"
    cells = [
        LARGE.cell(heading, f"{name}_tau4{length}", inputs)
        for name, own in (
            ("single_none", "training inputs"),
            ("single_mixup", "perturbed"),
            (DISAGREEMENT, "perturbed"),
            ("latent_be_mixup", "perturbed"),
        )
        for inputs in (own, "test inputs")
        for length in ("", "_long")
    ]
    quoted = re.findall(r"0\.\d+", DISTANCES)
    assert len(quoted) == len(cells) == 16
    assert all(agrees(*pair) for pair in zip(quoted, cells, strict=True))


def quotes():
    for page, of_page in QUOTES.items():
        for words, row, where in of_page:
            yield pytest.param(page, words, row, where, id=f"{page.stem}-{words}")


@pytest.mark.parametrize(("page", "words", "row", "where"), list(quotes()))
def test_a_quoted_number(page, words, row, where):
    assert without_braces(words) in prose(page)
    quoted = words.partition("{")[2].partition("}")[0]
    source, heading, column = where if len(where) == 3 else (SMALL, *where)
    assert agrees(quoted, source.cell(heading, row, column))


@pytest.mark.parametrize("page", QUOTES, ids=lambda page: page.stem)
def test_no_number_of_the_prose_is_without_a_source(page):
    text = prose(page)
    quoted = [without_braces(words) for words, *_ in QUOTES[page]]
    for words in [*quoted, *OTHERS[page]]:
        assert words in text, words
        text = text.replace(words, " ")
    assert results_in(text) == []
