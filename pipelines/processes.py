"""Which process carries which run, so that a killed one keeps no pool and no queue waiting.

Dagster notices the end of a run that says so. One whose process was killed says nothing: it stays "started" and holds
its slot in a pool for ever. Here each run names its process, and the next one, or a sensor, ends those that are gone.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from pathlib import Path

import dagster as dg
import psutil

from radia.workspace import Workspace, written_whole

UNSIGNED_SECONDS = 300.0
"""A run signs in as soon as its process has imported what it needs."""
_STATE, _STARTED = 0, 19
"""Where they stand in /proc/PID/stat behind the name (proc(5), fields 3 and 22)."""


def sign_in(site: Workspace, run_id: str) -> None:
    """Notes that this process carries a run. All executors of the definitions work in the run's own process."""
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "started": _start(os.getpid())}
    with written_whole(_folder(site) / f"{run_id}.json") as partial:
        partial.write_text(json.dumps(facts))


def end_killed_runs(instance: dg.DagsterInstance, site: Workspace) -> list[str]:
    """Reports runs as failed whose process on this machine is gone, and gives back their slots in pools.

    So is one that has not signed in, and was begun before this machine, or this container, came up.
    """
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
    begun = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    for record in instance.get_run_records(begun):
        run, age = record.dagster_run, time.time() - record.update_timestamp.timestamp()
        if not (_folder(site) / f"{run.run_id}.json").exists() and age > min(UNSIGNED_SECONDS, _up_seconds() + 5):
            instance.report_run_failed(run, "the process that was to carry this run was killed before it could")
            ended.append(run.run_id)
    return ended


def _folder(site: Workspace) -> Path:
    return site.dagster_home / "processes"


def _is_alive(facts: dict[str, object]) -> bool:
    """Whether that very process still runs; one on another machine is taken to."""
    if facts["host"] != socket.gethostname():
        return True
    try:
        return _start(int(str(facts["pid"]))) == facts["started"]
    except psutil.NoSuchProcess:
        return False


def _start(pid: int) -> float:
    """When a process was started, the same number at every look. Raises psutil.NoSuchProcess.

    On Linux counted from when the machine was: the time of day that psutil makes of it moves where the clock is set.
    """
    if not psutil.LINUX:
        return float(psutil.Process(pid).create_time())
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    if facts[_STATE] == "Z":  # ended, and nobody has asked how
        raise psutil.NoSuchProcess(pid)
    return float(facts[_STARTED])


def _up_seconds() -> float:
    """How long this machine or this container is up: the age of its first process, where it can be seen."""
    if not psutil.LINUX or not Path("/proc/1/stat").exists():
        return math.inf
    since_boot = float(Path("/proc/uptime").read_text().split()[0])
    return since_boot - _start(1) / os.sysconf("SC_CLK_TCK")
