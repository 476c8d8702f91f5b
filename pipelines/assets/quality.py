"""Data quality: Great Expectations over manifest and labels. A critical rule that fails stops the run."""

import dagster as dg

from pipelines.presentation import check_name, metadata, table
from pipelines.resources import Site
from radia import __version__, steps, summary
from radia.quality import load_rules
from radia.settings import load_settings

SEVERITY = {"critical": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN}
RULES = load_rules(load_settings().quality)


@dg.asset(
    group_name="quality",
    owners=["team:data-engineering"],
    kinds={"greatexpectations"},
    code_version=__version__,
    deps=["images", "labels"],
    check_specs=[
        dg.AssetCheckSpec(
            check_name(rule.name), asset="quality", blocking=rule.severity == "critical", description=rule.says
        )
        for rule in RULES
    ],
)
def quality(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The report of all quality rules, with its Data Docs site; each rule is an asset check."""
    run = site.run(context)
    outcome = steps.check(run)
    results = summary.quality_results(run)
    return dg.MaterializeResult(
        metadata={
            **metadata(outcome),
            "rules": table(results),
            "data docs": dg.MetadataValue.url((run.workspace.quality / "site" / "index.html").resolve().as_uri()),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=check_name(result["name"]),
                passed=result["passed"],
                severity=SEVERITY[result["severity"]],
                metadata={"observed": result["observed"]},
            )
            for result in results
        ],
    )
