"""Reads the tables of results, and numbers that pages quote from them."""

import itertools
import pathlib
import re

Table = list[dict[str, str]]

_NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?")


def rows(lines: list[str]) -> Table:
    """Returns the rows of a Markdown table by its headings, without bold."""
    cells = [
        [cell.strip().strip("*`") for cell in line.split("|")[1:-1]] for line in lines
    ]
    head, _, *body = cells
    return [dict(zip(head, line, strict=True)) for line in body]


def tables(text: str) -> dict[str, list[Table]]:
    """Returns the tables of a page by the path of headings above them."""
    found: dict[str, list[Table]] = {}
    path: list[str] = []
    for is_table, group in itertools.groupby(
        text.splitlines(), lambda line: line.startswith("|")
    ):
        lines = list(group)
        if is_table:
            found.setdefault("/".join(path[1:]), []).append(rows(lines))
            continue
        for line in lines:
            if match := re.match(r"(#+) (.*)", line):
                path = [*path[: len(match[1]) - 1], match[2]]
    return found


def cells(text: str, heading: str) -> list[list[str]]:
    """Returns the cells of the first table below a heading, line by line."""
    after = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(after) if line.startswith("|"))
    table = itertools.takewhile(lambda line: line.startswith("|"), after[start:])
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]


def number(text: str) -> float:
    """Returns the first number of a text."""
    return float(_NUMBER.search(text)[0].replace("−", "-"))


def digits(text: str) -> int:
    """Returns the decimals of the first number of a text."""
    return len(_NUMBER.search(text)[0].partition(".")[2])


class Source:
    """The tables of one protocol."""

    def __init__(self, page: pathlib.Path):
        self._tables = tables(page.read_text("utf-8"))

    def cell(self, heading: str, row: str, column: str) -> str:
        """Returns a cell of the table below the heading whose path ends so."""
        for path, of_path in self._tables.items():
            for line in itertools.chain(*of_path) if path.endswith(heading) else ():
                if next(iter(line.values())) == row and column in line:
                    return line[column]
        raise KeyError((heading, row, column))


def agrees(quoted: str, source: str) -> bool:
    """Returns whether a number is that of a cell, rounded to the digits quoted.

    With more digits in the cell than in the quote, half a unit of the last digit more
    is allowed, as the cell is rounded itself.
    """
    slack = 0.5 * 10.0 ** -digits(quoted) + 0.5 * 10.0 ** -digits(source) + 1e-9
    if digits(quoted) == digits(source):
        slack = 1e-9
    return abs(number(quoted) - number(source)) <= slack


def prose(page: pathlib.Path) -> str:
    """Returns a page without tables and code, in lines without breaks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    return re.sub(r"\s+", " ", " ".join(lines))


def results_in(text: str) -> list[str]:
    """Returns the numbers of a text that are results: in %, or of three decimals."""
    return re.findall(r"[-−]?\d+(?:\.\d+)? %|(?<!\d)\d\.\d{3,}", text)
