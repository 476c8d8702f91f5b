"""The main job: on the embedded hospital, or on real input."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from radia.cli.frame import ANY_PATH, EXISTING_FILE, main, opened, params_option, prints, progress_bars
from radia.errors import RadiaError


def _orchestrator() -> Callable[..., dict[str, Any]]:
    """The Dagster job as a function, found through its entry point: this package never imports Dagster."""
    found = entry_points(group="radia.orchestrator", name="retrain")
    if not found:
        raise RadiaError("the package `pipelines` is not installed: run `make setup` in a checkout of RADIA")
    return next(iter(found)).load()  # type: ignore[no-any-return]


@main.command()
@click.option("-n", "--studies", default=600, show_default=True, help="Studies of the embedded hospital.")
@click.option("--seed", default=0, show_default=True)
@prints
def demo(studies: int, seed: int) -> tuple[object, str]:
    """The whole main job on the embedded hospital, offline. Its data lies in $RADIA_DATA, or data/demo."""
    from radia import demo as embedded

    with progress_bars() as progress:
        result = embedded.run(_orchestrator(), studies=studies, seed=seed, progress=progress)
    return result, embedded.told(result)


@main.command()
@click.option("--inbox", required=True, type=ANY_PATH, help="A folder tree INBOX/<site>/… of DICOM files.")
@click.option("--labels", type=EXISTING_FILE, help="CSV: AccessionNumber and findings (1, 0, -1 or blank).")
@click.option("--reports", type=EXISTING_FILE, help="CSV: AccessionNumber, Report.")
@params_option
@prints
def run(inbox: Path, labels: Path | None, reports: Path | None, params: Path | None) -> tuple[object, str]:
    """The whole main job on real input, ending with a registered candidate that waits for approval."""
    from radia import summary

    with progress_bars() as progress:
        _orchestrator()(inbox=inbox, labels=labels, reports=reports, params=params, progress=progress)
    with opened(params) as site:
        result = summary.run_summary(site)
        return result, summary.told(result, site.workspace)
