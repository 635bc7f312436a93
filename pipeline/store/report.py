"""The result of `hnas check` as text and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.check import Report


def check_text(place: str, report: Report) -> str:
    """Return the result of a check, with one line per damaged place and remark."""
    lines = [f"store {place}: {report.files:,} files read"]
    if report.unsealed:
        lines[0] += f", {report.unsealed:,} of them without a checksum (an older hnas wrote them)"
    lines += [f"damaged: {finding.path}: {finding.what}; {finding.mend}" for finding in report.damaged]
    lines += [f"note: {remark}" for remark in report.remarks]
    if not report.damaged:
        lines.append("nothing is damaged")
    return "\n".join(printable(line) for line in lines)


def check_json(report: Report) -> str:
    """Return the result of a check as JSON."""
    return json.dumps(asdict(report), indent=2)


def damage_text(place: str, report: Report) -> str:
    """Return how many places of a store are damaged."""
    count = len(report.damaged)
    return f"{count} {'thing' if count == 1 else 'things'} in the store {place} {'is' if count == 1 else 'are'} damaged"
