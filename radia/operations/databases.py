"""PostgreSQL for a served RADIA: a database for the ledger, MLflow and Dagster each, and a role for each.

The ledger's tables belong to the administrator. The role that services use may read them and add rows: it can neither
change a row nor switch off the triggers that would refuse it.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from radia.errors import MigrationError, SettingsError
from radia.operations.migration import alone_on_server, upgrade_ledger
from radia.operations.schema import asked
from radia.operations.secret_files import ADMINISTRATOR, DATABASES, read_passwords
from radia.settings import database_url

LEDGER_RIGHTS = (
    "GRANT CONNECT ON DATABASE ledger TO ledger",
    "GRANT USAGE ON SCHEMA public TO ledger",
    "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO ledger",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO ledger",
)


def prepare(passfile: Path) -> list[str]:
    """Makes roles, databases and the ledger where they are missing, sets passwords. Returns what was made.

    passfile: of the administrator, with the passwords of all roles (`pgpass_admin`); a password that was changed in it
    is changed in the server. A ledger that is there is left as it is: `radia.operations.migration` brings it along.
    Raises SettingsError, MigrationError.
    """
    passwords = read_passwords(passfile)
    if missing := [role for role in DATABASES if role not in passwords]:
        raise SettingsError(f"{passfile.name} holds no password for {', '.join(missing)}")
    server = database_url("postgres", role=ADMINISTRATOR)
    if server is None:
        raise SettingsError("RADIA_DATABASE names no PostgreSQL server")
    made = []
    with alone_on_server(server):
        for name in DATABASES:
            made += _make_role_and_database(
                server, name, passwords[name], owner=ADMINISTRATOR if name == "ledger" else name
            )
        ledger = database_url("ledger", role=ADMINISTRATOR) or ""
        if (found := asked("ledger", ledger)) is None or not found.found:
            upgrade_ledger(ledger)
        grant_ledger_rights()
    return made


def grant_ledger_rights() -> None:
    """Lets services read the ledger's tables and add to them, and do no more. Raises MigrationError."""
    ledger = database_url("ledger", role=ADMINISTRATOR) or ""
    _execute(ledger, "REVOKE ALL ON DATABASE ledger FROM PUBLIC", *LEDGER_RIGHTS)


def empty(name: str) -> None:
    """Takes every table out of a database of RADIA's, for what a backup holds. Raises MigrationError."""
    url = database_url(name, role=ADMINISTRATOR) or ""
    again = ("CREATE SCHEMA public AUTHORIZATION pg_database_owner", "GRANT USAGE ON SCHEMA public TO PUBLIC")
    _execute(url, "DROP SCHEMA public CASCADE", *again)


def _make_role_and_database(server: str, name: str, password: str, *, owner: str) -> list[str]:
    """Names and passwords are RADIA's own, from `radia secrets`; a password is quoted all the same."""
    made = []
    quoted = password.replace("'", "''")
    if not _there(server, "SELECT 1 FROM pg_roles WHERE rolname = :name", name):
        _execute(server, f"CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
        made.append(f"role {name}")
    _execute(server, f"ALTER ROLE {name} PASSWORD '{quoted}'")
    if not _there(server, "SELECT 1 FROM pg_database WHERE datname = :name", name):
        _execute(server, f"CREATE DATABASE {name} OWNER {owner}")
        made.append(f"database {name}")
    return made


def _there(url: str, query: str, name: str) -> bool:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            return connection.execute(sa.text(query), {"name": name}).first() is not None
    except SQLAlchemyError as error:
        raise MigrationError(f"PostgreSQL cannot be asked: {type(error).__name__}") from error


def _execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True)
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))
    except SQLAlchemyError as error:
        raise MigrationError(f"PostgreSQL refused: {type(error).__name__}") from error.__cause__
