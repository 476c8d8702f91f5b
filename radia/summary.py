"""What a person is shown of a site's state: rows and pictures on Dagster's pages, the words at the end of a run.

Everything is read from what the steps wrote; nothing is computed anew.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from radia.steps import Run, recorded
from radia.workspace import Workspace


def quality_results(run: Run) -> list[dict[str, Any]]:
    """Each quality rule's name, severity, passed, observed and description."""
    report = json.loads((run.workspace.quality / "report.json").read_text())
    return list(report["results"])


def first_suspects(run: Run, count: int) -> list[dict[str, Any]]:
    """The most suspect labels: pseudonymous study, finding, given value, probability of being wrong."""
    import pandas as pd

    table = pd.read_parquet(run.workspace.suspects / "suspects.parquet").nsmallest(count, "rank")
    columns = {"id": "study", "finding": "finding", "given": "given", "probability": "probability"}
    return [
        {str(name): value for name, value in row.items()}
        for row in table[list(columns)].rename(columns=columns).to_dict("records")
    ]


def metric_rows(run: Run) -> list[dict[str, Any]]:
    """AUROC of base and candidate per finding and on average, with the paired difference and its limits."""
    from radia.evaluate import comparison_rows

    return comparison_rows(json.loads((run.workspace.evaluation / "metrics.json").read_text()))


def example_picture(run: Run) -> str:
    """One image of the archive as a PNG data URI, half its size."""
    from PIL import Image

    from radia.images import ImageStore

    store = ImageStore(run.workspace.images)
    if not len(store.ids):
        return ""
    pixels = store.read([store.ids[0]])[0]
    picture = Image.fromarray(pixels).resize((store.side // 2, store.side // 2))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def run_summary(run: Run) -> dict[str, Any]:
    """What the last run gave, from intake to registration."""
    site = run.workspace
    cleaned = recorded(site, "deidentify")
    taken = recorded(site, "images")
    register = recorded(site, "register")[0].summary
    return {
        "received": sum(item.summary["files"] for item in recorded(site, "intake")),
        "clean": sum(item.summary["clean"] for item in cleaned),
        "refused": _merged([item.summary["reasons"] for item in cleaned + taken]),
        "images": sum(item.summary["images"] for item in taken),
        "labels": recorded(site, "labels")[0].summary,
        "quality": recorded(site, "check")[0].summary,
        "snapshot": {**recorded(site, "snapshot")[0].summary, **recorded(site, "snapshot")[0].outputs},
        "base": recorded(site, "base-model")[0].summary,
        "suspects": recorded(site, "suspects")[0].summary,
        "training": recorded(site, "finetune")[0].summary,
        "evaluation": recorded(site, "evaluate")[0].summary,
        "gate": recorded(site, "gate")[0].summary,
        "candidate": register,
        "report": str(site.evaluation / "report.html"),
    }


def told(result: dict[str, Any], site: Workspace) -> str:
    """The summary in words."""
    split, quality, labels = result["snapshot"]["split"], result["quality"], result["labels"]
    refused = sum(result["refused"].values())
    lines = [
        f"Images     {result['received']} files received, {refused} refused, {result['images']} kept",
        *(f"           {count} × {reason}" for reason, count in result["refused"].items()),
        f"Quality    {quality['rules']} rules, {_failed(quality['failed'])}",
        f"Labels     {labels['labelled_studies']} studies labelled, {labels['rows_without_image']} rows without image",
        f"Snapshot   {result['snapshot']['snapshot'][:12]}: {split['train']} train, {split['validation']} validation, "
        f"{split['test']} test images of {result['snapshot']['patients']} patients",
        f"Suspects   {result['suspects']['likely_wrong']} of {result['suspects']['labels']} labels are likely wrong",
        f"Evaluation {result['evaluation']['sentence']}",
        f"Gate       {'passed' if result['gate']['passed'] else 'not passed'}: {_rules(result['gate']['rules'])}",
        f"MLflow     {result['candidate']['model']} version {result['candidate']['version']} waits for approval",
        f"Report     {result['report']}",
        f"Next       RADIA_DATA={site.root} radia up    (Dagster, MLflow and the web app on this machine)",
    ]
    if result["base"]["stand_in"]:
        position = next(k for k, line in enumerate(lines) if line.startswith("Suspects"))
        lines.insert(
            position, "Base       no model was in use: the embedded stand-in, trained on phantoms, took its place"
        )
    return "\n".join(lines)


def _failed(names: list[str]) -> str:
    return f"not met: {', '.join(names)}" if names else "all met"


def _rules(rules: dict[str, str]) -> str:
    return ", ".join(f"{name} {outcome}" for name, outcome in rules.items())


def _merged(tables: list[dict[str, int]]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for table in tables:
        for reason, count in table.items():
            merged[reason] = merged.get(reason, 0) + count
    return merged
