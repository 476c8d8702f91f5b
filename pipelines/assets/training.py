"""Training: the model in use, and a candidate fine-tuned from it on the snapshot."""

import dagster as dg

from pipelines.presentation import metadata
from pipelines.resources import Site
from radia import __version__, steps


@dg.asset(
    group_name="training",
    owners=["team:machine-learning"],
    kinds={"pytorch", "mlflow"},
    code_version=__version__,
    pool="gpu",
)
def base_model(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The checkpoint of the model in use. Where there is none yet, the embedded stand-in, and it says so."""
    return dg.MaterializeResult(metadata=metadata(steps.base_model(site.run(context))))


@dg.asset(
    group_name="training",
    owners=["team:machine-learning"],
    kinds={"pytorch"},
    code_version=__version__,
    deps=["snapshot", "base_model", "suspects"],
    pool="gpu",
)
def candidate(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The base fine-tuned on the snapshot's training side, thresholds frozen on its validation side."""
    return dg.MaterializeResult(metadata=metadata(steps.finetune(site.run(context))))
