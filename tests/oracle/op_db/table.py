"""The reports as a table for people: per entry what was compared and how closely, and every reason for leaving something out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from oracle.op_db.driver import Pass, Report

EMPTY = Pass()


def table(reports: Sequence[Report]) -> str:
    """One line an entry; errors are the largest |ours - theirs| / (1 + |theirs|)."""
    lines = [
        f"{'entry':52}{'compared':>10}{'forward':>10}{'gradient':>10}{'float32':>10}{'forward':>10}{'gradient':>10}{'skipped':>9}{'errors':>8}"
    ]
    reasons: Counter[str] = Counter()
    partial: Counter[str] = Counter()
    for report in reports:
        if report.missing:
            lines.append(f"{report.key:52}{report.missing} does not exist yet")
            continue
        exact, single = [*report.passes.values(), EMPTY, EMPTY][:2]
        skipped = sum((p.skips for p in report.passes.values()), Counter()) + report.error_skips
        reasons += skipped
        partial += sum((p.partial for p in report.passes.values()), Counter())
        numbers = "".join(f"{p.samples:10}{p.forward:10.1e}{p.gradient:10.1e}" for p in (exact, single))
        lines.append(f"{report.key:52}{numbers}{sum(skipped.values()):9}{report.errors_raised:8}{'  FAILS' if report.failures else ''}")
    there = [r for r in reports if not r.missing]
    passes = [p for r in there for p in r.passes.values()]
    lines.append(
        f"\n{sum(any(p.samples for p in r.passes.values()) for r in there)} entries; {totals(there)}; "
        f"{sum(r.errors_raised for r in there)} error inputs refused; {sum(sum(p.skips.values()) for p in passes)} samples and "
        f"{sum(sum(r.error_skips.values()) for r in there)} error inputs left out, for these reasons:"
    )
    lines += [f"{count:6}  {reason}" for reason, count in reasons.most_common()]
    lines += [f"{count:6}  in part, {reason}" for reason, count in partial.most_common()]
    return "\n".join(lines)


def totals(reports: Sequence[Report]) -> str:
    """Samples and largest errors by dtype."""
    parts = []
    for dtype in ("float64", "float32", "int64", "bool"):
        passes = [r.passes[dtype] for r in reports if dtype in r.passes]
        if passes:
            worst = f"forward {max(p.forward for p in passes):.1e}, gradient {max(p.gradient for p in passes):.1e}"
            parts.append(f"{sum(p.samples for p in passes)} samples in {dtype} ({worst})")
    return ", ".join(parts)
