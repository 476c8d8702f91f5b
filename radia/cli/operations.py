"""What an administrator does to a site: secrets, databases, backups, checks."""

from __future__ import annotations

from pathlib import Path

import click

from radia.cli.frame import ANY_PATH, EXISTING_FILE, main, prints
from radia.settings import workspace


@main.command()
@click.argument("folder", type=ANY_PATH)
@click.option("--host", default="localhost", show_default=True, help="Name under which people reach the proxy.")
@prints
def secrets(folder: Path, host: str) -> tuple[object, str]:
    """Make the secrets that docker-compose.yml names in FOLDER; what is there stays."""
    from radia.operations.secret_files import write_secrets

    new = write_secrets(folder, host=host)
    return {"folder": str(folder), "new": new}, f"{folder}: {', '.join(new) or 'nothing was missing'}"


@main.command()
@click.option("--passwords", type=EXISTING_FILE, help="pgpass_admin of `radia secrets`: make roles and databases too.")
@prints
def migrate(passwords: Path | None) -> tuple[object, str]:
    """Bring every database to the schema of this version; with --passwords make what is missing in PostgreSQL."""
    from radia.operations import schema, secret_files
    from radia.operations.databases import prepare

    made = prepare(passwords) if passwords else []
    before = schema.migrate(workspace(), administrator=secret_files.ADMINISTRATOR if passwords else "")
    lines = [f"made {one}" for one in made]
    lines += [f"{one.name}: {one.found or 'new'} → {one.wanted}" for one in before if one.found != one.wanted]
    value = {"made": made, "schemas": {one.name: {"before": one.found, "now": one.wanted} for one in before}}
    return value, "\n".join(lines) or "every database is up to date"


@main.command()
@click.argument("url")
@prints
def accounts(url: str) -> tuple[object, str]:
    """Make MLflow's accounts of RADIA itself (pipeline, web) on the server at URL."""
    from radia.operations.accounts import make_accounts

    new = make_accounts(url.rstrip("/"))
    return {"new": new}, f"new accounts: {', '.join(new) or 'none'}"
