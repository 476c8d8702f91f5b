"""Which process carries which run, so that a killed one keeps no pool and no queue waiting.

Dagster notices the end of a run that says so. One whose process was killed says nothing: it stays "started" and holds
its slot in a pool for ever. Here each run names its process, and the next one, or a sensor, ends those that are gone.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import dagster as dg
import psutil

from radia.workspace import Workspace, written_whole


def sign_in(site: Workspace, run_id: str) -> None:
    """Notes that this process carries a run. All executors of the definitions work in the run's own process."""
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    with written_whole(_folder(site) / f"{run_id}.json") as partial:
        partial.write_text(json.dumps(facts))


def end_killed_runs(instance: dg.DagsterInstance, site: Workspace) -> list[str]:
    """Reports runs as failed whose process on this machine is gone, and gives back their slots in pools."""
    ended = []
    for path in sorted(_folder(site).glob("*.json")):
        run = instance.get_run_by_id(path.stem)
        finished = run is None or run.is_finished
        if not finished and _is_alive(json.loads(path.read_text())):
            continue
        instance.event_log_storage.free_concurrency_slots_for_run(path.stem)
        if run is not None and not finished:
            instance.report_run_failed(run, "the process that carried this run was killed")
            ended.append(path.stem)
        path.unlink(missing_ok=True)
    return ended


def _folder(site: Workspace) -> Path:
    return site.dagster_home / "processes"


def _is_alive(facts: dict[str, object]) -> bool:
    """Whether that very process still runs; one on another machine is taken to."""
    if facts["host"] != socket.gethostname():
        return True
    try:
        return bool(psutil.Process(int(str(facts["pid"]))).create_time() == facts["started"])
    except psutil.NoSuchProcess:
        return False
