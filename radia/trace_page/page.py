"""The page around the drawing: facts, links, events and every node, folded."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from radia.findings import FINDINGS
from radia.ledger import Action
from radia.trace import Tree, one_line
from radia.trace_page.graph import MANY, graph
from radia.trace_page.links import Links
from radia.trace_page.said import dagster_run_of, events_of, named, people_of

if TYPE_CHECKING:
    import pandas as pd

_TRACED = ("model", "image", "patient", "batch", "person")

ROWS = 200
"""Rows of a table of images that the page holds; JSON holds all."""


def to_html(tree: Tree, links: Links | None = None) -> str:
    """The page of a trace."""
    return _PAGE.format(title=escape(tree.label), content=to_fragment(tree, links or Links()), style=_STYLE)


def to_fragment(tree: Tree, links: Links) -> str:
    """What stands on the page below its title: to be set into another one, which brings its own style."""
    body = "".join(_html_node(child, links, open_=index < 2) for index, child in enumerate(tree.children))
    above = (graph(tree, links), _html_facts(tree.detail), _elsewhere(tree, links), _events_table(tree, links))
    return f"{''.join(above)}<h2>Everything</h2>{body}"


def _elsewhere(tree: Tree, links: Links) -> str:
    """Model versions and runs in MLflow, runs in Dagster, and the command that brings a snapshot back from DVC."""
    lines = []
    for event in events_of(tree, Action.REGISTER, Action.PROMOTE):
        for name in (name for name in event.outputs if "/" in name):
            lines.append(("MLflow model", _anchor(links.model(*name.split("/", 1)), name)))
            if event.action == Action.REGISTER:
                lines.append(("MLflow run", _anchor(links.mlflow_run(event.outputs[name]), event.outputs[name])))
                command = f"radia restore {escape(name)} DIR"
                lines.append(("DVC", f"<code>{command}</code> brings back the data it was trained on"))
    for snapshot, node in named(tree, "snapshot").items():
        stored = node.event.outputs.get("dvc", "") if node.event is not None else ""
        if stored:
            lines.append(("DVC object", f"<code>{escape(stored)}</code> is snapshot {escape(snapshot)}"))
    runs = dict.fromkeys(run for event in events_of(tree) if (run := dagster_run_of(event)))
    lines += [("Dagster run", _anchor(links.dagster_run(run), run)) for run in list(runs)[: 2 * MANY]]
    rows = "".join(f"<dt>{what}</dt><dd>{where}</dd>" for what, where in lines)
    return f"<h2>Elsewhere</h2><dl>{rows}</dl>" if rows else ""


def _leading(address: str, text: str) -> str:
    """A link where there is an address, else the text."""
    return _anchor(address, text) if address else escape(text)


def _anchor(address: str, text: str) -> str:
    return f'<a href="{escape(address, quote=True)}">{escape(text)}</a>'


def _events_table(tree: Tree, links: Links) -> str:
    events = events_of(tree)
    if not events:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("event", "when (UTC)", "action", "who", "made", "code", "Dagster"))
    lines = []
    for event in events:
        run = dagster_run_of(event)
        cells = [
            _leading(links.trace("event", str(event.sequence)), str(event.sequence)),
            escape(event.at[:19].replace("T", " ")),
            escape(str(event.action)),
            ", ".join(_leading(links.trace("person", person), person) for person in people_of([event])),
            escape(", ".join(event.outputs)),
            escape(event.code[:12]),
            _anchor(links.dagster_run(run), run[:8]) if run else "",
        ]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        f"<details><summary>{len(events):,} events behind the graph</summary>"
        f"<div class='wide'><table><tr>{head}</tr>{''.join(lines)}</table></div></details>"
    )


# --- the tree -------------------------------------------------------------------------------------------------------


def _html_node(tree: Tree, links: Links, *, open_: bool = False) -> str:
    inside = _own_page(tree, links) + _html_facts(tree.detail)
    inside += "".join(_html_node(child, links) for child in tree.children)
    if tree.rows is not None:
        inside += _html_rows(tree.rows, links)
    count = f" ({len(tree.rows):,})" if tree.rows is not None else ""
    state = " open" if open_ else ""
    return f"<details{state}><summary>{escape(tree.label)}{count}</summary>{inside}</details>"


def _own_page(tree: Tree, links: Links) -> str:
    """A link to the node's own trace, in the web app."""
    kind, _, name = tree.label.partition(" ")
    if kind not in _TRACED or not name:
        kind, name = "event", "" if tree.event is None else str(tree.event.sequence)
    address = links.trace(kind, name)
    return f"<p>{_anchor(address, f'trace of {kind} {name}')}</p>" if address else ""


