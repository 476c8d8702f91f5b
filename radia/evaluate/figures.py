"""The figures of an evaluation and of monitoring: functions from their dicts to a matplotlib figure."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Evaluation = Mapping[str, Any]

INK, MUTED, GRID = "#1c2330", "#5b6577", "#e3e7ee"
COLOURS = {"base": "#97a3b6", "candidate": "#1d5fbf", "reader": "#c8641b"}
OTHERS = ("#7a4fa3", "#2a8f96")
"""Colours of further models, in their order."""
RATES = {"sensitivity": "#1d5fbf", "specificity": "#97a3b6", "PPV": "#c8641b"}
GOOD, BAD = "#1b7f4b", "#b3261e"
DEFAULT_NAMES = {"base": "model in use", "candidate": "candidate"}
MODELS = ("base", "candidate")


def final_results(evaluation: Evaluation, names: Mapping[str, str] = DEFAULT_NAMES) -> Figure:
    """AUROC and F1 of each finding and of the means, both models, with 95% intervals; readers where there are some."""
    findings = _by_candidate_auroc(evaluation)
    pools = [pool for pool in ("all", "competition-5") if _mean(evaluation, pool, "auroc")["value"] is not None]
    rows = [*(_label(evaluation, finding) for finding in findings), *(_pool_label(evaluation, pool) for pool in pools)]
    figure, axes = subplots(1, 2, width=11.5, height=0.36 * len(rows) + 1.5, sharey=True)
    for axis, metric, title in zip(axes.flat, ("auroc", "f1"), ("AUROC", "F1 at the threshold"), strict=True):
        for position, place in enumerate([*findings, *pools]):
            y = position + 0.6 * (place in pools)
            for model, offset in (("base", 0.16), ("candidate", -0.16)):
                entry = _entry(evaluation, model, place, metric)
                interval(axis, entry, y + offset, COLOURS[model], "D" if place in pools else "o")
            for other, colour in zip(evaluation.get("others", {}).values(), OTHERS, strict=False):
                table = other["findings" if place in other["findings"] else "means"]
                interval(axis, table[place][metric], y, colour, "D" if place in pools else "o")
            for value in _reader_values(evaluation, place, metric):
                axis.plot(value, y, marker="|", color=COLOURS["reader"], markersize=9, markeredgewidth=1.8)
        axis.axhline(len(findings) - 0.2, color=GRID, linewidth=1.2)
        axis.set_title(title, loc="left", color=INK)
        axis.set_xlim(*_range(evaluation, [*findings, *pools], metric))
        axis.grid(axis="x")
    ticks = [position + 0.6 * (position >= len(findings)) for position in range(len(rows))]
    axes.flat[0].set_yticks(ticks, rows)
    axes.flat[0].set_ylim(ticks[-1] + 0.6, -0.7)
    for label in axes.flat[0].get_yticklabels()[len(findings) :]:
        label.set_fontweight("bold")
    _legend(figure, names, readers=bool(evaluation.get("readers")), others=evaluation.get("others", ()))
    return figure


def roc_curves(evaluation: Evaluation, names: Mapping[str, str] = DEFAULT_NAMES) -> Figure:
    """One small ROC plot a finding, with the readers' points."""

    def draw(axis: Axes, finding: str) -> None:
        axis.plot([0, 1], [0, 1], color=GRID, linewidth=1)
        for model in MODELS:
            _line(axis, evaluation["curves"][model][finding]["roc"], COLOURS[model])
        for reader in _readers_of(evaluation, finding):
            if reader["specificity"]["value"] is not None and reader["sensitivity"]["value"] is not None:
                point = (1 - reader["specificity"]["value"], reader["sensitivity"]["value"])
                axis.plot(*point, marker="x", color=COLOURS["reader"], markersize=6, markeredgewidth=1.6)
        _corner(axis, _pair(evaluation, finding, "auroc"))

    return _small_multiples(evaluation, draw, "1 - specificity", "sensitivity", names)


def pr_curves(evaluation: Evaluation, names: Mapping[str, str] = DEFAULT_NAMES) -> Figure:
    """One small precision-recall plot a finding, with the prevalence as the level of chance."""

    def draw(axis: Axes, finding: str) -> None:
        prevalence = evaluation["models"]["base"]["findings"][finding]["prevalence"]
        if prevalence is not None:
            axis.axhline(prevalence, color=GRID, linewidth=1)
        for model in MODELS:
            _line(axis, evaluation["curves"][model][finding]["pr"], COLOURS[model])
        for reader in _readers_of(evaluation, finding):
            if reader["ppv"]["value"] is not None and reader["sensitivity"]["value"] is not None:
                point = (reader["sensitivity"]["value"], reader["ppv"]["value"])
                axis.plot(*point, marker="x", color=COLOURS["reader"], markersize=6, markeredgewidth=1.6)
        _corner(axis, _pair(evaluation, finding, "auprc"), top=True)

    return _small_multiples(evaluation, draw, "sensitivity (recall)", "PPV (precision)", names)


