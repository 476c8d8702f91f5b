"""Database schemas: which are behind the code, or ahead of it, by the revisions that Alembic keeps in them.

The ledger's migrations are RADIA's own (`radia.operations.migrations`); MLflow and Dagster bring theirs. Bringing a
schema up is `radia.operations.migration`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from radia.errors import MigrationError
from radia.operations import sqlite_whole
from radia.settings import database_url, ledger_url
from radia.workspace import Workspace

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

LEDGER_TABLE = "ledger_revision"
BY_FORMAT = {1: "ledger_0001", 2: "ledger_0002"}
"""The revision of a ledger that RADIA made itself, by the format it names: such a ledger has no revision table yet."""


@dataclass(frozen=True)
class Kind:
    """Whose migrations a database follows: the package, the folder of its scripts in it, the table of its revision."""

    package: str
    scripts: str
    table: str

    @property
    def installed(self) -> str:
        """The package and its version."""
        return f"{self.package} {importlib.metadata.version(self.package)}"


KINDS = {
    "ledger": Kind("radia", "operations/migrations", LEDGER_TABLE),
    "MLflow": Kind("mlflow", "store/db_migrations", "alembic_version"),
    "MLflow's accounts": Kind("mlflow", "server/auth/db/migrations", "alembic_version_auth"),
    "Dagster": Kind("dagster", "_core/storage/alembic", "alembic_version"),
}


@dataclass(frozen=True)
class Schema:
    """One database's schema: the revision found ('' in an empty one) and the one this code wants.

    newer: the revision found is none that this code knows, so a newer version made it.
    """

    name: str
    found: str
    wanted: str
    newer: bool = False

    @property
    def pending(self) -> bool:
        """Whether there is something to migrate. What does not exist yet is made when it is first used."""
        return bool(self.found) and self.found != self.wanted and not self.newer


def schemas(site: Workspace) -> list[Schema]:
    """The schemas of the site's databases that exist. Raises MigrationError where one cannot be asked."""
    found = [asked("ledger", ledger_url(site)), asked("MLflow", database_url("mlflow") or site.mlflow_url)]
    found.append(asked("MLflow's accounts", database_url("mlflow") or accounts_url(site)))
    url = database_url("dagster")
    found.append(asked("Dagster", url) if url else _asked_files("Dagster", dagster_files(site)))
    return [schema for schema in found if schema is not None]


def make_missing(site: Workspace) -> None:
    """Makes and migrates what `radia up` needs before its services start. Raises MigrationError.

    In a process of its own: MLflow's and Dagster's scripts import all of them, and `radia up` stays for days.
    """
    command = [sys.executable, "-m", "radia", "migrate"]
    surroundings = {**os.environ, "RADIA_DATA": str(site.root.resolve())}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)  # noqa: S603
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise MigrationError(last.removeprefix("radia: "))


def asked(name: str, url: str) -> Schema | None:
    """The schema of one database; None where it does not exist yet. Raises MigrationError."""
    if url.startswith("sqlite"):
        file = sqlite_file(url)
        if name != "ledger":
            return _asked_files(name, [file])
        if not file.is_file():
            return None
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            if name == "ledger":
                return ledger_schema(connection)
            return _schema(name, recorded_revision(connection, KINDS[name].table), config_of(name))
    except SQLAlchemyError as error:
        raise MigrationError(f"the database of {name} does not answer: {type(error).__name__}") from error
    finally:
        engine.dispose()


def refuse_newer(found: Iterable[Schema]) -> None:
    """Raises MigrationError where a database is newer than the code: nothing here can bring it back."""
    for one in found:
        if one.newer:
            kind = KINDS[one.name]
            raise MigrationError(
                f"the database of {one.name} is at revision {one.found}, and {kind.installed} knows none after "
                f"{one.wanted}: a newer version has migrated it. Install that version again, or restore the backup "
                "taken before it (radia restore-backup); a schema is never taken back"
            )


def known(name: str, revision: str) -> Schema:
    """What a revision of a database is to this code, without asking any. Raises MigrationError for an unknown name."""
    if name not in KINDS:
        raise MigrationError(f"there is a database of {name}, of which this version knows nothing: use a newer one")
    return _schema(name, revision, config_of(name))


def accounts_url(site: Workspace) -> str:
    """Where MLflow keeps accounts on one machine: beside what it tracks."""
    return site.mlflow_url.replace("mlflow.db", "mlflow-accounts.db")


def dagster_files(site: Workspace) -> list[Path]:
    """Dagster's databases on one machine: one of each run, then those of all events, of runs and of schedules."""
    home = site.dagster_home
    main = [home / "history" / "runs" / "index.db", home / "history" / "runs.db", home / "schedules" / "schedules.db"]
    runs = sorted(path for path in (home / "history" / "runs").glob("*.db") if path != main[0])
    return [*runs, *(path for path in main if path.is_file())]


def sqlite_file(url: str) -> Path:
    """The file of a SQLite database."""
    return Path(sa.engine.make_url(url).database or "")


def engine_of(url: str) -> sa.Engine:
    """An engine whose transactions are whole on SQLite too: its driver begins none before tables are changed."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def leave_it_to_us(connection: sqlite3.Connection, _record: object) -> None:
            connection.isolation_level = None

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def config_of(name: str) -> Config:
    """Alembic's configuration for the scripts of a kind of database. Raises MigrationError."""
    kind = KINDS[name]
    return _scripts(_package(kind.package) / kind.scripts, kind.table)


def ledger_schema(connection: sa.Connection) -> Schema:
    """The schema of a ledger, also of one that no migration made. Raises MigrationError."""
    config = config_of("ledger")
    found = recorded_revision(connection, LEDGER_TABLE)
    if not found and sa.inspect(connection).has_table("ledger_format"):
        number = connection.execute(sa.text("SELECT max(version) FROM ledger_format")).scalar()
        if number not in BY_FORMAT:
            raise MigrationError(f"the ledger is of format {number}, which this RADIA does not know: use a newer one")
        found = BY_FORMAT[number]
    return _schema("ledger", found, config)


def recorded_revision(connection: sa.Connection, table: str) -> str:
    """The revision that Alembic keeps in a table; empty where there is none."""
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision() or ""


def _asked_files(name: str, files: Iterable[Path]) -> Schema | None:
    """Of several files the one that most needs something done: one that is newer, else one that is older."""
    revisions = {sqlite_whole.revision(file, KINDS[name].table) for file in files if file.is_file()}
    if not revisions:
        return None
    config = config_of(name)
    found = [_schema(name, revision, config) for revision in sorted(revisions)]
    return max(found, key=lambda one: (one.newer, one.pending, one.found))


def _schema(name: str, found: str, config: Config) -> Schema:
    head = _head(config)
    return Schema(name, found, head, bool(found) and found != head and found not in _revisions(_directory(config)))


def _scripts(folder: Path, table: str) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("version_table", table)
    return config


def _head(config: Config) -> str:
    return _directory(config).get_current_head() or ""


def _directory(config: Config) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config)


def _revisions(scripts: ScriptDirectory) -> set[str]:
    return {script.revision for script in scripts.walk_revisions()}


def _package(name: str) -> Path:
    """Where a package lies, without importing it. Raises MigrationError."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MigrationError(f"{name} is not installed")
    return Path(spec.origin).parent
