"""Intake: from a folder tree `<inbox>/<site>/…` to landing batches. What lies there identifies patients."""

import dagster as dg

from pipelines.partitions import batches
from pipelines.presentation import batch_table, total
from pipelines.resources import Site
from radia import __version__, steps

batch = dg.AssetSpec(
    "batch",
    group_name="intake",
    partitions_def=batches,
    owners=["team:data-engineering"],
    kinds={"dicom"},
    description="One intake batch a partition, `<site>-<date>-<n>`: its receipt, and what became of its files.",
)


class IntakeConfig(dg.Config):
    """Where the feed lies; empty: `<data>/inbox`, with `labels.csv` or `reports.csv` beside it where they exist."""

    inbox: str = ""
    labels: str = ""
    reports: str = ""


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
    )
    names = [outcome.summary["batch"] for outcome in outcomes]
    context.instance.add_dynamic_partitions("batches", names)
    return dg.MaterializeResult(metadata={"files": total(outcomes, "files"), "batches": batch_table(outcomes)})