def calibration(evaluation: Evaluation, names: Mapping[str, str] = DEFAULT_NAMES) -> Figure:
    """Predicted probability against the part truly present, by tenths; the area of a point grows with its images."""

    def draw(axis: Axes, finding: str) -> None:
        axis.plot([0, 1], [0, 1], color=GRID, linewidth=1)
        for model in MODELS:
            points = np.array(evaluation["curves"][model][finding]["calibration"]).reshape(-1, 3)
            if len(points):
                size = 6 + 60 * points[:, 2] / points[:, 2].sum()
                axis.plot(points[:, 0], points[:, 1], color=COLOURS[model], linewidth=0.8, alpha=0.35)
                axis.scatter(points[:, 0], points[:, 1], s=size, color=COLOURS[model], linewidth=0)
        _corner(axis, _pair(evaluation, finding, "ece"))

    return _small_multiples(evaluation, draw, "predicted probability", "part present", names)


def subgroup_forest(evaluation: Evaluation, names: Mapping[str, str] = DEFAULT_NAMES) -> Figure:
    """Each subgroup's mean AUROC, its gain with 95% interval, and how often the sick are called healthy."""
    groups = [g for g in evaluation["groups"] if "×" not in g["attribute"]]
    rows, places, attribute, y = [], [], None, -1.0
    for group in groups:
        y += 1.0 if group["attribute"] == attribute else 1.5
        attribute = group["attribute"]
        places.append(y)
        rows.append(f"{attribute.replace('_', ' ')}: {group['group']}  (n = {group['n']})")
    healthy = any("underdiagnosis" in group for group in groups)
    height = 0.34 * (places[-1] if places else 1) + 1.6
    figure, axes = subplots(1, 2 + healthy, width=11.5, height=height, sharey=True)
    left, right = axes.flat[:2]
    for group, y in zip(groups, places, strict=True):
        _both(left, group["means"]["auroc"], y)
        gain = group["means"]["auroc"]["difference"]
        sure = gain["low"] is not None and (gain["low"] > 0 or gain["high"] < 0)
        colour = (GOOD if gain["value"] > 0 else BAD) if sure else MUTED
        interval(right, gain, y, colour, "s")
        if "underdiagnosis" in group:
            _both(axes.flat[2], group["underdiagnosis"], y)
    right.axvline(0, color=INK, linewidth=0.8)
    titles = ("mean AUROC", "gain in mean AUROC", "sick called healthy")
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(title, loc="left")
        axis.grid(axis="x")
    left.set_yticks(places, rows)
    left.set_ylim((places[-1] if places else 0) + 0.8, (places[0] if places else 0) - 0.8)
    _legend(figure, names, readers=False)
    return figure


def by_threshold(evaluation: Evaluation, names: Mapping[str, str] = DEFAULT_NAMES) -> Figure:
    """The candidate's sensitivity, specificity and PPV at every threshold, and where the threshold in force lies."""

    def draw(axis: Axes, finding: str) -> None:
        points = np.array(evaluation["curves"]["candidate"][finding]["by_threshold"]).reshape(-1, 4)
        for column, colour in enumerate(RATES.values(), start=1):
            axis.plot(points[:, 0], points[:, column], color=colour, linewidth=1.5, drawstyle="steps-post")
        axis.axvline(evaluation["models"]["candidate"]["thresholds"][finding], color=INK, linewidth=0.9, linestyle=":")

    return _small_multiples(evaluation, draw, "threshold", "part", names, colours=RATES)


def _both(axis: Axes, entry: Mapping[str, Any], y: float) -> None:
    for model, offset in (("base", 0.16), ("candidate", -0.16)):
        interval(axis, entry[model], y + offset, COLOURS[model])


