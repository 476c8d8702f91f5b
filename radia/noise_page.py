"""The page `noise.html`: how noisy the labels are, for whom, how far readers agree, and what more reads would give.

One self-contained HTML page in the style of the evaluation's report, and its figures as PNG. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radia.evaluate.figures import GRID, INK, MUTED, interval, named_legend, png, subplots
from radia.evaluate.noisy_page import SIMULATED_BANNER
from radia.evaluate.page import Picture, Section, document, gallery, img_html, section_html
from radia.workspace import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

READ, INFERRED = "#c8641b", "#1d5fbf"
HALF_WIDTHS = (0.05, 0.03)
"""Precisions for which the page says how many more reads are needed."""
GROUP_TITLES = {"site": "site", "language": "language of the report", "cue": "what in the report gave the label"}


def write_noise(folder: Path, noise: Mapping[str, Any], *, pictures: Sequence[Picture] = ()) -> Path:
    """Writes folder/noise.html and folder/figures/noise_*.png; returns the page's path.

    noise: `steps.noise`'s JSON: label noise (radia/noise.py) where there are reads, `suspected`, `agreement`, `power`,
    `queue`, `simulated`, `bound`.
    """
    drawn = _figures(noise)
    (folder / "figures").mkdir(exist_ok=True)
    for name, content in drawn.items():
        with written_whole(folder / "figures" / f"{name}.png") as partial:
            partial.write_bytes(content)
    with written_whole(folder / "noise.html") as partial:
        partial.write_text(_page(noise, drawn, pictures), encoding="utf-8")
    return folder / "noise.html"


def sentence(noise: Mapping[str, Any]) -> str:
    """What the reads say of the labels, in two or three sentences."""
    if not noise.get("read"):
        expected = noise.get("suspected") or {}
        doubt = (
            f" Unverified, the model in use doubts {np.mean(list(expected.values())):.1%} of them." if expected else ""
        )
        return f"No test study was read again: how many of the given labels are wrong is not known.{doubt}"
    labels = noise["labels"]
    text = (
        f"{_percent(labels['wrong'])} of the given labels of the test side are wrong: of what is truly there, "
        f"{_percent(labels['missed'])} was missed; of what was called present, {_percent(labels['invented'])} is not "
        f"there. {noise['read']} of {noise['studies']} studies were read again, blind, by "
        f"{_by(noise['readers'])}."
    )
    if noise["noisiest"]:
        return f"{text} Surely wrong more often than {noise['bound']:.0%}: {', '.join(noise['noisiest'])}."
    return text


# --- the page -------------------------------------------------------------------------------------------------------


def _page(noise: Mapping[str, Any], drawn: Mapping[str, bytes], pictures: Sequence[Picture]) -> str:
    parts = [
        "<header><h1>How noisy the labels are</h1><p class=sub>Blind reads of the test side, weighted by the "
        'probability with which they were asked for. <a href="report.html">Back to the evaluation</a></p></header>',
        SIMULATED_BANNER if noise.get("simulated") else "",
        f'<p class="lead">{escape(sentence(noise))}</p>',
    ]
    sections = _with_reads(noise, drawn, pictures) if noise.get("read") else _without_reads(noise)
    sections += [_agreement_section(noise), _power_section(noise, drawn), _queue_section(noise)]
    parts += [section_html(section) for section in sections if section is not None]
    return document("How noisy the labels are", "".join(parts))


def _with_reads(
    noise: Mapping[str, Any], drawn: Mapping[str, bytes], pictures: Sequence[Picture]
) -> list[Section | None]:
    sections: list[Section | None] = [
        Section(
            "Labels that are wrong, by finding",
            "<p class=note>Share of the given labels that are wrong. Read: from the re-read studies alone, weighted. "
            "Inferred: with the scores and labels of all studies. Bars are 95% intervals.</p>"
            + img_html(drawn["noise_findings"], "Noise rate by finding")
            + _findings_table(noise),
        )
    ]
    for attribute, values in noise["groups"].items():
        title = f"By {GROUP_TITLES.get(attribute, attribute)}"
        picture = img_html(drawn[f"noise_{attribute}"], title)
        sections.append(Section(title, picture + _group_table(attribute, values)))
    if not {"language", "cue"} & set(noise["groups"]):
        sections.append(
            Section(
                "By language and cue of the report",
                "<p class=note>Not known: these labels came as a table, not from reports that RADIA read.</p>",
            )
        )
    if pictures:
        sections.append(
            Section(
                "Labels that readers overruled",
                "<p class=note>Studies whose reads are settled. What was given, what readers decided, and how many "
                "they were.</p>" + gallery(pictures),
            )
        )
    return sections


def _without_reads(noise: Mapping[str, Any]) -> list[Section | None]:
    suspected = noise.get("suspected") or {}
    rows = "".join(
        f"<tr><td>{escape(finding)}<td>{share:.1%}</tr>"
        for finding, share in sorted(suspected.items(), key=lambda item: -item[1])
    )
    return [
        Section(
            "What can be said without reads",
            '<ul class="plain"><li><b>Can be said:</b> which labels the model in use doubts, and how many reads would '
            "settle the question (below).</li><li><b>Cannot be said:</b> how many labels are wrong, and with that, how "
            "good any model is: a doubt may be the model's own error.</li></ul>"
            f"<table class=numbers><thead><tr><th>finding<th>labels in doubt, unverified</tr></thead>{rows}</table>",
        )
    ]


def _findings_table(noise: Mapping[str, Any]) -> str:
    rows = []
    for finding, entry in _by_rate(noise).items():
        counts = entry["confusion"]
        cells = [
            escape(finding),
            str(entry["reads"]),
            _cell(entry["wrong"]),
            *(_cell(entry["inferred"][kind]) for kind in ("wrong", "missed", "invented")),
            *(f"{counts[name]['present']} / {counts[name]['absent']}" for name in counts),
        ]
        rows.append(f"<tr>{''.join(f'<td>{cell}' for cell in cells)}</tr>")
    given = "".join(f"<th>given {name}" for name in ("present", "absent", "uncertain", "blank"))
    return (
        '<div class="wide"><table class="numbers"><thead><tr><th>finding<th>reads<th>wrong, read<th>wrong, inferred'
        f"<th>missed, inferred<th>invented, inferred{given}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        "<p class=note>Missed: of what is truly there. Invented: of what was called present. A blank label counts as "
        "absent; an uncertain one is left out of the rates. The last columns count reads, unweighted: "
        "present / absent as read, by what was given.</p>"
    )


def _group_table(attribute: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(value)}<td>{entry['studies']}<td>{entry['reads']}<td>{_cell(entry['wrong'])}"
        f"<td>{_cell(entry['missed'])}<td>{_cell(entry['invented'])}</tr>"
        for value, entry in values.items()
    )
    return (
        f'<table class="numbers"><thead><tr><th>{escape(GROUP_TITLES.get(attribute, attribute))}<th>studies'
        f"<th>labels read<th>wrong<th>missed<th>invented</tr></thead><tbody>{rows}</tbody></table>"
        "<p class=note>All findings together, from the reads alone, weighted; studies are the unit.</p>"
    )


def _agreement_section(noise: Mapping[str, Any]) -> Section | None:
    found = noise.get("agreement") or {}
    rows = [row for row in found.get("findings", []) if row["studies"]]
    if not rows:
        return None
    by_finding = "".join(
        f"<tr><td>{escape(row['finding'])}<td>{row['studies']}<td>{row['agreement']:.0%}"
        f"<td>{_kappa(row['fleiss'], row['low'], row['high'])}<td>{_kappa(row['cohen'])}</tr>"
        for row in rows
    )
    people = "".join(
        f"<tr><td>{escape(pair['first'])}<td>{escape(pair['second'] if pair['second'] != pair['first'] else 'again')}"
        f"<td>{pair['studies']}<td>{'' if pair['agreement'] is None else format(pair['agreement'], '.0%')}"
        f"<td>{_kappa(pair['kappa'], pair['low'], pair['high'])}</tr>"
        for pair in (*found["pairs"], *found["again"])
    )
    return Section(
        "How far readers agree",
        "<p class=note>Of blind reads, before any adjudication. Kappa: 1 is full agreement, 0 what chance gives. One "
        "reader is not the truth: where readers disagree, the figures above are no surer than they are.</p>"
        '<div class="wide"><table class="numbers"><thead><tr><th>finding<th>read by two or more<th>agree'
        f"<th>Fleiss' kappa<th>Cohen's kappa, mean of pairs</tr></thead><tbody>{by_finding}</tbody></table></div>"
        '<h3>Reader by reader</h3><table class="numbers"><thead><tr><th>reader<th>and<th>studies<th>agree'
        f"<th>Cohen's kappa, mean of findings</tr></thead><tbody>{people}</tbody></table>",
    )


def _power_section(noise: Mapping[str, Any], drawn: Mapping[str, bytes]) -> Section | None:
    power = noise.get("power") or {}
    if not power:
        return None
    head = "".join(f"<th>further reads for ±{width:g}" for width in HALF_WIDTHS)
    rows = "".join(
        f"<tr><td>{escape(finding)}{''.join(f'<td>{_needed(curve, width)}' for width in HALF_WIDTHS)}</tr>"
        for finding, curve in power.items()
    )
    return Section(
        "What more reads would give",
        "<p class=note>Half-width of the candidate's 95% interval for AUROC against further evaluation reads, "
        "simulated from what is known now. <code>radia reads plan</code> answers for other metrics and widths.</p>"
        + img_html(drawn["noise_power"], "Interval width against further reads")
        + f'<table class="numbers"><thead><tr><th>finding{head}</tr></thead><tbody>{rows}</tbody></table>',
    )


def _queue_section(noise: Mapping[str, Any]) -> Section | None:
    states = (noise.get("queue") or {}).get("states") or {}
    if not states:
        return None
    rows = "".join(
        f"<tr><td>{escape(name)}<td>{escape(state)}<td>{count}</tr>"
        for name, counts in states.items()
        for state, count in counts.items()
    )
    people = ", ".join(f"{escape(name)}: {count}" for name, count in noise["queue"].get("readers", {}).items())
    set_aside = noise["queue"].get("model_visible", 0)
    aside = (
        f" {set_aside} reads were made with the model's output visible: kept, and never counted." if set_aside else ""
    )
    left_out = (
        ""
        if not noise.get("undecided")
        else (
            f" {noise['undecided']} labels of evaluation studies still wait for an adjudicator and are left out: they "
            "are the hard ones, so that the figures above are a little too kind until they are settled."
        )
    )
    return Section(
        "The queues",
        f'<table class="numbers"><thead><tr><th>queue<th>state<th>studies</tr></thead><tbody>{rows}</tbody></table>'
        f"<p class=note>Studies read: {people or 'none'}.{escape(aside)}{escape(left_out)} Only the evaluation queue "
        "counts on this page; reads of suspect labels go into training: here they would make estimates too kind.</p>",
    )


# --- figures --------------------------------------------------------------------------------------------------------


def _figures(noise: Mapping[str, Any]) -> dict[str, bytes]:
    drawn = {}
    if noise.get("read"):
        drawn["noise_findings"] = png(_findings_figure(noise))
        drawn |= {f"noise_{name}": png(_group_figure(values)) for name, values in noise["groups"].items()}
    if noise.get("power"):
        drawn["noise_power"] = png(_power_figure(noise["power"]))
    return drawn


def _findings_figure(noise: Mapping[str, Any]) -> Figure:
    entries = _by_rate(noise)
    figure, axes = subplots(1, 3, width=11.5, height=0.36 * len(entries) + 1.3, sharey=True)
    titles = ("wrong, of all labels", "missed, of what is there", "invented, of what was called present")
    for axis, kind, title in zip(axes.flat, ("wrong", "missed", "invented"), titles, strict=True):
        for y, entry in enumerate(entries.values()):
            interval(axis, entry[kind], y + 0.17, READ)
            interval(axis, entry["inferred"][kind], y - 0.17, INFERRED)
        axis.set_title(title, loc="left")
        axis.set_xlim(-0.01, _upper([entry["inferred"][kind] for entry in entries.values()]))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.grid(axis="x")
    axes.flat[0].axvline(noise["bound"], color=INK, linewidth=0.8, linestyle=":")
    axes.flat[0].set_yticks(range(len(entries)), list(entries))
    axes.flat[0].set_ylim(len(entries) - 0.4, -0.6)
    named_legend(figure, {"read": READ, "inferred": INFERRED})
    return figure


def _group_figure(values: Mapping[str, Any]) -> Figure:
    figure, axes = subplots(1, 1, width=11.5, height=0.42 * len(values) + 1.0)
    axis = axes.flat[0]
    for y, entry in enumerate(values.values()):
        interval(axis, entry["wrong"], y, READ)
    axis.set_yticks(range(len(values)), [f"{value}  ({entry['reads']} labels read)" for value, entry in values.items()])
    axis.set_ylim(len(values) - 0.4, -0.6)
    axis.set_xlim(-0.005, _upper([entry["wrong"] for entry in values.values()]))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set_title("labels that are wrong", loc="left")
    axis.grid(axis="x")
    return figure


def _power_figure(power: Mapping[str, Sequence[Sequence[float | None]]]) -> Figure:
    columns = min(5, max(len(power), 1))
    rows = -(-len(power) // columns)
    figure, axes = subplots(rows, columns, width=11.5, height=1.9 * rows + 0.6, sharey=True)
    for axis, (finding, curve) in zip(axes.flat, power.items(), strict=False):
        points = np.array([(reads, width) for reads, width in curve if width is not None], dtype=float).reshape(-1, 2)
        axis.plot(points[:, 0], points[:, 1], color=INFERRED, linewidth=1.8, marker="o", markersize=4)
        axis.axhline(HALF_WIDTHS[0], color=GRID, linewidth=1)
        axis.set_title(finding if len(finding) <= 20 else f"{finding[:18]}…", loc="left", fontsize=9)
        axis.set_xscale("log")
        axis.set_xticks([reads for reads, _ in curve], [f"{reads:.0f}" for reads, _ in curve])
        axis.minorticks_off()
        axis.tick_params(labelsize=8)
    widths = [width for curve in power.values() for _, width in curve if width is not None]
    axes.flat[0].set_ylim(0, min(0.5, 1.05 * max([0.1, *widths])))
    for axis in axes.flat[len(power) :]:
        axis.set_visible(False)
    figure.supxlabel("further reads", fontsize=9.5, color=MUTED)
    figure.supylabel("half-width of the interval", fontsize=9.5, color=MUTED)
    return figure


# --- words ----------------------------------------------------------------------------------------------------------


def _by_rate(noise: Mapping[str, Any]) -> dict[str, Any]:
    """The findings, the one with most wrong labels first."""
    entries = noise["findings"].items()
    return dict(sorted(entries, key=lambda item: -(item[1]["inferred"]["wrong"]["value"] or 0.0)))


def _upper(entries: Sequence[Mapping[str, Any]]) -> float:
    """An axis that shows the intervals, up to 1."""
    highs = [entry["high"] for entry in entries if entry["high"] is not None]
    return float(min(1.02, max([0.1, *highs]) * 1.1))


def _percent(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "not known"
    value = f"{entry['value']:.1%}"
    return value if entry["low"] is None else f"{value} ({entry['low']:.1%} to {entry['high']:.1%})"


def _cell(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "<i>not known</i>"
    limits = "" if entry["low"] is None else f"<small>{entry['low']:.1%} to {entry['high']:.1%}</small>"
    return f"{entry['value']:.1%}{limits}"


def _kappa(value: float | None, low: float | None = None, high: float | None = None) -> str:
    if value is None:
        return "not known"
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} ({low:.2f} to {high:.2f})"


def _by(readers: Mapping[str, int]) -> str:
    parts = [
        f"{number} readers ({count})" if number != "1" else f"one reader ({count})" for number, count in readers.items()
    ]
    return " or ".join(parts) or "an unknown number of readers"


def _needed(curve: Sequence[Sequence[float | None]], half_width: float) -> str:
    """Further reads at which a curve falls to the half-width, by interpolation on the logarithmic scale."""
    known = [(float(reads or 0), float(width)) for reads, width in curve if width is not None]
    for position, (reads, width) in enumerate(known):
        if width <= half_width:
            if position == 0:
                return f"{reads:.0f} or fewer"
            before, wider = known[position - 1]
            part = np.log(wider / half_width) / max(float(np.log(wider / max(width, 1e-9))), 1e-9)
            return f"{np.ceil(before * (reads / before) ** part):.0f}"
    return f"more than {known[-1][0]:.0f}" if known else "not known"
