"""Blind re-reading: what is asked of readers, and how noisy the labels turn out to be."""

import dagster as dg

from pipelines.presentation import metadata, picture, table
from pipelines.resources import Site
from radia import __version__, steps, summary


@dg.asset(
    group_name="reads",
    owners=["team:machine-learning"],
    kinds={"parquet"},
    code_version=__version__,
    deps=["suspects"],
)
def read_queue(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Studies to be read blind: a sample of the test side, suspects of the training side, repeats; one budget.

    Asks for `reads.budget` studies (params.yaml) once nothing waits; `radia reads queue --budget N` asks for more.
    """
    run = site.run(context)
    outcome = steps.queue_reads(run)
    return dg.MaterializeResult(metadata={**metadata(outcome), "states": table(summary.read_states(run))})


@dg.asset(
    group_name="reads",
    owners=["team:machine-learning"],
    kinds={"parquet"},
    code_version=__version__,
    deps=["evaluation", "suspects", "read_queue"],
    check_specs=[
        dg.AssetCheckSpec(
            "noise_within_bound",
            asset="label_noise",
            description="No finding's labels are surely wrong more often than reads.max_noise_rate, nor all together.",
        ),
        dg.AssetCheckSpec(
            "test_side_is_read",
            asset="label_noise",
            description="As many test studies were read blind as the gate asks for (gate.min_gold_reads), and some.",
        ),
    ],
)
def label_noise(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """How often given labels of the test side are wrong, by blind reads; agreement of readers; what more would give."""
    run = site.run(context)
    outcome = steps.noise(run)
    rate, read = outcome.summary["wrong"], outcome.summary["read"]
    return dg.MaterializeResult(
        metadata={
            **metadata(outcome),
            "noise": table(summary.noise_rows(run)),
            "page": dg.MetadataValue.url((run.workspace.evaluation / "noise.html").resolve().as_uri()),
            **{name: picture(uri, name) for name, uri in summary.noise_pictures(run).items()},
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="noise_within_bound",
                passed=not outcome.summary["above_bound"],
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"rate": dg.MetadataValue.json(rate), "noisiest": ", ".join(outcome.summary["noisiest"])},
            ),
            dg.AssetCheckResult(
                check_name="test_side_is_read",
                passed=read >= max(1, run.settings.gate.min_gold_reads),
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"read": read, "studies": outcome.summary["studies"]},
            ),
        ],
    )
