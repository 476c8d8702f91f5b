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


def read_states(run: Run) -> list[dict[str, Any]]:
    """How many queued studies are in each state: a row a queue and state."""
    from radia.steps.reads import queue_states

    if not run.workspace.read_queue.is_file():
        return []
    states = queue_states(run)["states"]
    return [
        {"queue": queue, "state": state, "studies": count}
        for queue, counts in states.items()
        for state, count in counts.items()
    ]


def noise_rows(run: Run) -> list[dict[str, Any]]:
    """How often the test side's labels are wrong, a row a finding; empty while nothing was read."""
    noise = _noise(run)
    return [
        {
            "finding": finding,
            "reads": entry["reads"],
            "wrong (read)": _percent(entry["wrong"]),
            "wrong (inferred)": _percent(entry["inferred"]["wrong"]),
            "missed (inferred)": _percent(entry["inferred"]["missed"]),
            "invented (inferred)": _percent(entry["inferred"]["invented"]),
        }
        for finding, entry in noise.get("findings", {}).items()
    ]


def noise_pictures(run: Run) -> dict[str, str]:
    """The figures of the noise page that exist, by name, as PNG data URIs."""
    folder = run.workspace.evaluation / "figures"
    found = [folder / f"{name}.png" for name in ("noise_findings", "noise_power")]
    return {
        path.stem.replace("_", " "): "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        for path in found
        if path.is_file()
    }


def _noise(run: Run) -> dict[str, Any]:
    path = run.workspace.evaluation / "noise.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _percent(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "not known"
    return f"{entry['value']:.1%} ({entry['low']:.1%} to {entry['high']:.1%})"


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
        "noise": _told_noise(run),
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
        *_noise_lines(result["noise"]),
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


def _told_noise(run: Run) -> dict[str, Any]:
    """What reads say of the test side, with the sentence of the noise-aware evaluation; empty on a site without it."""
    from radia.evaluate.noisy import sentence

    outcome = recorded(run.workspace, "noise")
    if not outcome:
        return {}
    metrics = json.loads((run.workspace.evaluation / "metrics.json").read_text())
    page = str(run.workspace.evaluation / "noise.html")
    simulated = bool(_noise(run).get("simulated"))
    return {**outcome[0].summary, "evaluation": sentence(metrics), "page": page, "simulated": simulated}


def _noise_lines(noise: dict[str, Any]) -> list[str]:
    if not noise:
        return []
    who = "Reads (by simulated readers) " if noise["simulated"] else "Reads      "
    return [f"{who}{noise['sentence']}", f"           {noise['evaluation']}", f"           {noise['page']}"]


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
