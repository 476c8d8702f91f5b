"""`python -m pipelines api grpc …`: `dagster api grpc …`, and beside it the jobs' page for Prometheus."""

from __future__ import annotations

import runpy

from pipelines.measures import registry
from radia.operations.measures import page
from radia.settings import open_secrets, quiet_dependencies, workspace


def main() -> None:
    """Runs Dagster's command line until it ends, with the page where `$RADIA_METRICS` asks for it."""
    quiet_dependencies()
    open_secrets()
    with page("dagster-code", registry(workspace())):
        runpy.run_module("dagster", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
