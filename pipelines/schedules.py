"""Schedules, all off until a data engineer turns them on."""

import dagster as dg

from pipelines.jobs import pacs, retrain

nightly = dg.ScheduleDefinition(
    name="nightly",
    job=retrain,
    cron_schedule="0 2 * * *",
    execution_timezone="America/Montreal",
    description="Every night at two: take in what arrived and retrain when it changed the snapshot.",
)
pacs_daily = dg.build_schedule_from_partitioned_job(
    pacs,
    name="pacs_daily",
    hour_of_day=6,
    description="Every morning (06:00 UTC): the day before, from every PACS.",
)
