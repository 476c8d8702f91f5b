"""The servers."""

import click

from radia.cli.frame import main
from radia.settings import workspace


@main.command()
@click.option("--port", default=8000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes.")
@click.option("--open-demo", is_flag=True, help="The demo page alone, without accounts, on this machine.")
def web(port: int, host: str, workers: int, open_demo: bool) -> None:
    """Serve the web app: the demo of the model in use, blind re-reading, lineage."""
    from radia.web.server import serve

    serve(workspace(), host=host, port=port, workers=workers, open_demo=open_demo)


@main.command()
@click.option("--dagster-port", default=3000, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
@click.option("--web-port", default=8000, show_default=True)
def up(dagster_port: int, mlflow_port: int, web_port: int) -> None:
    """Dagster, MLflow and the web app on this machine, until Ctrl-C."""
    from radia.services import serve_all

    serve_all(workspace(), dagster_port=dagster_port, mlflow_port=mlflow_port, web_port=web_port)
