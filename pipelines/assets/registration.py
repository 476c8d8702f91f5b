"""Registration: the candidate in MLflow, where a person approves or rejects it."""

import dagster as dg

from pipelines.presentation import metadata
from pipelines.resources import Site
from radia import __version__, steps


@dg.asset(
    group_name="registration",
    owners=["team:machine-learning"],
    kinds={"mlflow"},
    code_version=__version__,
    deps=["decision", "suspects", "label_noise"],
)
def registered_candidate(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The new version of `cxr-candidate`, with everything a person needs to decide, waiting for approval."""
    return dg.MaterializeResult(metadata=metadata(steps.register(site.run(context))))
