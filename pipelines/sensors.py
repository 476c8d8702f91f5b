"""Sensors, off until a data engineer turns them on, but for the one that mends."""

import dagster as dg

from pipelines.jobs import retrain
from pipelines.partitions import arrivals, batches, events
from pipelines.processes import end_killed_runs
from pipelines.resources import Site
from radia import digests, steps
from radia.notify import Notice, send

LEAST_QUIET_SECONDS = 30.0
"""Nobody watches when a sensor starts a run: a site's folder that changed so lately may still be copied to."""
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.STOPPED)
def approval_sensor(context: dg.SensorEvaluationContext, site: Site) -> dg.SkipReason:
    """Acts on what people approved or rejected in MLflow: re-checks the gate and moves the alias `champion`."""
    acted = steps.act_on_approvals(site.peek())
    for one in acted:
        tell = context.log.error if one.override else context.log.info  # Dagster shows errors in red
        against = f", against the gate: {one.override}" if one.override else ""
        tell(f"{one.candidate}: {one.outcome}: {one.why}{against}")
    return dg.SkipReason("; ".join(f"{one.candidate} {one.outcome}" for one in acted) or "nobody decided anything new")


@dg.sensor(job=retrain, minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.STOPPED)
def inbox_sensor(context: dg.SensorEvaluationContext, site: Site) -> dg.RunRequest | dg.SkipReason:
    """Starts the job when files lie in the inbox that were not there at the last look. Sites still growing wait."""
    run = site.peek()
    quiet = max(run.settings.intake.quiet_seconds, LEAST_QUIET_SECONDS)
    listing = steps.inbox_listing(run, quiet_seconds=quiet)
    if listing is None:
        return dg.SkipReason("the inbox is empty or still being written")
    if listing == context.cursor:
        return dg.SkipReason("nothing new in the inbox")
    context.update_cursor(listing)
    return dg.RunRequest(run_key=listing, run_config={"ops": {"landing": {"config": {"quiet_seconds": quiet}}}})


@dg.sensor(job=retrain, minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.STOPPED)
def receipt_sensor(context: dg.SensorEvaluationContext, site: Site) -> dg.SensorResult | dg.SkipReason:
    """Shows batches that came beside Dagster, as by `radia intake receive`, and starts the job on them."""
    run = site.peek()
    if set(steps.batches(run.workspace)) <= set(context.instance.get_dynamic_partitions("batches")):
        return dg.SkipReason("no batch that Dagster does not know")
    end_killed_runs(context.instance, run.workspace)
    if context.instance.get_runs_count(dg.RunsFilter(job_name="retrain", statuses=UNDER_WAY)):
        return dg.SkipReason("there are new batches, and a run that may take them is under way")
    arrived = arrivals(context.instance, steps.all_received(run))
    names = [one.summary["batch"] for one in arrived]
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=digests.of_json(names))],
        dynamic_partitions_requests=[batches.build_add_request(names)],
        asset_events=events(arrived, expected=list(run.settings.intake.expected_hours)),
    )


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def killed_runs(context: dg.SensorEvaluationContext, site: Site) -> dg.SkipReason:
    """Reports runs whose process was killed as failed: else they would keep every later run waiting in the queue."""
    ended = end_killed_runs(context.instance, site.peek().workspace)
    return dg.SkipReason(f"ended: {', '.join(ended)}" if ended else "every run has its process")


@dg.run_failure_sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.STOPPED)
def failure_notice(context: dg.RunFailureSensorContext, site: Site) -> None:
    """Tells the people of `notify` in params.yaml that a run failed: job, steps and kinds of errors, nothing else."""
    settings = site.peek().settings.notify
    failed = context.get_step_failure_events()
    errors = [event.step_failure_data.error for event in failed]
    send(
        Notice(
            job=context.dagster_run.job_name,
            run=context.dagster_run.run_id,
            steps=tuple(event.step_key or "" for event in failed),
            errors=tuple((error.cause or error).cls_name or "" for error in errors if error),
            page=f"{settings.page}/runs/{context.dagster_run.run_id}",
        ),
        settings,
    )
