"""The table of a series of runs, and the verdict."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from tests.chaos.plan import SCENES, STEPS
from tests.chaos.rules import RULES
from tests.chaos.runs import Report

ENDINGS = ("picture", "failed", "unknown, told", "denied", "ended by person")
NOTHING = "nothing"


def table(reports: Sequence[Report]) -> str:
    """Return one row per fault and kill that was met, and one for all runs.

    A run counts in the row of each fault that it met. ``c/g/x/l`` says in how many runs it was met at a create, a get,
    a cancel and a list.
    """
    rows: dict[str, list[Report]] = defaultdict(list)
    steps: dict[str, Counter[str]] = defaultdict(Counter)
    for report in reports:
        names = set()
        for played in report.played or [NOTHING]:
            step, _, name = played.partition(": ")
            names.add(played if step not in STEPS else name)
            if step in STEPS:
                steps[name][step] += 1
        for name in names:
            rows[name].append(report)
    heads = ("fault or kill", "runs", "c/g/x/l", *ENDINGS, "violations")
    lines = [heads, *(_row(name, rows[name], steps.get(name)) for name in sorted(rows, key=_order))]
    lines.append(_row("all", reports, None))
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(_aligned(line, widths) for line in lines)


def coverage(reports: Sequence[Report]) -> str:
    """Return one line that says how many of the emulator's faults were met at how many steps."""
    met = {played for report in reports for played in report.played}
    missing = [f"{step}: {fault}" for step, fault in SCENES if f"{step}: {fault}" not in met]
    names = f"; not met: {', '.join(missing)}" if 0 < len(missing) <= len(SCENES) // 4 else ""
    return f"Faults met: {len(SCENES) - len(missing)} of {len(SCENES)} (every fault at {', '.join(STEPS)}){names}"


def verdict(reports: Sequence[Report], *, wanted: int, seconds: float) -> str:
    """Return one line that says whether every promise was kept."""
    counts = Counter(rule for report in reports for rule in report.problems)
    told = ", ".join(f"{rule} {counts[rule]}" for rule in RULES)
    broken = sorted(report.seed for report in reports if report.problems)
    missing = f"; {wanted - len(reports)} runs have no report" if len(reports) < wanted else ""
    seeds = f"; broken seeds: {' '.join(map(str, broken))}" if broken else ""
    word = "BROKEN" if broken or missing else "KEPT"
    return f"{word}: {told} ({len(reports)} runs in {seconds:.0f} s{missing}{seeds})"


def _order(name: str) -> tuple[bool, bool, str]:
    return name == NOTHING, name.startswith("kill:"), name


def _row(name: str, reports: Sequence[Report], steps: Counter[str] | None) -> tuple[str, ...]:
    endings = Counter(report.ending for report in reports)
    where = "/".join(str(steps[step]) for step in STEPS) if steps else ""
    broken = sum(bool(report.problems) for report in reports)
    return (name, str(len(reports)), where, *(str(endings[ending] or ".") for ending in ENDINGS), str(broken or "."))


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
    return "  ".join([first, *(cell.strip().rjust(len(cell)) for cell in others)])
