"""Monitoring: each new batch as the model in use sees it, beside what that model was made on."""

import base64

import dagster as dg

from pipelines.presentation import picture, table
from pipelines.resources import Site
from radia import __version__, steps


@dg.asset(
    group_name="monitoring",
    owners=["team:machine-learning", "team:data-engineering"],
    kinds={"pytorch"},
    code_version=__version__,
    deps=["images", "base_model"],
    check_specs=[
        dg.AssetCheckSpec("nothing_moved", asset="monitoring", description="No new batch differs from the training."),
        dg.AssetCheckSpec("no_need_to_retrain", asset="monitoring", description="No rule proposes to train again."),
    ],
)
def monitoring(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Shift of pictures, features and probabilities by batch and site, and whether to train again."""
    run = site.run(context)
    watch = steps.monitor(run)
    plots = {
        f"plot/{one.summary['batch']}": picture(
            "data:image/png;base64,"
            + base64.b64encode((run.workspace.monitoring / one.summary["batch"] / "shift.png").read_bytes()).decode(),
            f"{one.summary['batch']}: reference and now",
        )
        for one in watch.batches[-3:]
    }
    return dg.MaterializeResult(
        metadata={
            "model in use": watch.model or "none yet",
            "batches": table([one.summary for one in watch.batches]),
            "proposal": table(watch.proposal["triggers"]),
            **plots,
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=name,
                passed=passed,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"observed": observed},
            )
            for name, passed, observed in (
                ("nothing_moved", not watch.shifted, "; ".join(watch.shifted) or "nothing"),
                (
                    "no_need_to_retrain",
                    not watch.proposal["retrain"],
                    "; ".join(t["name"] for t in watch.proposal["triggers"] if t["met"]) or "nothing",
                ),
            )
        ],
    )
