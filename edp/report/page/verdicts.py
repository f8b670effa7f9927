"""Conclusions from the results, as sentences."""

from collections.abc import Sequence

from edp.report.rows import Row, is_plain, number


def compare_with_plain(rows: Sequence[Row]) -> list[str]:
    """Compares perturbed with plain distillation by calibrated NLL on the test set.

    For each kind of student, compares the best student distilled with a perturbation
    to the best one distilled without (`perturbation` 'none' or absent).

    Args:
      rows: rows of `results.json`.

    Returns:
      A sentence for each kind of student with a calibrated NLL and, if students were
      compared, one on uncertainty; empty if no student has a calibrated NLL.
    """
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("kind") == "student" and number(row, "cnll") is not None:
            kinds.setdefault(str(row.get("student") or ""), []).append(row)
    sentences, compared = [], []
    for kind, students in kinds.items():
        of_kind = f" of kind {kind}" if kind else ""
        plain = [row for row in students if is_plain(row)]
        perturbed = [row for row in students if not is_plain(row)]
        if plain and perturbed:
            sentences.append(
                f"Among the students{of_kind}, {_compare(perturbed, plain)}."
            )
            compared.append(students)
        else:
            sentences.append(
                f"There is no {'perturbed' if plain else 'plain'} student{of_kind} "
                "with a calibrated NLL, so the effect of perturbations is unknown."
            )
    if not compared:
        return sentences
    if len({row.get("seed") for students in compared for row in students}) > 1:
        return [*sentences, "These are single rows, not means over the seeds."]
    several = any(len(students) > 2 for students in compared)
    chosen = ", and the best of several was chosen on the test set" if several else ""
    doubt = f"A single seed gives no uncertainty{chosen}"
    return [*sentences, f"{doubt}: a small difference may be chance."]


def cautions(rows: Sequence[Row]) -> list[str]:
    """Returns sentences on unreliable calibrated values and on skipped steps."""
    sentences = []
    bound = [str(row["model"]) for row in rows if row.get("temperature_at_bound")]
    if bound:
        sentences.append(
            "The fitted temperature is at the bound of its search range, so calibrated "
            f"values are unreliable, for {', '.join(bound)}."
        )
    skipped = [f"{r['skipped_steps']} of {r['model']}" for r in rows if _skipped(r)]
    if skipped:
        sentences.append(
            "Training steps with a non-finite loss or gradient were skipped: "
            f"{', '.join(skipped)}."
        )
    return sentences


def _skipped(row: Row) -> bool:
    return bool(number(row, "skipped_steps"))


def _compare(perturbed: Sequence[Row], plain: Sequence[Row]) -> str:
    ours, theirs = (min(group, key=lambda r: r["cnll"]) for group in (perturbed, plain))
    # Uses the rounded values shown, so that the sentence is consistent.
    gap = round(round(ours["cnll"], 4) - round(theirs["cnll"], 4), 4)
    if gap == 0:
        outcome = "no difference to four decimals"
    elif gap < 0:
        outcome = (
            f"{-gap:.4f} lower, so the perturbation is ahead of plain distillation"
        )
    else:
        outcome = f"{gap:.4f} higher, so no perturbation is ahead of plain distillation"
    return (
        f"{_the_best(perturbed, 'perturbed')} ({ours['model']}, "
        f"{ours['perturbation']}) has a calibrated NLL of {ours['cnll']:.4f} and "
        f"{_the_best(plain, 'plain')} "
        f"({theirs['model']}) {theirs['cnll']:.4f}: {outcome}"
    )


def _the_best(group: Sequence[Row], word: str) -> str:
    if len(group) == 1:
        return f"the {word} one"
    return f"the best of {len(group)} {word} ones"
