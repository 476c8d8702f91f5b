"""Snapshots: manifest, labels, reads and split, frozen and versioned."""

import dagster as dg

from pipelines.presentation import metadata
from pipelines.resources import Site
from radia import __version__, steps


@dg.asset(
    group_name="snapshot",
    owners=["team:data-engineering"],
    kinds={"dvc", "parquet"},
    code_version=__version__,
    deps=["quality"],
    check_specs=[
        dg.AssetCheckSpec(
            "content_equals_digest",
            asset="snapshot",
            blocking=True,
            description="Read back, the snapshot still has the digest that names it.",
        )
    ],
)
def snapshot(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """What the models of this run are trained and judged on. A patient never changes side."""
    run = site.run(context)
    outcome = steps.snapshot(run)
    frozen = steps.current_snapshot(run)
    return dg.MaterializeResult(
        metadata=metadata(outcome),
        data_version=dg.DataVersion(frozen.digest),
        check_results=[
            dg.AssetCheckResult(check_name="content_equals_digest", passed=frozen.digest == outcome.outputs["snapshot"])
        ],
    )
