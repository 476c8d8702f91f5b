"""Images: from clean DICOM to memory-mapped shards and the manifest, and the labels that belong to them."""

import dagster as dg

from pipelines.presentation import batch_table, metadata, picture, total
from pipelines.resources import Site
from radia import __version__, steps, summary


@dg.asset(
    group_name="images",
    owners=["team:data-engineering"],
    kinds={"numpy", "parquet"},
    code_version=__version__,
    deps=["clean"],
)
def images(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Frontal chest images as uint8 shards, and one manifest row for each."""
    run = site.run(context)
    outcomes = steps.images(run)
    return dg.MaterializeResult(
        metadata={
            "images": total(outcomes, "images"),
            "refused": total(outcomes, "refused"),
            "batches": batch_table(outcomes),
            "example": picture(summary.example_picture(run), "one image of the archive"),
        }
    )


@dg.asset(
    group_name="images",
    owners=["team:data-engineering"],
    kinds={"csv", "parquet"},
    code_version=__version__,
    deps=["images"],
)
def labels(context: dg.AssetExecutionContext, site: Site) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Given labels by study, from label tables or reports, joined by the accession's pseudonym."""
    return dg.MaterializeResult(metadata=metadata(steps.labels(site.run(context))))
