"""How a trace looks: a terminal's tree, and JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from radia.findings import FINDINGS
from radia.trace.along import is_digest
from radia.trace.tree import Tree

if TYPE_CHECKING:
    import pandas as pd
    from rich.tree import Tree as RichTree


SHOWN = 5
"""Rows of a table that text shows; JSON holds all."""


def render_text(tree: Tree, *, width: int = 120) -> str:
    """The trace as a terminal's tree."""
    from rich.console import Console

    page = io.StringIO()
    Console(file=page, width=width, highlight=False, markup=False).print(_rich(tree))
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def to_json(tree: Tree) -> dict[str, Any]:
    """The trace as JSON values: label, detail, children, and `rows` as {"columns": [...], "values": [[...], ...]}."""
    found: dict[str, Any] = {"label": tree.label, "detail": dict(tree.detail)}
    if tree.children:
        found["children"] = [to_json(child) for child in tree.children]
    if tree.rows is not None:
        found["rows"] = {"columns": list(tree.rows.columns), "values": _values(tree.rows)}
    return found


def _rich(tree: Tree) -> RichTree:
    from rich.text import Text
    from rich.tree import Tree as RichTree

    node = RichTree(Text(tree.label, style="bold"))
    for name, value in tree.detail.items():
        node.add(Text.assemble((f"{name}: ", "dim"), one_line(value)))
    for child in tree.children:
        node.add(_rich(child))
    if tree.rows is not None:
        for row in tree.rows.head(SHOWN).to_dict("records"):
            node.add(Text(_row_text(row)))
        if len(tree.rows) > SHOWN:
            node.add(Text(f"… and {len(tree.rows) - SHOWN:,} more (all of them with --json)", style="dim"))
    return node


def _row_text(row: Mapping[Any, Any]) -> str:
    positive = [name for name in FINDINGS if row.get(name) == 1]
    words = f"{row.get('image', '')} · {row.get('split', '')} · {row.get('batch', '')}"
    return f"{words} · source {str(row.get('source_sha256', ''))[:12]} · {', '.join(positive) or 'nothing found'}"


def one_line(value: Any) -> str:
    """A fact as text on one line; a digest cut short."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one_line(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"[{one_line(item)}]" if isinstance(item, list | tuple) else one_line(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and is_digest(text) else text


def _values(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    import pyarrow as pa

    table = pa.Table.from_pandas(rows, preserve_index=False)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
