"""Suspects: given labels ranked by how likely they are wrong, for blind re-reading."""

import dagster as dg

from pipelines.presentation import metadata, table
from pipelines.resources import Site
from radia import __version__, steps, summary


@dg.asset(
    group_name="suspects",
    owners=["team:data-engineering", "team:machine-learning"],
    kinds={"cleanlab", "parquet"},
    code_version=__version__,
    deps=["snapshot", "base_model"],
)
def suspects(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Every given label with the probability that it is wrong, from out-of-fold predictions."""
    run = site.run(context)
    outcome = steps.suspects(run)
    return dg.MaterializeResult(metadata={**metadata(outcome), "preview": table(summary.first_suspects(run, 10))})
