"""Intake: from a folder tree `<inbox>/<site>/…` to landing batches. What lies there identifies patients."""

from datetime import timedelta

import dagster as dg

from pipelines.partitions import arrivals, batches, days, events
from pipelines.presentation import batch_table, total
from pipelines.resources import Site
from radia import __version__, steps
from radia.settings import IntakeSettings, load_settings

batch = dg.AssetSpec(
    "batch",
    group_name="intake",
    partitions_def=batches,
    owners=["team:data-engineering"],
    kinds={"dicom"},
    description="One intake batch a partition, `<site>-<date>-<n>`: its receipt, and what became of its files.",
)

pacs_day = dg.AssetSpec(
    "pacs_day",
    group_name="intake",
    partitions_def=days,
    owners=["team:data-engineering"],
    kinds={"dicom"},
    description="The days that the job `pacs` asked every PACS for.",
)


def expected_feeds(settings: IntakeSettings) -> list[dg.AssetSpec]:
    """What each site sends, with the time after which it is late."""
    return [
        dg.AssetSpec(
            ["feed", site],
            group_name="intake",
            owners=["team:data-engineering"],
            kinds={"dicom"},
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=hours)),
            description=f"Whatever site {site} sends. Late when nothing new came for {hours:g} hours.",
        )
        for site, hours in settings.expected_hours.items()
    ]


feeds = expected_feeds(load_settings().intake)


class IntakeConfig(dg.Config):
    """Where the feed lies; empty: `<data>/inbox`, with `labels.csv` or `reports.csv` beside it where they exist.

    A site whose folder changed less than `quiet_seconds` ago waits; where it is not given, the settings say how long.
    """

    inbox: str = ""
    labels: str = ""
    reports: str = ""
    quiet_seconds: float | None = None


@dg.asset(
    group_name="intake",
    owners=["team:data-engineering"],
    kinds={"dicom"},
    code_version=__version__,
    deps=[],
)
def landing(context: dg.AssetExecutionContext, config: IntakeConfig, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Files as they came, copied into landing batches with a receipt. Nothing already received is taken again."""
    run = site.run(context)
    outcomes = steps.intake(
        run,
        steps.inbox_of(run, config.inbox),
        labels=steps.table_of(run, "labels.csv", config.labels, inbox=config.inbox),
        reports=steps.table_of(run, "reports.csv", config.reports, inbox=config.inbox),
        quiet_seconds=config.quiet_seconds,
    )
    arrived = arrivals(context.instance, outcomes)
    context.instance.add_dynamic_partitions("batches", [one.summary["batch"] for one in arrived])
    for event in events(arrived, expected=list(run.settings.intake.expected_hours)):
        context.log_event(event)
    return dg.MaterializeResult(metadata={"files": total(outcomes, "files"), "batches": batch_table(outcomes)})
