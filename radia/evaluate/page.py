"""One self-contained HTML page of an evaluation (figures inside it), and the same figures as PNG files beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.evaluate import figures
from radia.evaluate.candidate import sentence
from radia.gate import Decision, Outcome, RuleOutcome
from radia.metrics import shown
from radia.workspace import written_whole


@dataclass(frozen=True)
class Section:
    """A further part of the page: a title, and HTML that is put in as it is."""

    title: str
    html: str


@dataclass(frozen=True)
class Picture:
    """An image [h, w] or [h, w, 3] (uint8, or floats in 0..1), a heat map [h, w] in 0..1 over it, and a caption."""

    caption: str
    image: NDArray[Any]
    heat: NDArray[Any] | None = None


def write_report(
    folder: Path,
    evaluation: Mapping[str, Any],
    *,
    title: str = "Evaluation of the candidate",
    subtitle: str = "",
    decision: Decision | None = None,
    leading: Sequence[Section] = (),
    sections: Sequence[Section | tuple[str, str]] = (),
    pictures: Sequence[Picture] = (),
    pictures_title: str = "The worst misses, and where the candidate looked",
    names: Mapping[str, str] = figures.DEFAULT_NAMES,
) -> Path:
    """Writes folder/report.html and folder/figures/<name>.png; returns the page's path.

    evaluation: the dict of `evaluate_candidate`. leading: sections above the figures; sections: below them. The page
    refers to nothing outside its folder.
    """
    drawn = draw_figures(evaluation, names)
    extra = [s if isinstance(s, Section) else Section(*s) for s in sections]
    if pictures:
        extra.insert(0, Section(pictures_title, gallery(pictures)))
    with written_whole(folder / "figures") as partial:
        partial.mkdir()
        for name, png in drawn.items():
            (partial / f"{name}.png").write_bytes(png)
    page = _page(evaluation, title, subtitle, decision, drawn, leading, extra, names)
    with written_whole(folder / "report.html") as partial:
        partial.write_text(page, encoding="utf-8")
    return folder / "report.html"


def draw_figures(evaluation: Mapping[str, Any], names: Mapping[str, str] = figures.DEFAULT_NAMES) -> dict[str, bytes]:
    """Every figure as PNG, by the name of its file."""
    return {
        name: figures.png(draw(evaluation, names))
        for name, (_, draw) in figures.FIGURES.items()
        if name != "subgroups" or evaluation["groups"]
    }


def gallery(pictures: Sequence[Picture]) -> str:
    """Pictures side by side, each with its heat map beside it where it has one."""
    return f'<div class="gallery">{"".join(map(_figure_html, pictures))}</div>'


def _page(
    evaluation: Mapping[str, Any],
    title: str,
    subtitle: str,
    decision: Decision | None,
    drawn: Mapping[str, bytes],
    leading: Sequence[Section],
    sections: Sequence[Section],
    names: Mapping[str, str],
) -> str:
    parts = [
        f"<header><h1>{escape(title)}</h1>{f'<p class=sub>{escape(subtitle)}</p>' if subtitle else ''}</header>",
        f'<p class="lead">{escape(sentence(evaluation, **names))}</p>',
        _tiles(evaluation, names),
    ]
    if decision is not None:
        parts.append(_gate_html(decision))
    parts += map(section_html, leading)
    for name, (heading, _) in figures.FIGURES.items():
        if name in drawn:
            parts.append(f"<section><h2>{heading}</h2>{_NOTES.get(name, '')}{img_html(drawn[name], heading)}</section>")
        if name == "final_results":
            parts.append(_table_html(evaluation, names))
    parts += map(section_html, sections)
    return document(title, "".join(parts))


def document(title: str, body: str) -> str:
    """A whole page in the style of the report."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head><body><main>{body}</main></body></html>"
    )


def section_html(section: Section) -> str:
    """A section with its heading."""
    return f"<section><h2>{escape(section.title)}</h2>{section.html}</section>"


