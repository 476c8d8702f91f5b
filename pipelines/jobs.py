"""Jobs: the whole way from the inbox to a registered candidate, and a day's studies from every PACS."""

from datetime import date

import dagster as dg

from pipelines.partitions import arrivals, days, events
from pipelines.resources import Site
from radia import __version__, steps
from radia.settings import IntakeSettings, load_settings

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all(),
    executor_def=dg.in_process_executor,
    tags={"radia/writes": "site"},
    description="From the inbox to a registered candidate that waits for approval. What is done is not done again.",
)


def pacs_job(settings: IntakeSettings) -> dg.JobDefinition:
    """The job `pacs`: one day a partition, so that Dagster's backfill over days is one over the PACS.

    Asked again with growing pauses where a PACS cannot be reached; what came until then is kept, and not asked again.
    """
    patience = dg.RetryPolicy(
        max_retries=settings.retries,
        delay=settings.retry_seconds,
        backoff=dg.Backoff.EXPONENTIAL,
        jitter=dg.Jitter.PLUS_MINUS,
    )

    @dg.op(pool="pacs", retry_policy=patience, code_version=__version__, out=dg.Out(dg.Nothing))
    def fetch_day(context: dg.OpExecutionContext, site: Site) -> None:
        """The studies of a day, from every PACS of the settings, into landing batches."""
        run = site.run(context)
        if not run.settings.intake.pacs:
            raise dg.Failure("no PACS is configured: see intake.pacs in params.yaml", allow_retries=False)
        try:
            steps.fetch_day(run, date.fromisoformat(context.partition_key))
        finally:
            arrived = arrivals(context.instance, steps.all_received(run))
            context.instance.add_dynamic_partitions("batches", [one.summary["batch"] for one in arrived])
            for event in events(arrived, expected=list(run.settings.intake.expected_hours)):
                context.log_event(event)
        files = sum(int(one.summary["files"]) for one in arrived)
        context.log_event(
            dg.AssetMaterialization("pacs_day", partition=context.partition_key, metadata={"new files": files})
        )

    @dg.job(
        name="pacs",
        partitions_def=days,
        executor_def=dg.in_process_executor,
        description="A day's chest radiographs from every PACS (DICOMweb), into landing batches.",
    )
    def pacs() -> None:
        fetch_day()

    return pacs


pacs = pacs_job(load_settings().intake)
