"""Bringing every database of a site to the schema of the installed versions, whole or not at all.

From nothing each package makes its own. From an older schema Alembic runs the package's own scripts: on PostgreSQL in
one transaction, on SQLite on a copy that takes the original's place in one. One process migrates at a time; another
waits, and finds nothing left to do. Before data change there is a way back: on SQLite what was there is kept beside it,
on PostgreSQL a backup of the last day is asked for.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from radia import registry
from radia.errors import MigrationError
from radia.ledger import Action, open_ledger
from radia.operations import sqlite_whole
from radia.operations.schema import (
    LEDGER_TABLE,
    Schema,
    accounts_url,
    asked,
    config_of,
    dagster_files,
    engine_of,
    ledger_schema,
    recorded_revision,
    refuse_newer,
    schemas,
    sqlite_file,
)
from radia.settings import database_url, ledger_url
from radia.workspace import Workspace, written_whole

BEFORE = "before-migration"
"""Folder of the data folder with each SQLite database as it was before it was migrated: `<name>-<revision>/`."""

BACKUP_HOURS = 24
LOCK = 7209451831
"""Of PostgreSQL's advisory locks: held by who makes or migrates databases. The ledger's writers have another."""


def migrate(site: Workspace, *, administrator: str = "", backed_up: bool = False) -> list[Schema]:
    """Brings every database of the site to this code's schema, or makes it. Returns what those that were there were.

    administrator: the role that owns the ledger's tables, where services write as another. backed_up: the caller
    answers for a way back. Raises MigrationError, also where a database is newer than this code: then nothing is done.
    """
    from radia.operations.databases import grant_ledger_rights
    from radia.services.instance import dagster_home

    site.root.mkdir(parents=True, exist_ok=True)
    ledger = (database_url("ledger", role=administrator) if administrator else None) or ledger_url(site)
    with alone(site, ledger):
        before = schemas(site)
        refuse_newer(before)
        _see_to_a_way_back(site, before, backed_up=backed_up)
        upgrade_ledger(ledger)
        if administrator and database_url("ledger") is not None:
            grant_ledger_rights()
        dagster_home(site)
        if (server := database_url("mlflow")) is not None:
            _bring(server, "MLflow")
            _bring(server, "MLflow's accounts")
            _bring_dagster(database_url("dagster") or "")
        else:
            _bring_files(site, {one.name: one for one in before})
        if waiting := [one.name for one in schemas(site) if one.found != one.wanted]:
            raise MigrationError(f"{' and '.join(waiting)} did not come to the schema of this version: see its log")
    return before


def upgrade_ledger(url: str) -> Schema:
    """Brings a ledger's tables to this code's schema, or makes them. Returns what they were before.

    Everything or nothing happens, in one transaction. Raises MigrationError.
    """
    from alembic import command

    config = config_of("ledger")
    engine = engine_of(url)
    try:
        with engine.begin() as connection:
            before = ledger_schema(connection)
            refuse_newer([before])
            config.attributes["connection"] = connection
            if before.found and not recorded_revision(connection, LEDGER_TABLE):
                command.stamp(config, before.found)
            command.upgrade(config, "head")
        return before
    except SQLAlchemyError as error:
        raise MigrationError(f"the ledger's tables cannot be migrated: {type(error).__name__}") from error
    finally:
        engine.dispose()


@contextmanager
def alone(site: Workspace, url: str) -> Iterator[None]:
    """Holds the migration of a site: by a lock of its PostgreSQL server, of which url is a database, or of its folder.

    The lock ends with the process. Raises MigrationError.
    """
    if not url.startswith("sqlite"):
        with alone_on_server(url):
            yield
        return
    path = site.root / "logs" / "migration.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def alone_on_server(url: str) -> Iterator[None]:
    """Holds an advisory lock of the database until the block ends, or the process. Raises MigrationError."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
            yield
    except SQLAlchemyError as error:
        raise MigrationError(f"PostgreSQL cannot be asked: {type(error).__name__}") from error
    finally:
        engine.dispose()


# --- a way back -----------------------------------------------------------------------------------------------------


def _see_to_a_way_back(site: Workspace, before: Iterable[Schema], *, backed_up: bool) -> None:
    waiting = [one for one in before if one.pending]
    if database_url("ledger") is None:
        for one in waiting:
            _keep(site, one)
    elif waiting and not backed_up and not _backed_up_lately(site):
        names = ", ".join(f"{one.name} ({one.found} → {one.wanted})" for one in waiting)
        raise MigrationError(
            f"{names} would be migrated, and the ledger knows of no backup of the last {BACKUP_HOURS} hours: "
            "`radia backup FOLDER` first, or `radia migrate --without-backup`"
        )


def _keep(site: Workspace, one: Schema) -> None:
    """Copies the files of a database as they are, once: what a killed migration left is not what was there before."""
    target = site.root / BEFORE / f"{one.name.lower().replace(' ', '-').replace(chr(39), '')}-{one.found}"
    if target.is_dir():
        return
    files = _files_of(site, one.name)
    with written_whole(target) as folder:
        folder.mkdir(mode=0o700)
        sqlite_whole.keep(files, [folder / path.relative_to(site.root.resolve()) for path in files])


