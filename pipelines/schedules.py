"""Schedules, all off until a data engineer turns them on."""

import dagster as dg

from pipelines.jobs import retrain

nightly = dg.ScheduleDefinition(
    name="nightly",
    job=retrain,
    cron_schedule="0 2 * * *",
    execution_timezone="America/Montreal",
    description="Every night at two: take in what arrived and retrain when it changed the snapshot.",
)
