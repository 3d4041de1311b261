"""Prints the table: `PYTHONPATH=.:tests python -m oracle.op_db [ENTRY ...]`; exits with 1 if anything disagrees."""

from __future__ import annotations

import sys

from oracle.op_db.entries import BOOK, report_of
from oracle.op_db.table import table

keys = sys.argv[1:] or sorted(BOOK.adapters)
reports = [report_of(key) for key in keys]
print(table(reports))
for report in reports:
    for failure in report.failures[:4]:
        print(f"{report.key}: {failure}")
    if len(report.failures) > 4:
        print(f"{report.key}: … and {len(report.failures) - 4} more")
sys.exit(any(report.failures for report in reports))
