"""How a trace looks: a terminal's tree, and JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from radia.findings import FINDINGS
from radia.trace.along import is_digest
from radia.trace.archive import rows_as_json
from radia.trace.tree import Tree

if TYPE_CHECKING:
    from rich.tree import Tree as RichTree


SHOWN = 5
"""Rows of a table that text shows; JSON holds all."""


def render_text(tree: Tree, *, width: int = 120) -> str:
    """The trace as a terminal's tree."""
    from rich.console import Console

    page = io.StringIO()
    Console(file=page, width=width, highlight=False, markup=False).print(_rich(tree))
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def write_json(tree: Tree) -> Iterator[str]:
    """The trace as one JSON object, in pieces: label, detail, children, and `rows` as {"columns", "values"}.

    A table's values are rows of lists. They are written by DuckDB from Arrow's columns: a million images in seconds.
    """
    yield f'{{"label": {_json(tree.label)}, "detail": {_json(dict(tree.detail))}'
    if tree.children:
        yield ', "children": ['
        for place, child in enumerate(tree.children):
            yield ", " if place else ""
            yield from write_json(child)
        yield "]"
    if tree.rows is not None:
        yield f', "rows": {{"columns": {_json(list(tree.rows.columns))}, "values": ['
        yield from rows_as_json(tree.rows)
        yield "]}"
    yield "}"


def to_json(tree: Tree) -> dict[str, Any]:
    """What `write_json` writes, as values."""
    found: dict[str, Any] = json.loads("".join(write_json(tree)))
    return found


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)


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
