"""Inputs of all parts of a report."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from edp.report import evidence, findings
from edp.report.files import read_evaluated, read_optional_mapping, read_rows
from edp.report.page.facts import describe_run, unfinished_students
from edp.report.rows import Row


class Inputs(NamedTuple):
    """Files of a run, and what follows from them.

    Attributes:
      workdir: the run's work directory.
      rows: rows of `results.json`, completed by `findings.judge`.
      ood_rows: rows of `ood.json`.
      config: `config.json`; empty if `no_config` says why it is missing.
      no_config: the reason, or "".
      no_run: why `run.json` is missing, or "".
      facts: short texts by heading.
      evidence: scores of each test image.
      findings: the headline, the verdicts and what limits them.
      title: the title of the report.
    """

    workdir: pathlib.Path
    rows: list[Row]
    ood_rows: list[Row]
    config: Mapping
    no_config: str
    no_run: str
    facts: dict[str, str]
    evidence: evidence.Evidence
    findings: findings.Findings
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
    scores = evidence.read_evidence(workdir / "predictions", rows)
    rows, found = findings.judge(rows, scores, unfinished_students(rows, config))
    return Inputs(
        workdir=workdir,
        rows=rows,
        ood_rows=read_evaluated(workdir / "ood.json")[0],
        config=config,
        no_config=no_config,
        no_run=no_run,
        facts=facts,
        evidence=scores,
        findings=found,
        title=f"Ensemble distillation on {dataset}",
    )