def confusion(evaluation: Evaluation, names: Mapping[str, str] = DEFAULT_NAMES) -> Figure:
    """The candidate's decisions at its thresholds: counts of found, missed, false alarms and rightly cleared."""
    findings = list(evaluation["findings"])
    figure, axes = _grid(len(findings))
    for axis, finding in zip(axes.flat, findings, strict=False):
        tp, fp, fn, tn = evaluation["curves"]["candidate"][finding]["confusion"]
        threshold = evaluation["models"]["candidate"]["thresholds"][finding]
        for (row, column), count, total, good in (
            ((0, 0), tp, tp + fn, True),
            ((0, 1), fn, tp + fn, False),
            ((1, 0), fp, fp + tn, False),
            ((1, 1), tn, fp + tn, True),
        ):
            part = count / total if total else 0.0
            axis.add_patch(_box(column, row, part, COLOURS["candidate"] if good else BAD))
            axis.text(column + 0.5, row + 0.44, f"{count}", ha="center", va="center", fontsize=10, color=INK)
            axis.text(column + 0.5, row + 0.72, f"{part:.0%}", ha="center", va="center", fontsize=7.5, color=MUTED)
        axis.set_xlim(0, 2)
        axis.set_ylim(2, 0)
        axis.set_xticks([0.5, 1.5], ["called", "not called"])
        axis.set_yticks([0.5, 1.5], ["present", "absent"], rotation=90, va="center")
        axis.tick_params(length=0)
        axis.set_title(f"{_short(finding)}  ≥ {threshold:.2f}", loc="left", fontsize=9, color=INK)
    for axis in axes.flat[len(findings) :]:
        axis.set_visible(False)
    return figure


WAYS = {"given labels": "#97a3b6", "reads only": "#c8641b", "noise-aware": "#1d5fbf"}
"""The three ways of estimating, and their colours."""


def three_ways(rows: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]) -> Figure:
    """The candidate's AUROC and F1 by the given labels, by the reads alone, and by both: row -> way -> metric -> value.

    The last row is the mean.
    """
    figure, axes = subplots(1, 2, width=11.5, height=0.42 * len(rows) + 1.3, sharey=True)
    for axis, metric, title in zip(axes.flat, ("auroc", "f1"), ("AUROC", "F1 at the threshold"), strict=True):
        for y, ways in enumerate(rows.values()):
            for (way, colour), offset in zip(WAYS.items(), (-0.24, 0.0, 0.24), strict=True):
                interval(axis, ways[way][metric], y + offset, colour, "D" if y == len(rows) - 1 else "o")
        axis.axhline(len(rows) - 1.5, color=GRID, linewidth=1.2)
        axis.set_title(title, loc="left", color=INK)
        axis.set_xlim(0.0 if metric == "f1" else _lowest(rows, metric), 1.015)
        axis.grid(axis="x")
    axes.flat[0].set_yticks(range(len(rows)), list(rows))
    axes.flat[0].set_ylim(len(rows) - 0.4, -0.6)
    axes.flat[0].get_yticklabels()[-1].set_fontweight("bold")
    named_legend(figure, WAYS)
    return figure


def _lowest(rows: Mapping[str, Any], metric: str) -> float:
    values = [entry[metric]["value"] for ways in rows.values() for entry in ways.values()]
    known = [value for value in values if value is not None]
    return float(max(0.0, min([0.45, *(value - 0.15 for value in known)])))


FIGURES: dict[str, tuple[str, Callable[[Evaluation, Mapping[str, str]], Figure]]] = {
    "final_results": ("Results by finding", final_results),
    "subgroups": ("Who gains: subgroups", subgroup_forest),
    "roc": ("ROC curves", roc_curves),
    "precision_recall": ("Precision and recall", pr_curves),
    "calibration": ("Calibration", calibration),
    "confusion": ("Decisions of the candidate at its thresholds", confusion),
    "by_threshold": ("Decisions of the candidate at other thresholds", by_threshold),
}
"""File name: title and drawing function, in the order of the page."""


def draw_shift(by_site: Mapping[str, Any], title: str = "") -> Figure:
    """A panel a site (`radia.monitoring.shift_by_site`): where each measure and probability lies now, and where it lay.

    Bars hold the middle half of the images, lines nine in ten, in units in which the reference's line is 1 long.
    """
    sites = [site for site, entry in by_site.items() if "why" not in entry]
    names = [*by_site[sites[0]]["measures"], *by_site[sites[0]]["predictions"]] if sites else []
    height = 0.25 * len(names) + 1.6
    figure, axes = subplots(1, max(len(sites), 1), width=2.2 + 3.6 * max(len(sites), 1), height=height, sharey=True)
    for axis, site in zip(axes.flat, sites, strict=False):
        entries = {**by_site[site]["measures"], **by_site[site]["predictions"]}
        for y, name in enumerate(names):
            _moved(axis, entries[name], y)
        embeddings = by_site[site]["embeddings"]
        axis.set_title(f"{site}: {by_site[site]['n']} images", loc="left")
        axis.set_xlabel(
            f"features: MMD² {embeddings['mmd']:.3f}, p {embeddings['p']:.3f}",
            fontsize=9,
            color=BAD if embeddings["shifted"] else MUTED,
        )
        axis.set_xlim(-1.6, 2.1)
        axis.set_xticks([])
        axis.axhline(len(by_site[site]["measures"]) - 0.5, color=GRID, linewidth=1.2)
    axes.flat[0].set_yticks(range(len(names)), names)
    axes.flat[0].set_ylim(len(names) - 0.4, -0.6)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    _legend(figure, {"base": "reference", "candidate": "now"}, readers=False)
    return figure