def _tiles(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    tiles = []
    for metric, label in (("auroc", "mean AUROC"), ("f1", "mean F1"), ("auprc", "mean AUPRC"), ("ece", "mean ECE")):
        base, new = (evaluation["models"][m]["means"]["all"][metric] for m in ("base", "candidate"))
        difference = evaluation["differences"]["means"]["all"][metric]
        if new["value"] is None or base["value"] is None:
            continue
        tiles.append(
            f'<div class="tile"><span>{label}</span><b>{new["value"]:.3f}</b>'
            f"<small>{escape(names['base'])} {base['value']:.3f}</small>"
            f'<small class="{_tone(difference, metric)}">{escape(shown(difference, signed=True))}</small></div>'
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tone(difference: Mapping[str, Any], metric: str) -> str:
    """The class of a difference: good, bad, or nothing where its interval holds 0."""
    if difference["low"] is None or difference["low"] <= 0 <= difference["high"]:
        return "same"
    rises = difference["value"] > 0
    return "good" if rises != (metric in ("brier", "ece")) else "bad"


def _gate_html(decision: Decision) -> str:
    verdict = (
        "open: a person may approve this candidate" if decision.passed else "closed: this candidate may not be used"
    )
    rows = "".join(_rule_html(rule) for rule in decision.rules)
    return (
        f'<section><h2>Gate</h2><p class="verdict {"good" if decision.passed else "bad"}">The gate is {verdict}.</p>'
        f"<table><thead><tr><th>rule<th>asked for<th>seen<th>outcome</tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _rule_html(rule: RuleOutcome) -> str:
    tone = {Outcome.PASS: "good", Outcome.FAIL: "bad", Outcome.UNKNOWN: "open"}[rule.outcome]
    return (
        f"<tr><td>{escape(rule.name)}<td>{escape(rule.bound)}<td>{escape(rule.observed)}"
        f'<td class="{tone}">{escape(rule.outcome.value)}</tr>'
    )


def _table_html(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """AUROC and F1 of both models and the difference, by finding."""
    rows = "".join(_finding_row(evaluation, finding) for finding in evaluation["findings"])
    return (
        '<section><h2>Numbers</h2><div class="wide"><table class="numbers"><thead><tr><th>finding<th>present / known'
        f"<th>AUROC, {escape(names['base'])}<th>AUROC, {escape(names['candidate'])}<th>difference<th>p (Holm)"
        f"<th>F1, {escape(names['base'])}<th>F1, {escape(names['candidate'])}"
        f"<th>sensitivity<th>specificity</tr></thead><tbody>{rows}</tbody></table></div>"
        "<p class=note>95% intervals below; patients are the unit. Differences are paired on the same images. "
        "Sensitivity and specificity are the candidate's at thresholds chosen on the validation part. "
        "* too few images of one kind: shown, not averaged.</p></section>"
    )


def _finding_row(evaluation: Mapping[str, Any], finding: str) -> str:
    base, new = (evaluation["models"][model]["findings"][finding] for model in ("base", "candidate"))
    difference = evaluation["differences"]["findings"][finding]["auroc"]
    p = difference.get("p_holm")
    cells = [
        f"{escape(finding)}{' *' if 'why' in new else ''}",
        f"{new['positives']} / {new['n']}",
        _cell(base["auroc"]),
        _cell(new["auroc"]),
        f'<span class="{_tone(difference, "auroc")}">{_cell(difference, signed=True)}</span>',
        "" if p is None else ("&lt; 0.001" if p < 0.001 else f"{p:.3f}"),
        _cell(base["f1"]),
        _cell(new["f1"]),
        _cell(new["sensitivity"]),
        _cell(new["specificity"]),
    ]
    return f"<tr>{''.join(f'<td>{cell}' for cell in cells)}</tr>"


def _cell(interval: Mapping[str, Any], *, signed: bool = False) -> str:
    if interval["value"] is None:
        return f'<i title="{escape(str(interval.get("why", "")))}">not known</i>'
    sign = "+" if signed else ""
    limits = ""
    if interval["low"] is not None:
        limits = f"<small>{interval['low']:{sign}.2f} to {interval['high']:{sign}.2f}</small>"
    return f"{interval['value']:{sign}.3f}{limits}"


_NOTES = {
    "final_results": "<p class=note>Bars are 95% intervals; in brackets, images in which the finding is present. "
    "* too few to be averaged.</p>",
    "subgroups": "<p class=note>Green or red where the interval leaves out 0; gray where the data cannot tell. "
    "Called healthy: the false-positive rate of No Finding, by which underdiagnosis is measured.</p>",
    "roc": "<p class=note>AUROC of the model in use → of the candidate.</p>",
    "precision_recall": "<p class=note>Average precision of the model in use → of the candidate; the gray line is "
    "the prevalence.</p>",
    "calibration": "<p class=note>On the diagonal, a probability means what it says; larger points hold more images. "
    "Expected calibration error of the model in use → of the candidate.</p>",
    "by_threshold": "<p class=note>Dotted: the threshold in force, chosen on the validation part.</p>",
    "confusion": "<p class=note>Percentages are of the row: of the images with (without) the finding.</p>",
}


# --- pictures -------------------------------------------------------------------------------------------------------


def _figure_html(picture: Picture) -> str:
    base = _rgb(picture.image)
    shown_images = [base] if picture.heat is None else [base, overlay(base, picture.heat)]
    images = "".join(img_html(_encode(pixels), picture.caption) for pixels in shown_images)
    return f"<figure><div>{images}</div><figcaption>{escape(picture.caption)}</figcaption></figure>"


def overlay(image: NDArray[np.uint8], heat: NDArray[Any]) -> NDArray[np.uint8]:
    """A heat map [h, w] in 0..1 over an image [H, W, 3]; where the map is 0 the image stays as it is."""
    from matplotlib import colormaps
    from PIL import Image

    size = (image.shape[1], image.shape[0])
    smooth = Image.fromarray(np.asarray(heat, np.float32), mode="F").resize(size, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(smooth), 0, 1)
    colours = colormaps["inferno"](strength)[..., :3] * 255
    part = 0.65 * strength[..., None]
    return np.asarray(image * (1 - part) + colours * part, np.uint8)


def _rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    pixels = image if image.dtype == np.uint8 else np.clip(image * 255, 0, 255).astype(np.uint8)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def img_html(png: bytes, alt: str) -> str:
    """An image inside the page."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


_CSS = """
:root{color-scheme:light}
body{margin:0;background:#fff;color:#1c2330;
font:16px/1.55 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:48px 28px 96px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:20px;margin:56px 0 10px;padding-top:18px;border-top:1px solid #e3e7ee}
.sub{color:#5b6577;margin:0}
.lead{font-size:20px;line-height:1.5;margin:26px 0 28px;max-width:54em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px}
.tile{border:1px solid #e3e7ee;border-radius:10px;padding:14px 18px;display:flex;flex-direction:column}
.tile span{color:#5b6577;font-size:14px}.tile b{font-size:32px;line-height:1.25;font-weight:650}
.tile small{font-size:13.5px;color:#5b6577}
ul.plain{margin:4px 0 14px;padding-left:20px}
.banner{border-left:5px solid #8a5a00;background:#fdf6e7;padding:8px 16px;margin:14px 0}
.good,.tile small.good{color:#1b7f4b}.bad,.tile small.bad{color:#b3261e}.open{color:#8a5a00}
.verdict{font-size:18px;font-weight:600;margin:6px 0 16px}
.note{color:#5b6577;font-size:14.5px;margin:4px 0 14px}
img{max-width:100%;height:auto;display:block}
table{border-collapse:collapse;width:100%;font-size:14.5px;font-variant-numeric:tabular-nums}
th{text-align:left;
font-weight:600;color:#5b6577;vertical-align:bottom;border-bottom:2px solid #d5dbe5;padding:6px 12px 6px 0}
td{border-bottom:1px solid #e9edf3;padding:7px 12px 7px 0;vertical-align:top}
td small{display:block;color:#6a7486;font-size:12px;white-space:nowrap}td i{color:#6a7486}
td.good,td.bad,td.open{font-weight:600;white-space:nowrap}
.numbers td:first-child{font-weight:600}
.wide{overflow-x:auto}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:22px}
.gallery figure{margin:0}.gallery figure div{display:grid;grid-template-columns:1fr 1fr;gap:4px}
.gallery img{width:100%}
.gallery figcaption{font-size:14px;color:#39424f;margin-top:6px}
@media print{main{padding:0}h2{break-after:avoid}section{break-inside:avoid}}
"""
