"""Sensors, all off until a data engineer turns them on."""

import dagster as dg

from pipelines.jobs import retrain
from pipelines.resources import Site
from radia import steps


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.STOPPED)
def approval_sensor(context: dg.SensorEvaluationContext, site: Site) -> dg.SkipReason:
    """Acts on what people approved or rejected in MLflow: re-checks the gate and moves the alias `champion`."""
    acted = steps.act_on_approvals(site.peek())
    for one in acted:
        context.log.info(f"{one.candidate}: {one.outcome}: {one.why}")
    return dg.SkipReason("; ".join(f"{one.candidate} {one.outcome}" for one in acted) or "nobody decided anything new")


@dg.sensor(job=retrain, minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.STOPPED)
def inbox_sensor(context: dg.SensorEvaluationContext, site: Site) -> dg.RunRequest | dg.SkipReason:
    """Starts the job when files lie in the inbox that were not there at the last look, and none is still growing."""
    listing = steps.inbox_listing(site.peek())
    if listing is None:
        return dg.SkipReason("the inbox is empty or still being written")
    if listing == context.cursor:
        return dg.SkipReason("nothing new in the inbox")
    context.update_cursor(listing)
    return dg.RunRequest(run_key=listing)
