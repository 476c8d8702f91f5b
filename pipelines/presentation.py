"""Outcomes of steps as Dagster metadata: counts, tables and pictures, never a patient's value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from radia.steps import Outcome


def metadata(outcome: Outcome) -> dict[str, dg.MetadataValue]:
    """Summary, digests and whether the step had been done before."""
    values: dict[str, Any] = {name: _value(value) for name, value in outcome.summary.items()}
    values |= {f"digest/{name}": dg.MetadataValue.text(value) for name, value in outcome.outputs.items()}
    values["reused"] = dg.MetadataValue.bool(outcome.reused)
    return values


def batch_table(outcomes: Sequence[Outcome]) -> dg.MetadataValue:
    """A row a batch."""
    rows = [outcome.summary for outcome in outcomes]
    return table(rows)


def table(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """A Markdown table of the rows' common columns."""
    if not rows:
        return dg.MetadataValue.md("nothing")
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_text(row.get(name, "")) for name in names) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def picture(data_uri: str, caption: str) -> dg.MarkdownMetadataValue:
    """An image that needs no file."""
    return dg.MetadataValue.md(f"![{caption}]({data_uri})")


def check_name(rule: str) -> str:
    """A quality rule's name as Dagster takes it."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", rule)


def total(outcomes: Sequence[Outcome], name: str) -> int:
    """The sum of a count over batches."""
    return sum(int(outcome.summary.get(name, 0)) for outcome in outcomes)


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int | float | str):
        return value
    return dg.MetadataValue.json(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    return str(value)
