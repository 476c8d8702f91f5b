"""Accounts of the web app."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from radia.cli.frame import EXISTING_FILE, main, prints
from radia.settings import workspace

if TYPE_CHECKING:
    from radia.web.accounts import Accounts

role_option = click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(["reader", "lead", "auditor", "engineer"]),
    help="May be given several times.",
)
file_option = click.option(
    "--password-file", type=EXISTING_FILE, help="The first line is the password; asked for where none is given."
)


@main.group()
def people() -> None:
    """Who may use the web app."""


@people.command("add")
@click.argument("name")
@role_option
@file_option
@click.option("--no-password", is_flag=True, help="Signed in by the hospital's proxy alone.")
@prints
def add(name: str, roles: tuple[str, ...], password_file: Path | None, no_password: bool) -> tuple[object, str]:
    """Make an account."""
    password = None if no_password else _password(password_file)
    account = _accounts().add(name, roles, password)
    return {"name": name, "roles": sorted(account.roles)}, f"{name} may sign in as {', '.join(roles)}"


@people.command("list")
@prints
def list_() -> tuple[object, str]:
    """Everybody who has an account."""
    known = _accounts().all()
    value = [{"name": one.name, "roles": sorted(one.roles), "active": one.active} for one in known]
    lines = [f"{one.name}: {', '.join(sorted(one.roles))}{'' if one.active else ' (let in no more)'}" for one in known]
    return {"people": value}, "\n".join(lines) or "nobody yet: radia people add NAME --role lead"


@people.command("password")
@click.argument("name")
@file_option
@prints
def password(name: str, password_file: Path | None) -> tuple[object, str]:
    """Give a person another password; what they are signed in with ends."""
    _accounts().set_password(name, _password(password_file))
    return {"name": name}, f"{name} has another password"


@people.command("roles")
@click.argument("name")
@role_option
@prints
def set_roles(name: str, roles: tuple[str, ...]) -> tuple[object, str]:
    """Give a person other roles."""
    _accounts().set_roles(name, roles)
    return {"name": name, "roles": sorted(roles)}, f"{name} is now {', '.join(roles)}"


@people.command("remove")
@click.argument("name")
@prints
def remove(name: str) -> tuple[object, str]:
    """Let a person in no more. What they read and did stays in the record."""
    _accounts().remove(name)
    return {"name": name, "active": False}, f"{name} is let in no more"


@people.command("restore")
@click.argument("name")
@prints
def restore(name: str) -> tuple[object, str]:
    """Let a person in again."""
    _accounts().restore(name)
    return {"name": name, "active": True}, f"{name} is let in again"


@people.command("token")
@click.argument("name")
@prints
def token(name: str) -> tuple[object, str]:
    """Make a secret with which a program uses the API for this person. It is shown once."""
    secret = _accounts().make_token(name)
    return {"name": name, "token": secret}, secret


def _accounts() -> Accounts:
    from radia.web.accounts import Accounts

    return Accounts(workspace().web / "people.db")


def _password(file: Path | None) -> str:
    if file is None:
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    return (file.read_text().splitlines() or [""])[0]