def _html_facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{escape(str(n))}</dt><dd>{escape(_full(v))}</dd>" for n, v in facts.items())
    return f"<dl>{rows}</dl>" if rows else ""


def _full(value: Any) -> str:
    return value if isinstance(value, str) else _pairs(value) if isinstance(value, Mapping) else one_line(value)


def _pairs(table: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {_full(item)}" for name, item in table.items())


def _html_rows(rows: pd.DataFrame, links: Links) -> str:
    shown = rows.head(ROWS)
    columns = [name for name in shown.columns if name not in FINDINGS]
    head = "".join(f"<th>{escape(str(name))}</th>" for name in [*columns, "present"])
    lines = []
    for row in shown.to_dict("records"):
        cells = [
            _leading(links.trace(name, str(row[name])) if name in _TRACED else "", str(row[name])) for name in columns
        ]
        cells.append(escape(", ".join(name for name in FINDINGS if row.get(name) == 1)))
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    more = f"<p>{len(rows) - ROWS:,} more rows: <code>radia trace … --json</code></p>" if len(rows) > ROWS else ""
    return f"<div class='wide'><table><tr>{head}</tr>{''.join(lines)}</table></div>{more}"


_STYLE = """
:root{--ink:#1d2733;--soft:#5b6b7c;--line:#d9e1e8;--paper:#fbfcfd;--mark:#0b6e99;--way:#8fa1b2;--data:#eaf4f8;
--model:#eef0fb;--side:#f6f3ea;--who:#f0f2f4}
@media(prefers-color-scheme:dark){:root{--ink:#e4eaf0;--soft:#94a3b3;--line:#2c3844;--paper:#12181f;--mark:#5cc0e8;
--way:#5f7182;--data:#152833;--model:#1d2138;--side:#2a2619;--who:#222c36}}
*{box-sizing:border-box}body{margin:0 auto;max-width:77rem;padding:2rem 1.5rem 4rem;background:var(--paper);
color:var(--ink);font:15px/1.5 system-ui,sans-serif}h1{font-size:1.5rem;margin:0 0 .2rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:1.6rem 0 .3rem}a{color:var(--mark)}
svg{display:block;margin:1.2rem 0;max-width:none}svg text{font-size:12.5px;fill:var(--ink)}
svg .head{font-size:12px;fill:var(--soft);letter-spacing:.04em}svg .name{font-weight:600}
svg .soft{fill:var(--soft);font-size:11px}svg .act{font-size:12px;fill:var(--mark)}svg .tiny{font-size:10.5px}
svg .box{stroke:var(--way);fill:var(--paper)}svg .data{fill:var(--data)}svg .model{fill:var(--model)}
svg .side{fill:var(--side)}svg .open{stroke-dasharray:4 4}svg .line{fill:none;stroke:var(--way);stroke-width:1.4}
svg .tip{fill:var(--way)}svg .who{fill:var(--who)}svg .face{fill:var(--soft)}
details{border-left:2px solid var(--line);margin:.35rem 0;padding:.1rem 0 .1rem .9rem}
summary{cursor:pointer;font-weight:600}details[open]>summary{color:var(--mark)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:.4rem 0}
dt{color:var(--soft)}dd{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.8rem}
th,td{text-align:left;padding:.2rem .6rem;border-bottom:1px solid var(--line)}th{color:var(--soft)}
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>{content}</body></html>
"""
