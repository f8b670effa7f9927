"""What the results say, in sentences."""

from collections.abc import Sequence

from edp.report.rows import Row, is_plain, number


def compare_with_plain(rows: Sequence[Row]) -> list[str]:
    """Says whether moving the inputs helped, by calibrated NLL on the test set.

    For each kind of student, the best student distilled on moved inputs is set
    against the best one distilled on the inputs as they are (`perturbation`
    'none' or absent).

    Args:
      rows: rows of `results.json`.

    Returns:
      A sentence for each kind of student that has a calibrated NLL and, where
      any two were compared, one on how far to trust it; empty where no student
      has a calibrated NLL.
    """
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("kind") == "student" and number(row, "cnll") is not None:
            kinds.setdefault(str(row.get("student") or ""), []).append(row)
    said, compared = [], []
    for kind, students in kinds.items():
        of_kind = f" of kind {kind}" if kind else ""
        plain = [row for row in students if is_plain(row)]
        moved = [row for row in students if not is_plain(row)]
        if plain and moved:
            said.append(f"Among the students{of_kind}, {_compare(moved, plain)}.")
            compared.append(students)
        else:
            said.append(
                f"There is no {'perturbed' if plain else 'plain'} student{of_kind} "
                "with a calibrated NLL, so whether a perturbation helps cannot be said."
            )
    if not compared:
        return said
    if len({row.get("seed") for students in compared for row in students}) > 1:
        return [*said, "These are single rows, not means over the seeds."]
    several = any(len(students) > 2 for students in compared)
    chosen = ", and the best of several was chosen on the test set" if several else ""
    doubt = f"A single seed gives no uncertainty{chosen}"
    return [*said, f"{doubt}: a small difference may be chance."]


def cautions(rows: Sequence[Row]) -> list[str]:
    """Says which calibrated values are doubtful, and where training left steps out."""
    said = []
    bound = [str(row["model"]) for row in rows if row.get("temperature_at_bound")]
    if bound:
        said.append(
            "The temperature was fitted at the bound of its search range, which makes "
            f"the calibrated values doubtful, for {', '.join(bound)}."
        )
    skipped = [f"{r['skipped_steps']} of {r['model']}" for r in rows if _skipped(r)]
    if skipped:
        said.append(
            "Training steps were skipped, as their loss or gradients were not finite: "
            f"{', '.join(skipped)}."
        )
    return said


def _skipped(row: Row) -> bool:
    return bool(number(row, "skipped_steps"))


def _compare(moved: Sequence[Row], plain: Sequence[Row]) -> str:
    ours, theirs = (min(group, key=lambda r: r["cnll"]) for group in (moved, plain))
    # Of the values as shown, so that the sentence adds up.
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
        f"{_the_best(moved, 'perturbed')} ({ours['model']}, {ours['perturbation']}) "
        f"has a calibrated NLL of {ours['cnll']:.4f} and {_the_best(plain, 'plain')} "
        f"({theirs['model']}) {theirs['cnll']:.4f}: {outcome}"
    )


def _the_best(group: Sequence[Row], word: str) -> str:
    if len(group) == 1:
        return f"the {word} one"
    return f"the best of {len(group)} {word} ones"
