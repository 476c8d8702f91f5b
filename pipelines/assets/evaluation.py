"""Evaluation and gate: candidate beside the model in use on held-out patients, and what the rules say of it."""

import dagster as dg

from pipelines.presentation import metadata, table
from pipelines.resources import Site
from radia import __version__, steps, summary


@dg.asset(
    group_name="evaluation",
    owners=["team:machine-learning"],
    kinds={"scikitlearn"},
    code_version=__version__,
    deps=["candidate", "base_model", "snapshot"],
)
def evaluation(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Metrics with intervals, paired differences, subgroups, figures and a report page."""
    run = site.run(context)
    outcome = steps.evaluate(run)
    return dg.MaterializeResult(
        metadata={
            **metadata(outcome),
            "metrics": table(summary.metric_rows(run)),
            "report": dg.MetadataValue.url((run.workspace.evaluation / "report.html").resolve().as_uri()),
        }
    )


@dg.asset(
    group_name="evaluation",
    owners=["team:machine-learning"],
    kinds={"json"},
    code_version=__version__,
    deps=["evaluation"],
    check_specs=[
        dg.AssetCheckSpec(
            "candidate_passes", asset="decision", description="All rules of the gate pass. A person decides either way."
        )
    ],
)
def decision(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The gate's decision, rule by rule."""
    outcome = steps.gate(site.run(context))
    return dg.MaterializeResult(
        metadata=metadata(outcome),
        check_results=[
            dg.AssetCheckResult(
                check_name="candidate_passes",
                passed=bool(outcome.summary["passed"]),
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"rules": dg.MetadataValue.json(outcome.summary["rules"])},
            )
        ],
    )
