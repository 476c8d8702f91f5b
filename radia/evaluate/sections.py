"""Further parts of the evaluation's page: sets from elsewhere, human readers, heat maps, crossed subgroups, shift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from radia.evaluate import figures
from radia.evaluate.candidate import sentence
from radia.evaluate.page import Section, img_html
from radia.metrics import shown

CROSSED_SHOWN = 12


def further_sections(evaluation: Mapping[str, Any], names: Mapping[str, str] = figures.DEFAULT_NAMES) -> list[Section]:
    """Every part for which the evaluation holds something, in the order of the page."""
    parts: list[Section | None] = [
        _readers_section("Human readers", evaluation),
        *(
            part
            for name, external in evaluation.get("external", {}).items()
            for part in (_external_section(name, external, names), _heat_section(name, external.get("heat_maps")))
        ),
        _heat_section("this site's held-out images", evaluation.get("heat_maps")),
        _crossed_section(evaluation.get("groups", [])),
        _shift_section(evaluation.get("shift")),
    ]
    return [part for part in parts if part is not None]


# --- sets from elsewhere, and readers -------------------------------------------------------------------------------


def _external_section(name: str, evaluation: Mapping[str, Any], names: Mapping[str, str]) -> Section:
    drawn = [figures.final_results(evaluation, names)]
    if evaluation.get("readers"):
        drawn += [figures.roc_curves(evaluation, names), figures.pr_curves(evaluation, names)]
    pictures = "".join(img_html(figures.png(figure), name) for figure in drawn)
    readers = _readers_section("", evaluation)
    note = (
        "<p class=note>Thresholds are those chosen on this hospital's validation part. Findings that the set does not "
        "label are left out of its means.</p>"
    )
    said = sentence(evaluation, **names).replace("held-out images", f"images of {name}")
    html = f'<p class="lead">{escape(said)}</p>{_models_table(evaluation, names)}{note}{pictures}'
    return Section(f"Elsewhere: {name}", html + (readers.html if readers else ""))


def _models_table(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    tables = {**{names[model]: table for model, table in evaluation["models"].items()}, **evaluation.get("others", {})}
    rows = []
    for name, table in tables.items():
        for pool in ("all", "competition-5"):
            mean = table["means"][pool]
            if mean["auroc"]["value"] is not None:
                cells = (shown(mean[metric]) for metric in ("auroc", "auprc", "f1", "mcc", "ece"))
                rows.append([name, f"{'mean of' if pool == 'all' else 'competition'} {mean['auroc']['over']}", *cells])
    return _table(["model", "findings", "AUROC", "AUPRC", "F1", "MCC", "ECE"], rows)


def _readers_section(title: str, evaluation: Mapping[str, Any]) -> Section | None:
    readers = evaluation.get("readers")
    if not readers:
        return None
    people = {**readers["each"], "mean of the readers": readers["mean"], "majority": readers["majority"]}
    rows = [
        [name, *(_pool(table, pool, metric) for pool in ("all", "competition-5") for metric in ("f1", "mcc"))]
        + [_pool(table, "all", metric) for metric in ("sensitivity", "specificity")]
        for name, table in {**people, "candidate": readers["model"]}.items()
    ]
    header = ["reader", "F1", "MCC", "F1, competition", "MCC, competition", "sensitivity", "specificity"]
    note = (
        "<p class=note>Means over findings with 95% intervals. The candidate lies above a reader's point where its "
        "sensitivity at the reader's own specificity is surely higher (paired, by patient), below where it is surely "
        "lower.</p>"
    )
    return Section(title, _table(header, rows) + note + _above_table(readers))


def _above_table(readers: Mapping[str, Any]) -> str:
    rows = []
    for finding, entries in readers["above"].items():
        known = {name: entry for name, entry in entries.items() if entry["difference"]["value"] is not None}
        if known:
            rows.append([finding, *(_side(known[name]["difference"]) if name in known else "" for name in entries)])
    who: Mapping[str, Any] = next(iter(readers["above"].values()), {})
    return _table(["finding", *who], rows)


def _side(difference: Mapping[str, Any]) -> str:
    word = "as the reader"
    if difference["low"] is not None and difference["low"] > 0:
        word = "above"
    elif difference["high"] is not None and difference["high"] < 0:
        word = "below"
    return f"{word}: {shown(difference, signed=True)}"


def _pool(table: Mapping[str, Any], pool: str, metric: str) -> str:
    entry = table["means"].get(pool, {}).get(metric)
    return shown(entry) if entry else ""


# --- heat maps, subgroups, shift ------------------------------------------------------------------------------------


def _heat_section(where: str, heat: Mapping[str, Any] | None) -> Section | None:
    if not heat:
        return None
    base, new = heat["base"], heat["candidate"]
    rows = [
        [finding, entry["n"], *_heat_cells(base["findings"].get(finding), entry), f"{entry['chance']:.2f}"]
        for finding, entry in new["findings"].items()
    ]
    chance = "" if new["mean"]["chance"] is None else f"{new['mean']['chance']:.2f}"
    rows.append([f"mean of {new['mean']['over']}", "", *_heat_cells(base["mean"], new["mean"]), chance])
    header = ["finding", "regions", "hit rate, model in use", "hit rate, candidate"]
    note = (
        f"<p class=note>{new['images']} images with known regions. Hit rate: how often the highest point of "
        "the Grad-CAM map lies inside the region; by chance: the region's share of the image. IoU: overlap of the "
        "region and the hot part of the map (Otsu's threshold). 95% intervals below, patients are the unit.</p>"
    )
    html = _table([*header, "IoU, model in use", "IoU, candidate", "by chance"], rows) + note
    return Section(f"Do heat maps point at the finding? {where}", html)


def _heat_cells(base: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    return [shown(entry[measure]) if entry else "" for measure in ("hit_rate", "iou") for entry in (base, new)]


def _crossed_section(groups: Sequence[Mapping[str, Any]]) -> Section | None:
    """Crossed subgroups in which the sick are most often called healthy, worst first."""
    crossed = [
        group
        for group in groups
        if "×" in group["attribute"] and group.get("underdiagnosis", {}).get("candidate", {}).get("value") is not None
    ]
    if not crossed:
        return None
    crossed.sort(key=lambda group: -group["underdiagnosis"]["candidate"]["value"])
    rows = [
        [
            f"{group['attribute'].replace('_', ' ')}: {group['group']}",
            group["n"],
            shown(group["underdiagnosis"]["base"]),
            shown(group["underdiagnosis"]["candidate"]),
            shown(group["means"]["auroc"]["candidate"]),
            shown(group["means"]["auroc"]["difference"], signed=True),
        ]
        for group in crossed[:CROSSED_SHOWN]
    ]
    header = ["subgroup", "images", "called healthy, model in use", "called healthy, candidate", "AUROC", "gain"]
    note = (
        f"<p class=note>The {len(rows)} of {len(crossed)} crossed subgroups in which the candidate most often calls "
        "the sick healthy (false-positive rate of No Finding, the measure of underdiagnosis of Seyyed-Kalantari et al. "
        "2021). The worst of many small groups look worse than they are: mind the intervals.</p>"
    )
    return Section("Underdiagnosis where two attributes meet", note + _table(header, rows))


def _shift_section(shift: Mapping[str, Any] | None) -> Section | None:
    if not shift:
        return None
    title = "Has what comes in moved away from the training?"
    if "sites" not in shift:
        return Section(title, f"<p>Not compared: {escape(shift['why'])}.</p>")
    moved = ", ".join(shift["shifted"]) or "nothing"
    picture = img_html(figures.png(figures.draw_shift(shift["sites"])), title)
    note = (
        "<p class=note>Images that came since, against those of the training snapshot on which no model learnt, as the "
        "model in use sees both. Thick: the middle half; thin: nine in ten; the number is the population stability "
        "index, red where a permutation test by patient and its size both say that it moved.</p>"
    )
    return Section(title, f"<p>Moved: {escape(moved)}.</p>{picture}{note}")


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(cell)}" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(str(cell))}" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    """A value with its limits beneath it."""
    value, opened, limits = text.partition(" (")
    return f"{escape(value)}<small>{escape(limits.rstrip(')'))}</small>" if opened else escape(text)
