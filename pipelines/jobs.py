"""Jobs: one, the whole way from the inbox to a registered candidate."""

import dagster as dg

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all(),
    executor_def=dg.in_process_executor,
    description="From the inbox to a registered candidate that waits for approval. What is done is not done again.",
)
