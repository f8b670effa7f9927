"""Inputs of all parts of a report."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from edp.report.files import read_evaluated, read_optional_mapping, read_rows
from edp.report.page.facts import describe_run
from edp.report.page.verdicts import cautions, compare_with_plain
from edp.report.rows import Row


class Inputs(NamedTuple):
    """Files of a run, and the texts that follow from them.

    Attributes:
      workdir: the run's work directory.
      rows: rows of `results.json`.
      ood_rows: rows of `ood.json`.
      config: `config.json`; empty if `no_config` says why it is missing.
      no_config: the reason, or "".
      no_run: why `run.json` is missing, or "".
      facts: short texts by heading.
      findings: sentences.
      title: the title of the report.
    """

    workdir: pathlib.Path
    rows: list[Row]
    ood_rows: list[Row]
    config: Mapping
    no_config: str
    no_run: str
    facts: dict[str, str]
    findings: list[str]
    title: str


def read_inputs(workdir: pathlib.Path) -> Inputs:
    """Reads the files of a run.

    Raises:
      InputError: if `results.json` is missing or is not a list of rows.
    """
    rows = read_rows(workdir / "results.json")
    config, no_config = read_optional_mapping(workdir / "config.json")
    run, no_run = read_optional_mapping(workdir / "run.json")
    facts = describe_run(rows, config, run)
    dataset = facts.get("Dataset", workdir.resolve().name)
    return Inputs(
        workdir=workdir,
        rows=rows,
        ood_rows=read_evaluated(workdir / "ood.json")[0],
        config=config,
        no_config=no_config,
        no_run=no_run,
        facts=facts,
        findings=[*compare_with_plain(rows), *cautions(rows)],
        title=f"Ensemble distillation on {dataset}",
    )
