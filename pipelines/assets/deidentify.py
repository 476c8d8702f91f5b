"""De-identification: from landing batches to clean DICOM. Refused files go to quarantine with a reason."""

import dagster as dg

from pipelines.presentation import batch_table, metadata, total
from pipelines.resources import Site
from radia import __version__, steps


@dg.asset(
    group_name="deidentify",
    owners=["team:data-engineering"],
    kinds={"dicom"},
    code_version=__version__,
    deps=["landing"],
    check_specs=[
        dg.AssetCheckSpec("some_files_are_clean", asset="clean", blocking=True, description="At least one file passed.")
    ],
)
def clean(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """De-identified DICOM under pseudonyms, one folder a batch, with the outcome and actions of every file."""
    outcomes = steps.deidentify(site.run(context))
    for outcome in outcomes:
        context.log_event(
            dg.AssetMaterialization("batch", partition=outcome.summary["batch"], metadata=metadata(outcome))
        )
    kept = total(outcomes, "clean")
    return dg.MaterializeResult(
        metadata={"clean": kept, "refused": total(outcomes, "refused"), "batches": batch_table(outcomes)},
        check_results=[
            dg.AssetCheckResult(passed=kept > 0, check_name="some_files_are_clean", metadata={"clean": kept})
        ],
    )
