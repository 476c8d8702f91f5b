"""All that Dagster loads."""

import dagster as dg

from radia.settings import open_secrets, quiet_dependencies

quiet_dependencies()
open_secrets()

from pipelines import assets  # noqa: E402
from pipelines.jobs import pacs, retrain  # noqa: E402
from pipelines.resources import Site  # noqa: E402
from pipelines.schedules import nightly, pacs_daily  # noqa: E402
from pipelines.sensors import approval_sensor, failure_notice, inbox_sensor, killed_runs, receipt_sensor  # noqa: E402

definitions = dg.Definitions(
    assets=dg.load_assets_from_package_module(assets),
    jobs=[retrain, pacs],
    schedules=[nightly, pacs_daily],
    sensors=[inbox_sensor, receipt_sensor, approval_sensor, failure_notice, killed_runs],
    resources={"site": Site()},
    executor=dg.in_process_executor,
)
