"""What Prometheus is told of the jobs: runs by job and end, the last ones, what waits, the daemon's heartbeats.

Read from Dagster's own records when it is asked for. Labels are the jobs below and Dagster's words for states.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import cache

import dagster as dg
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric

from radia.operations.measures import Source, Sources, gauge, site_sources
from radia.services import dagster_home
from radia.workspace import Workspace

JOBS = {"retrain": "retrain", "pacs": "pacs", "__ASSET_JOB": "assets"}
"""Dagster's name of a job, and ours: assets that a person chose run as a job without a name."""
ENDS = {
    "success": dg.DagsterRunStatus.SUCCESS,
    "failure": dg.DagsterRunStatus.FAILURE,
    "cancelled": dg.DagsterRunStatus.CANCELED,
}
UNDER_WAY = {
    dg.DagsterRunStatus.QUEUED: "queued",
    dg.DagsterRunStatus.NOT_STARTED: "queued",
    dg.DagsterRunStatus.STARTING: "running",
    dg.DagsterRunStatus.STARTED: "running",
    dg.DagsterRunStatus.CANCELING: "running",
}


def registry(site: Workspace) -> CollectorRegistry:
    """Everything that the page of the jobs shows."""

    @cache
    def instance() -> dg.DagsterInstance:  # opened when it is first asked for, and again where that failed
        return dg.DagsterInstance.from_config(str(dagster_home(site)))

    sources = [Source("dagster", lambda: [*runs(instance()), *daemons(instance())]), *site_sources(site)]
    here = CollectorRegistry()
    here.register(Sources(sources))
    ProcessCollector(registry=here)
    return here


def runs(instance: dg.DagsterInstance) -> Iterator[Metric]:
    """Runs that ended, by job and end; the last of them; those that wait or run. Deleted runs count no more."""
    ended = gauge("radia_runs", "Runs that ended, of those that Dagster remembers", ["job", "end"])
    seconds = gauge("radia_run_seconds", "Seconds of the last run that ended well or failed", ["job"])
    success = gauge("radia_run_success_timestamp_seconds", "When a run last ended well", ["job"])
    for name, job in JOBS.items():
        for end, status in ENDS.items():
            ended.add_metric([job, end], instance.get_runs_count(dg.RunsFilter(job_name=name, statuses=[status])))
        if (last := _last(instance, name, [ENDS["success"], ENDS["failure"]])) is not None:
            seconds.add_metric([job], (last.end_time or 0.0) - (last.start_time or last.end_time or 0.0))
        if (last := _last(instance, name, [ENDS["success"]])) is not None:
            success.add_metric([job], last.end_time or 0.0)
    yield from (ended, seconds, success)
    yield from _under_way(instance)


def _under_way(instance: dg.DagsterInstance) -> Iterator[Metric]:
    counts: Counter[tuple[str, str]] = Counter(
        {(job, state): 0 for job in JOBS.values() for state in UNDER_WAY.values()}
    )
    oldest = dict.fromkeys(counts, time.time())
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(UNDER_WAY))):
        place = (JOBS.get(record.dagster_run.job_name, ""), UNDER_WAY[record.dagster_run.status])
        if place in counts:
            counts[place] += 1
            oldest[place] = min(oldest[place], record.create_timestamp.timestamp())
    now = gauge("radia_runs_under_way", "Runs that wait in the queue or are at work", ["job", "state"])
    age = gauge("radia_runs_under_way_oldest_seconds", "Since the oldest was asked for; 0: none", ["job", "state"])
    for place, count in counts.items():
        now.add_metric(list(place), count)
        age.add_metric(list(place), max(0.0, time.time() - oldest[place]) if count else 0.0)
    yield from (now, age)


def _last(instance: dg.DagsterInstance, job: str, statuses: list[dg.DagsterRunStatus]) -> dg.RunRecord | None:
    """The run of these ends that ended last."""
    found = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=statuses), limit=1, order_by="end_time")
    return found[0] if found else None


def daemons(instance: dg.DagsterInstance) -> Iterator[Metric]:
    """When each of the daemon's duties was last seen to: schedules, sensors, queue, runs that stopped."""
    beats = gauge("radia_daemon_heartbeat_timestamp_seconds", "When this duty was last seen to", ["duty"])
    found = instance.get_daemon_heartbeats()
    for duty in sorted(instance.get_required_daemon_types()):
        if duty in found:
            beats.add_metric([duty.lower()], found[duty].timestamp)
    yield beats
