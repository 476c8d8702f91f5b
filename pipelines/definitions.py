"""All that Dagster loads."""

import dagster as dg

from radia.settings import quiet_dependencies

quiet_dependencies()

from pipelines import assets  # noqa: E402
from pipelines.jobs import retrain  # noqa: E402
from pipelines.resources import Site  # noqa: E402
from pipelines.schedules import nightly  # noqa: E402
from pipelines.sensors import approval_sensor, inbox_sensor  # noqa: E402

definitions = dg.Definitions(
    assets=dg.load_assets_from_package_module(assets),
    jobs=[retrain],
    schedules=[nightly],
    sensors=[inbox_sensor, approval_sensor],
    resources={"site": Site()},
    executor=dg.in_process_executor,
)
