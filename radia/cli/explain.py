"""Heat maps."""

from __future__ import annotations

from pathlib import Path

import click

from radia.cli.frame import EXISTING_FILE, main, opened, params_option, prints


@main.group()
def explain() -> None:
    """Heat maps: where a model looks."""


@explain.command("evaluate")
@click.option(
    "--images", default="", help="A public collection, chexpert:DIR or nih:DIR; else the held-out images here."
)
@click.option(
    "--regions", type=EXISTING_FILE, help="Boxes or masks: NIH's CSV, CheXlocalize's JSON, or a CSV of boxes."
)
@click.option("--model", default="mlflow:cxr@champion", show_default=True, help="A checkpoint's folder or mlflow:…")
@params_option
@prints
def evaluate(images: str, regions: Path | None, model: str, params: Path | None) -> tuple[object, str]:
    """How often Grad-CAM maps point at the finding, and how much of it they cover, with 95% intervals."""
    from radia import steps
    from radia.metrics import shown

    with opened(params) as site:
        found = steps.explain(site, model, images=images, regions=str(regions or ""))
    rows = {**found["findings"], f"mean of {found['mean']['over']}": found["mean"]}
    lines = [
        f"{name}: hit rate {shown(entry['hit_rate'])}, IoU {shown(entry['iou'])}, by chance {entry['chance']:.2f}"
        for name, entry in rows.items()
        if entry["hit_rate"]["value"] is not None
    ]
    return found, "\n".join(lines)