def _moved(axis: Axes, entry: Mapping[str, Any], y: float) -> None:
    old, new = (np.array(entry["quantiles"][side]) for side in ("reference", "current"))
    unit = float(old[-1] - old[0]) or 1.0
    for values, offset, colour in ((old, -0.16, COLOURS["base"]), (new, 0.16, COLOURS["candidate"])):
        at = np.clip((values - old[2]) / unit, -1.55, 1.55)
        axis.plot(at[[0, -1]], [y + offset] * 2, color=colour, linewidth=1)
        axis.plot(at[[1, 3]], [y + offset] * 2, color=colour, linewidth=3.5, solid_capstyle="butt")
    colour = BAD if entry["shifted"] else MUTED
    axis.text(2.08, y, f"{entry['psi']:.2f}", ha="right", va="center", fontsize=8, color=colour)


def png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """A figure as PNG. Without the date and version that matplotlib would add, the same values give the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()


# --- what the figures share -----------------------------------------------------------------------------------------


def subplots(rows: int, columns: int, *, width: float, height: float, sharey: bool = False) -> tuple[Figure, Any]:
    """A figure of its own, without pyplot's global state: safe in threads and on machines without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color("#b8c0cc")
        axis.tick_params(colors=INK, labelsize=9, color="#b8c0cc")
        axis.title.set_color(INK)
        axis.title.set_fontsize(10.5)
        axis.set_axisbelow(True)
        axis.grid(color=GRID, linewidth=0.8)
        axis.grid(visible=False)
    return figure, axes


