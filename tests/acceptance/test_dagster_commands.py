"""The job through Dagster's own commands, on a site where it has run already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from radia.steps import open_run

from .conftest import EmbeddedSite

pytestmark = pytest.mark.xdist_group("main-job")

ROOT = Path(__file__).resolve().parents[2]


def dagster(site: EmbeddedSite, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = site.data / "dagster"
    environment = {**os.environ, "RADIA_DATA": str(site.data), "DAGSTER_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "dagster", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("definitions", "validate", "-w", "workspace.yaml"),
        ("asset", "materialize", "--select", "*", "-m", "pipelines.definitions"),
        ("job", "execute", "-m", "pipelines.definitions", "-j", "retrain"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_it_works_and_does_nothing_that_is_done(site: EmbeddedSite, arguments: tuple[str, ...]) -> None:
    head = open_run().ledger.head()
    done = dagster(site, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert open_run().ledger.head() == head
