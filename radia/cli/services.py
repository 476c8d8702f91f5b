"""The servers: one by one, or all of them on this machine."""

from __future__ import annotations

import click

from radia.cli.frame import main
from radia.errors import RadiaError
from radia.settings import workspace


@main.command()
@click.option("--port", default=8000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes.")
@click.option(
    "--open-demo/--sign-in",
    default=None,
    help="Whether the demo page is open to this machine without accounts; it is while nobody has one.",
)
def web(port: int, host: str, workers: int, open_demo: bool | None) -> None:
    """Serve the web app: the demo of the model in use, for people with an account."""
    from radia.web.server import serve

    serve(workspace(), host=host, port=port, workers=workers, open_demo=open_demo)


@main.command("serve")
@click.argument("name")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option("--port", type=int, help="Default: the service's own.")
@click.option("--open", "open_", is_flag=True, help="Nobody is asked who they are; on 127.0.0.1 alone.")
@click.option("--check", is_flag=True, help="Start nothing: ask the running service whether it is well.")
def serve_command(name: str, host: str, port: int | None, open_: bool, check: bool) -> None:
    """Serve NAME: mlflow, dagster-code, dagster-webserver, dagster-webserver-readonly, dagster-daemon, web, …

    The last two are receiver and proxy. These are the commands of docker-compose.yml and of `radia up`.
    """
    from radia.services import catalogue, health

    service = catalogue.find(name)
    if open_ and host != catalogue.LOOPBACK:
        raise click.UsageError("--open is for 127.0.0.1: anybody else must sign in")
    here = catalogue.place(service, host=host, port=port, open_=open_)
    if not check:
        catalogue.replace_process(service, here)
    if why := health.complaint(service, here):
        raise RadiaError(f"{name} is not well: {why}")
    click.echo(f"{name} is well")


@main.command()
@click.option("--dagster-port", default=3000, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
@click.option("--web-port", default=8000, show_default=True)
@click.option("--code-port", type=int, help="Of the server of the pipeline's code.  [default: a free one]")
@click.option("--port", default=8080, show_default=True, help="Of the page that links everything.")
def up(dagster_port: int, mlflow_port: int, web_port: int, code_port: int | None, port: int) -> None:
    """Everything on this machine, until Ctrl-C: pages of Dagster, MLflow and the web app, and one that links them."""
    from radia.services import serve_all

    ports = {"dagster-webserver": dagster_port, "mlflow": mlflow_port, "web": web_port, "dagster-code": code_port or 0}
    serve_all(workspace(), ports=ports, page_port=port)