def _files_of(site: Workspace, name: str) -> list[Path]:
    urls = {"ledger": ledger_url(site), "MLflow": site.mlflow_url, "MLflow's accounts": accounts_url(site)}
    files = [sqlite_file(urls[name])] if name in urls else dagster_files(site)
    return [path.resolve() for path in files]


def _backed_up_lately(site: Workspace) -> bool:
    with closing(open_ledger(site, read_only=True)) as ledger:
        event = ledger.last(Action.BACKUP)
    return event is not None and datetime.now(UTC) - datetime.fromisoformat(event.at) < timedelta(hours=BACKUP_HOURS)


# --- one database ---------------------------------------------------------------------------------------------------

MAKERS = {
    "MLflow": ("mlflow", "db", "upgrade"),
    "MLflow's accounts": ("mlflow.server.auth", "db", "upgrade", "--url"),
}
"""The packages' own commands that make a database from nothing, before the database's address."""


def _bring(url: str, name: str) -> None:
    """A database of MLflow, from nothing or from an older schema. On PostgreSQL each is one transaction of MLflow's."""
    found = asked(name, url)
    if found is None or not found.found:
        _run(*MAKERS[name], url)
    elif found.pending:
        config = config_of(name)
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        _upgrade(name, config)


OWED = "RADIA: the data are still to be migrated"
"""The comment on Dagster's revision from when its tables are of the new schema until its data are."""


def _bring_dagster(url: str) -> None:
    """Dagster's tables in one transaction; then its data, by its own command, which does again what was not done."""
    found = asked("Dagster", url)
    engine = engine_of(url)
    sa.event.listen(engine, "before_cursor_execute", _not_concurrently, retval=True)
    try:
        if found is not None and found.pending:
            config = config_of("Dagster")
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                _upgrade("Dagster", config)
                connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS '{OWED}'")
        with engine.connect() as connection:
            comment = connection.exec_driver_sql("SELECT obj_description(to_regclass('alembic_version'))").scalar()
        if found is None or not found.found or comment == OWED:
            _run("dagster", "instance", "migrate")
            with engine.begin() as connection:
                connection.exec_driver_sql("COMMENT ON TABLE alembic_version IS NULL")
    except SQLAlchemyError as error:
        raise MigrationError(f"the database of Dagster cannot be migrated: {type(error).__name__}") from error
    finally:
        engine.dispose()


def _not_concurrently(
    _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: object
) -> tuple[str, Any]:
    """An index that is made beside other work is made outside any transaction; here nobody works."""
    if statement.lstrip().startswith(("CREATE INDEX", "CREATE UNIQUE INDEX", "DROP INDEX")):
        statement = statement.replace(" CONCURRENTLY", "", 1)
    return statement, parameters


def _bring_files(site: Workspace, before: dict[str, Schema]) -> None:
    """The databases of one machine. MLflow's accounts are made by its server, where it asks for them."""
    _remove_leftovers(site)
    if "MLflow" not in before:
        registry.champion(site)  # makes it, whole or not at all
    for name in ("MLflow", "MLflow's accounts"):
        if name in before and before[name].found != before[name].wanted:
            (file,) = _files_of(site, name)
            with _copies(site) as folder, sqlite_whole.changed_whole([file], [folder / file.name]):
                _bring(f"sqlite:///{folder / file.name}", name)
    dagster = before.get("Dagster")
    if dagster is None:
        _run("dagster", "instance", "migrate")
    elif dagster.found != dagster.wanted:
        _bring_dagster_files(site)


def _bring_dagster_files(site: Workspace) -> None:
    """In a home of its own, with copies of all databases: those of single runs come back first, then the others."""
    files, home = _files_of(site, "Dagster"), site.dagster_home.resolve()
    main = [path for path in files if path.parent.name != "runs" or path.name == "index.db"]
    with _copies(site) as folder:
        shutil.copyfile(home / "dagster.yaml", folder / "dagster.yaml")
        with sqlite_whole.changed_whole(files, [folder / path.relative_to(home) for path in files], held=len(main)):
            _run("dagster", "instance", "migrate", environment={"DAGSTER_HOME": str(folder)})


@contextmanager
def _copies(site: Workspace) -> Iterator[Path]:
    with TemporaryDirectory(prefix=_LEFTOVER, dir=site.root.resolve()) as folder:
        yield Path(folder)


_LEFTOVER = ".partial-migration-"


def _remove_leftovers(site: Workspace) -> None:
    for folder in site.root.glob(f"{_LEFTOVER}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _upgrade(name: str, config: Any) -> None:
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(config, "head")
    except (SQLAlchemyError, CommandError) as error:
        raise MigrationError(f"the database of {name} cannot be migrated: {type(error).__name__}") from error


def _run(module: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
    surroundings = {**os.environ, **(environment or {})}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)  # noqa: S603
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1][:200]
        raise MigrationError(f"{module} could not migrate its database: {last}")
