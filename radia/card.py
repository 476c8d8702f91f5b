"""The model card of a candidate, in Markdown: what it is for, what it saw, how good it is and for whom, its limits.

Follows the sections of Mitchell et al., Model Cards for Model Reporting (2019). It takes values and returns text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from radia.evaluate.candidate import sentence
from radia.findings import FINDINGS
from radia.metrics import shown

if TYPE_CHECKING:
    from radia.model import Checkpoint
    from radia.snapshot import Snapshot

INTENDED_USE = """\
For research and for a hospital's own validation: it gives, for a frontal chest radiograph of an adult, a probability
for each finding named below. It supports a radiologist's reading and never replaces it; it is not a medical device.

Not for: children, lateral views, other body parts, photographs of films, triage without a reader, findings not named
here, or a hospital whose images were not part of the evaluation below."""

FIGURES = ("final_results", "subgroups", "calibration")
"""The figures of the evaluation that stand on the card."""

LIMITS = (
    "Thresholds were chosen on the validation part of the same hospitals; elsewhere they must be chosen again.",
    "The labels it learnt from come from reports or from readers; both contain errors. Where only given labels were "
    "available, the metrics below inherit those errors.",
    "Subgroups with wide intervals have not been shown to be served well or badly: there are too few of them.",
    "Heat maps show where the model looked, not why; they are no proof of a finding.",
)


def model_card(
    *,
    metrics: Mapping[str, Any],
    decision: Mapping[str, Any],
    snapshot: Snapshot,
    evidence: Mapping[str, str],
    model: str = "cxr-candidate",
    licences: Sequence[str] = (),
    training: Mapping[str, Any] | None = None,
    figures: Sequence[str] = (),
) -> str:
    """The card as Markdown.

    metrics: the dict of `evaluate_candidate`; decision: `Decision.as_json()`; evidence: names and digests of what the
    model was made from; licences: of the base model's weights and data; training: settings worth naming; figures:
    paths of pictures relative to the card.
    """
    sections = [
        ("Summary", sentence(metrics) + "\n\n" + _gate(decision)),
        ("Intended use", f"{INTENDED_USE}\n\nFindings: {', '.join(metrics.get('findings', FINDINGS))}."),
        ("Data", _data(snapshot)),
        ("Training", _pairs(training or {})),
        ("Results on held-out images", _results(metrics)),
        ("Subgroups", _subgroups(metrics)),
        ("Estimates under label noise", _estimates(metrics)),
        ("Figures", "\n\n".join(f"![{path}]({path})" for path in figures)),
        ("Gate", _rules(decision)),
        ("Limits", "\n".join(f"- {line}" for line in (*LIMITS, *_marked(metrics)))),
        ("Licences", "\n".join(f"- {line}" for line in licences) or "- The base model's weights: not recorded."),
        ("Evidence", _pairs(evidence)),
    ]
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections if text)
    return f"# {model}: chest radiograph findings\n\n{body}\n"


def licences_of(checkpoint: Checkpoint) -> list[str]:
    """What is known of the licence of a model's base."""
    if not checkpoint.licence:
        return []
    return [f"the base model's weights ({checkpoint.source}): {checkpoint.licence}"]


def training_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What of a model's training is worth a line: backbone, input, and the plain values that the training noted."""
    plain = {name: value for name, value in checkpoint.training.items() if isinstance(value, str | int | float)}
    averaged = {"views": checkpoint.views, "networks": checkpoint.members}
    return {
        "backbone": checkpoint.backbone,
        "pooling": checkpoint.pooling,
        **{name: count for name, count in averaged.items() if count > 1},
        "input": f"{checkpoint.side} × {checkpoint.side}",
        "temperature": f"{checkpoint.temperature:.3f}",
        **plain,
    }


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _gate(decision: Mapping[str, Any]) -> str:
    if decision["passed"]:
        return "The gate is open: a person may approve this model."
    return "**The gate is closed: this model may not be used.**"


def _data(snapshot: Snapshot) -> str:
    images = snapshot.images
    sides = images.groupby("split").agg(images=("image", "size"), patients=("patient", "nunique"))
    rows = [[side, int(row["images"]), int(row["patients"])] for side, row in sides.iterrows()]
    sites = ", ".join(f"{site} ({count})" for site, count in images["site"].value_counts().sort_index().items())
    return (
        f"Snapshot `{snapshot.digest}`: {len(images)} images of {images['patient'].nunique()} patients "
        f"from {sites}. A patient is on one side only.\n\n{markdown_table(['side', 'images', 'patients'], rows)}"
    )


def _results(metrics: Mapping[str, Any]) -> str:
    header = ["finding", "present / known", "AUROC", "gain in AUROC", "F1", "sensitivity", "specificity", "threshold"]
    candidate, gains = metrics["models"]["candidate"], metrics["differences"]
    rows: list[list[object]] = []
    for finding, entry in candidate["findings"].items():
        cells = [shown(entry[name]) for name in ("auroc", "f1", "sensitivity", "specificity")]
        gain = shown(gains["findings"][finding]["auroc"], signed=True)
        counted = f"{entry['positives']} / {entry['n']}"
        threshold = f"{candidate['thresholds'][finding]:.3f}"
        rows.append([finding + (" *" if "why" in entry else ""), counted, cells[0], gain, *cells[1:], threshold])
    mean = candidate["means"]["all"]
    cells = [shown(mean[name]) for name in ("auroc", "f1", "sensitivity", "specificity")]
    gain = shown(gains["means"]["all"]["auroc"], signed=True)
    rows.append([f"mean of {mean['auroc']['over']}", "", cells[0], gain, *cells[1:], ""])
    return (
        markdown_table(header, rows)
        + f"\n\n{metrics['n']} images of {metrics['patients']} patients; 95% intervals in brackets, patients are the "
        "unit. Gain: candidate minus model in use on the same images. * too few of one kind, not in the mean."
    )


def _subgroups(metrics: Mapping[str, Any]) -> str:
    header = ["subgroup", "images", "mean AUROC", "gain", "sick called No Finding"]
    rows = [
        [
            f"{group['attribute']}: {group['group']}",
            group["n"],
            shown(group["means"]["auroc"]["candidate"]),
            shown(group["means"]["auroc"]["difference"], signed=True),
            shown(group["underdiagnosis"]["candidate"]) if "underdiagnosis" in group else "",
        ]
        for group in metrics["groups"]
        if "×" not in group["attribute"]
    ]
    return markdown_table(header, rows) if rows else "No subgroup had enough images."


def _estimates(metrics: Mapping[str, Any]) -> str:
    """Noise-aware means, where radia/estimate.py gave them in the form of `radia evaluate`."""
    rows = [
        [name, shown(estimate["means"]["all"]["auroc"]), shown(estimate["means"]["all"]["f1"])]
        for name, estimate in metrics.get("estimates", {}).items()
        if isinstance(estimate, Mapping) and "all" in estimate.get("means", {})
    ]
    return markdown_table(["model", "mean AUROC", "mean F1"], rows) if rows else ""


def _rules(decision: Mapping[str, Any]) -> str:
    rows = [[rule["name"], rule["bound"], rule["observed"], f"**{rule['outcome']}**"] for rule in decision["rules"]]
    return markdown_table(["rule", "asked for", "seen", "outcome"], rows)


def _marked(metrics: Mapping[str, Any]) -> list[str]:
    entries = metrics["models"]["candidate"]["findings"].items()
    return [f"{finding}: {entry['why']}." for finding, entry in entries if "why" in entry]


def _pairs(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: `{value}`" for name, value in values.items())
