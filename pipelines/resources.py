"""What assets are given: the site's data folder and settings, opened anew for every run."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path

import dagster as dg

from pipelines.processes import end_killed_runs, sign_in
from radia import steps

PROGRESS: ContextVar[steps.Progress | None] = ContextVar("radia_progress", default=None)
"""Draws the progress of a run in this process; None in Dagster's own processes, whose log says it."""


class Site(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A site's data folder with its parameters, its ledger, MLflow and DVC archive.

    Empty fields mean what the commands mean by them: `$RADIA_DATA` or `data/`, and the params.yaml found there.
    """

    data: str = ""
    params: str = ""

    def run(self, context: dg.AssetExecutionContext | dg.OpExecutionContext) -> steps.Run:
        """A run on behalf of this Dagster run, which this process carries from now on."""
        run = steps.open_run(
            data=Path(self.data) if self.data else None,
            params=Path(self.params) if self.params else None,
            progress=PROGRESS.get() or steps.silent,
            tags={"dagster_run_id": context.run_id},
        )
        sign_in(run.workspace, context.run_id)
        end_killed_runs(context.instance, run.workspace)
        return run

    def peek(self) -> steps.Run:
        """A run for looking only: sensors and checks."""
        return steps.open_run(
            data=Path(self.data) if self.data else None, params=Path(self.params) if self.params else None
        )