def _grid(count: int) -> tuple[Figure, Any]:
    columns = min(5, max(count, 1))
    rows = -(-count // columns) or 1
    return subplots(rows, columns, width=11.5, height=2.35 * rows + 0.5)


def _small_multiples(
    evaluation: Evaluation,
    draw: Callable[[Axes, str], None],
    x: str,
    y: str,
    names: Mapping[str, str],
    *,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """A small plot a finding; the legend names the models, or else the colours given."""
    findings = _labelled(evaluation)
    figure, axes = _grid(len(findings))
    for axis, finding in zip(axes.flat, findings, strict=False):
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        axis.tick_params(labelsize=8)
        positives = evaluation["models"]["base"]["findings"][finding]["positives"]
        axis.set_title(f"{_short(finding)} ({positives})", loc="left", fontsize=9, color=INK)
        draw(axis, finding)
    for axis in axes.flat[len(findings) :]:
        axis.set_visible(False)
    figure.supxlabel(x, fontsize=9.5, color=MUTED)
    figure.supylabel(y, fontsize=9.5, color=MUTED)
    if colours is None:
        _legend(figure, names, readers=bool(evaluation.get("readers")))
    else:
        named_legend(figure, colours)
    return figure


def interval(axis: Axes, entry: Mapping[str, Any], y: float, colour: str, marker: str = "o") -> None:
    """A value and its limits at height y; nothing where there is no value."""
    if entry["value"] is None:
        return
    if entry["low"] is not None:
        axis.plot([entry["low"], entry["high"]], [y, y], color=colour, linewidth=2, solid_capstyle="round", alpha=0.75)
    axis.plot(
        entry["value"], y, marker=marker, color=colour, markersize=6, markeredgecolor="white", markeredgewidth=0.8
    )


def _line(axis: Axes, points: Sequence[Sequence[float]], colour: str) -> None:
    if points:
        axis.plot(*np.array(points).T, color=colour, linewidth=1.7)


def _corner(axis: Axes, text: str, *, top: bool = False) -> None:
    """A word in the right corner where curves seldom go: below in an ROC plot, above in a precision-recall plot."""
    y, side = (0.96, "top") if top else (0.05, "bottom")
    axis.text(0.97, y, text, transform=axis.transAxes, ha="right", va=side, fontsize=8, color=INK, bbox=_PALE)


_PALE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}


def _pair(evaluation: Evaluation, finding: str, metric: str) -> str:
    """'0.71 → 0.83': the model in use, then the candidate."""
    values = [evaluation["models"][model]["findings"][finding][metric]["value"] for model in MODELS]
    return " → ".join("?" if value is None else f"{value:.2f}" for value in values)


def _box(x: float, y: float, part: float, colour: str) -> Any:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    shade = (*to_rgba(colour)[:3], 0.06 + 0.4 * part)
    return Rectangle((x + 0.02, y + 0.02), 0.96, 0.96, facecolor=shade, edgecolor="none")


def _legend(figure: Figure, names: Mapping[str, str], *, readers: bool, others: Iterable[str] = ()) -> None:
    from matplotlib.lines import Line2D

    known = {**{names[model]: COLOURS[model] for model in MODELS}, **dict(zip(others, OTHERS, strict=False))}
    handles = [Line2D([], [], color=colour, linewidth=2.5, marker="o", label=name) for name, colour in known.items()]
    if readers:
        mark = Line2D(
            [], [], color=COLOURS["reader"], linewidth=0, marker="x", markeredgewidth=1.6, label="radiologists"
        )
        handles.append(mark)
    figure.legend(handles=handles, loc="outside upper right", ncols=5, frameon=False, fontsize=9.5, labelcolor=INK)


def named_legend(figure: Figure, colours: Mapping[str, str]) -> None:
    """Names of colours above the figure, at its right."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=2.5, marker="o", label=name) for name, colour in colours.items()]
    figure.legend(
        handles=handles, loc="outside upper right", ncols=len(colours), frameon=False, fontsize=9.5, labelcolor=INK
    )


def _short(finding: str) -> str:
    """A finding's name, cut to the width of a small plot."""
    return finding if len(finding) <= 20 else f"{finding[:18]}…"


def _labelled(evaluation: Evaluation) -> list[str]:
    """The findings of which at least one label is known: not every set from elsewhere labels all."""
    table = evaluation["models"]["candidate"]["findings"]
    return [finding for finding in evaluation["findings"] if table[finding]["n"]]


def _by_candidate_auroc(evaluation: Evaluation) -> list[str]:
    table = evaluation["models"]["candidate"]["findings"]
    return sorted(_labelled(evaluation), key=lambda f: -(table[f]["auroc"]["value"] or 0.0))


def _label(evaluation: Evaluation, finding: str) -> str:
    entry = evaluation["models"]["candidate"]["findings"][finding]
    return f"{finding}{' *' if 'why' in entry else ''}  ({entry['positives']})"


def _pool_label(evaluation: Evaluation, pool: str) -> str:
    over = _mean(evaluation, pool, "auroc")["over"]
    return f"mean of {over}" if pool == "all" else f"mean of the competition's {over}"


def _mean(evaluation: Evaluation, pool: str, metric: str, model: str = "candidate") -> Mapping[str, Any]:
    entry: Mapping[str, Any] = evaluation["models"][model]["means"][pool][metric]
    return entry


def _entry(evaluation: Evaluation, model: str, place: str, metric: str) -> Mapping[str, Any]:
    if place in evaluation["models"][model]["findings"]:
        entry: Mapping[str, Any] = evaluation["models"][model]["findings"][place][metric]
        return entry
    return _mean(evaluation, place, metric, model)


def _range(evaluation: Evaluation, places: Sequence[str], metric: str) -> tuple[float, float]:
    """From a little below the lowest value to 1; a very wide interval may leave the picture."""
    values = [_entry(evaluation, model, place, metric)["value"] for model in MODELS for place in places]
    lowest = min((value for value in values if value is not None), default=0.0)
    return (max(min(lowest - 0.15, 0.45), 0.0) if metric == "auroc" else 0.0), 1.015


def _readers_of(evaluation: Evaluation, finding: str) -> list[Mapping[str, Any]]:
    readers = (evaluation.get("readers") or {}).get("each", {})
    return [entry["findings"][finding] for entry in readers.values() if finding in entry["findings"]]


def _reader_values(evaluation: Evaluation, place: str, metric: str) -> list[float]:
    """Each reader's F1 of a finding or of a mean over findings."""
    if metric != "f1":
        return []
    readers = (evaluation.get("readers") or {}).get("each", {}).values()
    parts = [entry["findings" if place in entry["findings"] else "means"].get(place) for entry in readers]
    return [part["f1"]["value"] for part in parts if part and part["f1"]["value"] is not None]
