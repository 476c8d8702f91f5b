"""The job `retrain` as a function, for the commands `radia run` and `radia demo`; Dagster's UI starts the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg

from pipelines.definitions import definitions
from pipelines.processes import end_killed_runs, sign_in
from pipelines.resources import PROGRESS
from radia.errors import QualityBlocked, RadiaError
from radia.services import dagster_home
from radia.settings import workspace
from radia.steps import Progress


def retrain(
    *,
    inbox: Path | None = None,
    labels: Path | None = None,
    reports: Path | None = None,
    params: Path | None = None,
    progress: Progress | None = None,
    until: str = "",
) -> dict[str, Any]:
    """Runs the job in this process, recorded in the site's Dagster instance. Returns the run's id.

    until: the name of an asset with which it ends; else the whole job is run.

    Raises the RadiaError that stopped a step, or QualityBlocked where a blocking check failed.
    """
    site = workspace()
    token = PROGRESS.set(progress)
    try:
        with dg.DagsterInstance.from_config(str(dagster_home(site))) as instance:
            end_killed_runs(instance, site)
            job, run_id = definitions.resolve_job_def("retrain"), str(uuid4())
            sign_in(site, run_id)
            result = job.execute_in_process(
                run_id=run_id,
                run_config=_run_config(inbox, labels, reports, params),
                instance=instance,
                asset_selection=_leading_to(job, until) if until else None,
            )
    except dg.DagsterError as error:
        raise _reason(error) or error from error
    finally:
        PROGRESS.reset(token)
    return {"dagster_run_id": result.run_id}


def _leading_to(job: dg.JobDefinition, asset: str) -> list[dg.AssetKey]:
    """The asset and all that the job makes before it."""
    graph = job.asset_layer.asset_graph
    wanted = dg.AssetSelection.assets(asset).upstream().resolve(graph)
    return sorted(wanted & set(job.asset_layer.executable_asset_keys))


def _run_config(inbox: Path | None, labels: Path | None, reports: Path | None, params: Path | None) -> dict[str, Any]:
    sources = {"inbox": inbox, "labels": labels, "reports": reports}
    config: dict[str, Any] = {
        "ops": {"landing": {"config": {name: str(path.resolve()) for name, path in sources.items() if path}}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    if params is not None:
        config["resources"] = {"site": {"config": {"params": str(params.resolve())}}}
    return config


def _reason(error: BaseException | None) -> RadiaError | None:
    while error is not None:
        if isinstance(error, RadiaError):
            return error
        if isinstance(error, dg.DagsterAssetCheckFailedError):
            return QualityBlocked(str(error))
        error = error.__cause__ or error.__context__
    return None
