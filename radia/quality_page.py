"""One self-contained HTML page of a quality report: what Great Expectations calls Data Docs, without its network links.

It shows rules and aggregates only. Nothing here judges.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radia.quality import QualityReport, RuleResult

STYLE = """
:root { --ink: #1c2530; --soft: #66717e; --line: #dde3e9; --bar: #4a7fb5 }
:root { --bad: #b3261e; --warn: #9a6700; --good: #1a7f37 }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; padding: 2rem 1.5rem; max-width: 68rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
.verdict { border-left: 6px solid; padding: .6rem 1rem; margin: 1rem 0; background: #f6f8fa }
.verdict.blocked { border-color: var(--bad) } .verdict.warned { border-color: var(--warn) }
.verdict.clear { border-color: var(--good) }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: .5rem 1rem; min-width: 8rem }
.tile b { display: block; font-size: 1.35rem } .tile span, .soft { color: var(--soft) }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600; color: var(--soft); font-size: .85rem } td.number, th.number { text-align: right }
td { font-variant-numeric: tabular-nums }
.mark { font-weight: 600; white-space: nowrap } .critical { color: var(--bad) } .warning { color: var(--warn) }
.passed { color: var(--good) }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem } figure { margin: 0 } figcaption { color: var(--soft) }
details summary { cursor: pointer; margin: .6rem 0 } svg { display: block }
@media (max-width: 40rem) { th:nth-child(4), td:nth-child(4) { display: none } }
"""


def render(report: QualityReport) -> str:
    """The page. Raises nothing for an empty report."""
    failed = [result for result in report.results if not result.passed]
    passed = [result for result in report.results if result.passed]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>RADIA: quality of the data</title><style>{STYLE}</style>",
        "<h1>Quality of the data</h1>",
        _verdict(report),
        _tiles(report.facts.get("totals", [])),
        "<h2>Rules that failed</h2>" + _rules(failed) if failed else "",
        f"<h2>Rules that hold</h2><details><summary>{len(passed)} rules</summary>{_rules(passed)}</details>",
        "<h2>Findings</h2>" + _findings(report.facts.get("findings", [])),
        "<h2>Sites</h2>" + _sites(report.facts.get("sites", [])),
        "<h2>Measures of the images</h2>" + _measures(report.facts.get("measures", {})),
        "<h2>Batches</h2>" + _batches(report.facts.get("batches", [])),
    ]
    return "\n".join(parts) + "\n</html>\n"


def _verdict(report: QualityReport) -> str:
    critical, warnings = len(report.failed("critical")), len(report.failed("warning"))
    if critical:
        return _box("blocked", f"Blocked: {_plural(critical, 'critical rule')} failed. No snapshot is made.")
    if warnings:
        return _box("warned", f"Usable, with {_plural(warnings, 'warning')}.")
    return _box("clear", f"All {len(report.results)} rules hold.")


def _box(kind: str, text: str) -> str:
    return f'<p class="verdict {kind}">{escape(text)}</p>'


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _tiles(totals: list[dict[str, Any]]) -> str:
    if not totals:
        return ""
    row = totals[0]
    shown = [(f"{row[name]:,}", name) for name in ("images", "studies", "patients")]
    shown += [(_percent(row["labelled_fraction"]), "labelled"), (_percent(row["refused_fraction"]), "refused")]
    tiles = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in shown)
    return f'<div class="tiles">{tiles}</div>'


def _rules(results: Iterable[RuleResult]) -> str:
    rows = []
    for result in results:
        kind = "passed" if result.passed else result.severity
        mark = "holds" if result.passed else result.severity
        cells = (escape(result.name), escape(result.observed), escape(result.description), escape(result.table))
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><td class="mark {kind}">{mark}</td>{body}</tr>')
    return _table(("", "rule", "observed", "what it asks", "table"), rows)


def _findings(findings: list[dict[str, Any]]) -> str:
    rows = []
    for row in findings:
        numbers = "".join(f"<td class=number>{row[name]:,}</td>" for name in ("studies", "labelled", "present"))
        bar = _bar(row["prevalence"], row["previous_prevalence"])
        share = f"<td class=number>{_percent(row['prevalence'])}</td>"
        before = f"<td class=number>{_percent(row['previous_prevalence'])}</td>"
        rows.append(f"<tr><td>{escape(row['finding'])}</td>{numbers}{share}<td>{bar}</td>{before}</tr>")
    return _table(("finding", "#studies", "#labelled", "#present", "#prevalence", "", "#snapshot before"), rows)


def _sites(sites: list[dict[str, Any]]) -> str:
    rows = []
    for row in sites:
        cells = f"<td>{escape(str(row['site']))}</td><td class=number>{row['images']:,}</td>"
        share = f"<td class=number>{_percent(row['share'])}</td><td>{_bar(row['share'], row['previous_share'])}</td>"
        rows.append(f"<tr>{cells}{share}<td class=number>{_percent(row['previous_share'])}</td></tr>")
    return _table(("site", "#images", "#share", "", "#snapshot before"), rows)


def _batches(batches: list[dict[str, Any]]) -> str:
    rows = []
    for row in batches:
        words = f"<td>{escape(str(row['batch']))}</td><td>{escape(str(row['site'] or 'several'))}</td>"
        numbers = [f"{row['images']:,}", f"{row['refused']:,}"]
        numbers += ["" if row[name] is None else f"{row[name]:.2f}" for name in row if name.endswith("_shift")]
        rows.append(f"<tr>{words}{''.join(f'<td class=number>{number}</td>' for number in numbers)}</tr>")
    note = '<p class="soft">Shifts: distance of the median from all other images, in robust standard deviations.</p>'
    names = ("batch", "site", "#images", "#refused", "#exposure shift", "#contrast shift", "#saturation shift")
    return _table(names, rows) + note


def _measures(measures: dict[str, dict[str, Any]]) -> str:
    return '<div class="charts">' + "".join(_chart(name, histogram) for name, histogram in measures.items()) + "</div>"


def _chart(name: str, histogram: dict[str, Any]) -> str:
    counts: list[int] = histogram["counts"]
    top, width, height = max([*counts, 1]), 280, 90
    step = width / max(1, len(counts))
    bars = "".join(
        f'<rect x="{place * step:.1f}" y="{height - height * count / top:.1f}" width="{step - 1:.1f}" '
        f'height="{height * count / top:.1f}" fill="var(--bar)"><title>{count} images</title></rect>'
        for place, count in enumerate(counts)
    )
    axis = f'<line x1="0" x2="{width}" y1="{height}" y2="{height}" stroke="var(--line)"/>'
    text = f"{name}, {histogram['low']:g} to {histogram['high']:g}; tallest bar {top:,} images"
    size = f'width="{width}" height="{height + 1}" role="img" aria-label="{escape(text)}"'
    return f"<figure><svg {size}>{bars}{axis}</svg><figcaption>{escape(text)}</figcaption></figure>"


def _bar(share: float | None, before: float | None) -> str:
    """A bar of the share, with a tick where the snapshot before was."""
    if share is None:
        return ""
    tick = "" if before is None else f'<rect x="{160 * before:.1f}" y="0" width="2" height="14" fill="var(--ink)"/>'
    bar = f'<rect x="0" y="3" width="{160 * share:.1f}" height="8" fill="var(--bar)"/>'
    return f'<svg width="162" height="14" aria-hidden="true">{bar}{tick}</svg>'


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def _table(names: Iterable[str], rows: list[str]) -> str:
    """A table; a name that begins with # heads a column of numbers."""
    head = "".join(f"<th class=number>{name[1:]}</th>" if name[:1] == "#" else f"<th>{name}</th>" for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
