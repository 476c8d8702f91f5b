"""Database schemas: which are behind the code, and bringing them up to it.

The ledger's migrations are RADIA's own (`radia.operations.migrations`); MLflow and Dagster bring theirs, and are asked
in the same way where they keep their revision as Alembic does.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from radia import registry
from radia.errors import MigrationError
from radia.settings import database_url, ledger_url
from radia.workspace import Workspace

if TYPE_CHECKING:
    from alembic.config import Config

LEDGER_TABLE = "ledger_revision"
BY_FORMAT = {1: "ledger_0001", 2: "ledger_0002"}
"""The revision of a ledger that RADIA made itself, by the format it names: such a ledger has no revision table yet."""


@dataclass(frozen=True)
class Schema:
    """One database's schema: the revision found ('' in an empty one) and the one this code wants."""

    name: str
    found: str
    wanted: str

    @property
    def pending(self) -> bool:
        """Whether there is something to migrate. What does not exist yet is made when it is first used."""
        return bool(self.found) and self.found != self.wanted


def upgrade_ledger(url: str) -> Schema:
    """Brings a ledger's tables to this code's schema, or makes them. Returns what they were before.

    Everything or nothing happens, in one transaction. Raises MigrationError.
    """
    from alembic import command

    config = _scripts(Path(__file__).parent / "migrations", LEDGER_TABLE)
    engine = _engine(url)
    try:
        with engine.begin() as connection:
            before = _ledger_schema(connection, config)
            config.attributes["connection"] = connection
            if before.found and not _revision(connection, LEDGER_TABLE):
                command.stamp(config, before.found)
            command.upgrade(config, "head")
        return before
    except SQLAlchemyError as error:
        raise MigrationError(f"the ledger's tables cannot be migrated: {type(error).__name__}") from error
    finally:
        engine.dispose()


def schemas(site: Workspace) -> list[Schema]:
    """The schemas of the site's databases. Raises MigrationError where one cannot be asked."""
    found = [_asked("ledger", ledger_url(site), Path(__file__).parent / "migrations", LEDGER_TABLE)]
    mlflow = _package("mlflow")
    store = database_url("mlflow") or site.mlflow_url
    found.append(_asked("MLflow", store, mlflow / "store" / "db_migrations", "alembic_version"))
    if (url := database_url("mlflow")) is not None:
        accounts = mlflow / "server" / "auth" / "db" / "migrations"
        found.append(_asked("MLflow's accounts", url, accounts, "alembic_version_auth"))
    if (url := database_url("dagster")) is not None:
        alembic = _package("dagster_postgres") / "alembic"
        found.append(_asked("Dagster", url, alembic, "alembic_version"))
    return [schema for schema in found if schema is not None]


def migrate(site: Workspace, *, administrator: str = "") -> list[Schema]:
    """Brings every database of the site to this code's schema, or makes it. Returns what those that were there were.

    administrator: the role that owns the ledger's tables, where services write as another. Raises MigrationError.
    """
    from radia.services.instance import dagster_home

    site.root.mkdir(parents=True, exist_ok=True)
    before = schemas(site)
    url = database_url("ledger", role=administrator) if administrator else None
    upgrade_ledger(url or ledger_url(site))
    if (server := database_url("mlflow")) is not None:
        _run("mlflow", "db", "upgrade", server)
        _run("mlflow.server.auth", "db", "upgrade", "--url", server)
    elif sqlite_file(site.mlflow_url).is_file():
        _run("mlflow", "db", "upgrade", site.mlflow_url)
    else:
        registry.champion(site)  # makes it, whole or not at all
    dagster_home(site)
    _run("dagster", "instance", "migrate")
    return before


def sqlite_file(url: str) -> Path:
    """The file of a SQLite database."""
    return Path(sa.engine.make_url(url).database or "")


def make_missing(site: Workspace) -> None:
    """Makes the databases of a site that has none yet, before services that would all make them at once."""
    if database_url("dagster") is None and not (site.dagster_home / "storage").is_dir():
        migrate(site)


def _run(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1][:200]
        raise MigrationError(f"{module} could not migrate its database: {last}")


def _asked(name: str, url: str, scripts: Path, table: str) -> Schema | None:
    """None for a database that does not exist yet."""
    if url.startswith("sqlite") and not sqlite_file(url).is_file():
        return None
    config = _scripts(scripts, table)
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            if name == "ledger":
                return _ledger_schema(connection, config)
            return Schema(name, _revision(connection, table), _head(config))
    except SQLAlchemyError as error:
        raise MigrationError(f"the database of {name} does not answer: {type(error).__name__}") from error
    finally:
        engine.dispose()


def _ledger_schema(connection: sa.Connection, config: Config) -> Schema:
    found = _revision(connection, LEDGER_TABLE)
    if not found and sa.inspect(connection).has_table("ledger_format"):
        number = connection.execute(sa.text("SELECT max(version) FROM ledger_format")).scalar()
        if number not in BY_FORMAT:
            raise MigrationError(f"the ledger is of format {number}, which this RADIA does not know: use a newer one")
        found = BY_FORMAT[number]
    return Schema("ledger", found, _head(config))


def _revision(connection: sa.Connection, table: str) -> str:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision() or ""


def _scripts(folder: Path, table: str) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("version_table", table)
    return config


def _head(config: Config) -> str:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config).get_current_head() or ""


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(url, poolclass=sa.NullPool)


def _package(name: str) -> Path:
    """Where a package lies, without importing it. Raises MigrationError."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MigrationError(f"{name} is not installed")
    return Path(spec.origin).parent
