"""Databases of an older site come to the schemas of the installed versions with all that was in them, or stay.

The older databases are made by the packages' own scripts: MLflow's and its accounts' up to a revision of some releases
ago, Dagster's from today's back to one of 2024. Rows are written as those releases wrote them.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from radia import digests, registry
from radia.errors import BackupError, MigrationError, RegistryError
from radia.ledger import open_ledger
from radia.operations import backup, doctor, migration, sqlite_whole
from radia.operations.databases import empty, grant_ledger_rights, prepare
from radia.operations.migration import migrate, upgrade_ledger
from radia.operations.schema import accounts_url, config_of, dagster_files, schemas
from radia.operations.secret_files import ADMINISTRATOR
from radia.services.instance import dagster_home
from radia.settings import database_url, quiet_dependencies
from radia.workspace import Workspace
from tests.unit.test_operations import empty_server

MLFLOW, ACCOUNTS, DAGSTER = "bda7b8c39065", "0965eb92f5f0", "284a732df317"
"""Of June 2025, November 2025 and July 2024."""
FORK = multiprocessing.get_context("fork")

RUN, RUN_NAME = "0123456789abcdef0123456789abcdef", "of an older version"
ROWS: dict[str, dict[str, Any]] = {
    "experiments": {"experiment_id": 7, "name": "radia", "lifecycle_stage": "active", "artifact_location": "file:///x"},
    "runs": {
        "run_uuid": RUN,
        "name": RUN_NAME,
        "status": "FINISHED",
        "lifecycle_stage": "active",
        "experiment_id": 7,
        "start_time": 1,
        "user_id": "pipeline",
    },
    "params": {"key": "epochs", "value": "3", "run_uuid": RUN},
    "tags": {"key": "snapshot", "value": "5" * 64, "run_uuid": RUN},
    "latest_metrics": {
        "key": "auroc",
        "value": 0.81,
        "timestamp": 2,
        "step": 1,
        "is_nan": False,
        "run_uuid": RUN,
    },
    "registered_models": {"name": "cxr", "creation_time": 1, "last_updated_time": 1},
    "model_versions": {
        "name": "cxr",
        "version": 4,
        "creation_time": 1,
        "last_updated_time": 1,
        "current_stage": "None",
        "status": "READY",
        "run_id": RUN,
        "source": "file:///x/model",
        "description": "Carte d'un modèle",
    },
    "model_version_tags": {"name": "cxr", "version": 4, "key": "approver", "value": "Dre Côté"},
    "registered_model_aliases": {"name": "cxr", "alias": "champion", "version": 4},
}


# --- older databases ------------------------------------------------------------------------------------------------


def insert(url: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for name, values in rows.items():
            connection.execute(sa.Table(name, sa.MetaData(), autoload_with=connection).insert().values(dict(values)))


def up_to(name: str, url: str, revision: str) -> None:
    config = config_of(name)
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, revision)


def write_older_mlflow(url: str) -> None:
    from mlflow.store.tracking.dbmodels.initial_models import Base

    Base.metadata.create_all(sa.create_engine(url, poolclass=sa.NullPool))
    up_to("MLflow", url, MLFLOW)
    insert(url, ROWS)


def write_older_accounts(url: str) -> None:
    up_to("MLflow's accounts", url, ACCOUNTS)
    person = {"id": 5, "username": "dr-cote", "password_hash": "x", "is_admin": False}
    permission = {"id": 9, "name": "cxr", "user_id": 5, "permission": "MANAGE"}
    insert(url, {"users": person, "registered_model_permissions": permission})


def write_older_dagster(site: Workspace) -> str:
    """A job that ran, then every one of its databases taken back by Dagster's own scripts. Returns the run's id."""
    import dagster

    @dagster.op
    def count() -> int:
        return 7

    @dagster.job(tags={"radia/writes": "images"})
    def intake() -> None:
        count()

    dagster_home(site)
    with dagster.DagsterInstance.get() as instance:
        run_id = str(intake.execute_in_process(instance=instance).run_id)
    server = database_url("dagster")
    for url in [server] if server else [f"sqlite:///{file.resolve()}" for file in dagster_files(site)]:
        config = config_of("Dagster")
        with sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, DAGSTER)
    return run_id


def older_site(site: Workspace) -> str:
    site.root.mkdir(parents=True)
    write_older_mlflow(site.mlflow_url)
    write_older_accounts(accounts_url(site))
    open_ledger(site).append("evaluate", actor="a")
    upgrade_ledger(site.ledger_url)
    return write_older_dagster(site)


def assert_all_is_there(site: Workspace, run_id: str) -> None:
    """Read through the clients of the installed versions."""
    import dagster
    from mlflow import MlflowClient
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    url = database_url("mlflow") or site.mlflow_url
    client = MlflowClient(url)
    (run,) = client.search_runs(["7"])
    assert client.get_experiment("7").name == "radia"
    assert (run.info.run_id, run.info.run_name, run.info.status) == (RUN, RUN_NAME, "FINISHED")
    assert run.data.params == {"epochs": "3"}
    assert run.data.metrics == {"auroc": 0.81}
    assert run.data.tags["snapshot"] == "5" * 64
    version = client.get_model_version_by_alias("cxr", "champion")
    assert (str(version.version), version.run_id, version.description) == ("4", RUN, "Carte d'un modèle")
    assert version.tags == {"approver": "Dre Côté"}

    people: Any = SqlAlchemyStore()
    people.init_db(database_url("mlflow") or accounts_url(site))
    assert people.get_user("dr-cote").is_admin is False
    assert people.get_registered_model_permission("cxr", "dr-cote").permission == "MANAGE"

    dagster_home(site)
    with dagster.DagsterInstance.get() as instance:
        stored = instance.get_run_by_id(run_id)
        assert stored is not None
        assert (stored.job_name, stored.status, stored.tags["radia/writes"]) == (
            "intake",
            dagster.DagsterRunStatus.SUCCESS,
            "images",
        )
        events = {entry.dagster_event_type for entry in instance.all_logs(run_id)}
        assert {dagster.DagsterEventType.STEP_SUCCESS, dagster.DagsterEventType.RUN_SUCCESS} <= events


def state(site: Workspace) -> dict[str, str]:
    return {one.name: one.found for one in schemas(site)}


def waiting(site: Workspace) -> set[str]:
    return {one.name for one in schemas(site) if one.found != one.wanted}


ALL = {"MLflow", "MLflow's accounts", "Dagster"}
OLDER = {"MLflow": MLFLOW, "MLflow's accounts": ACCOUNTS, "Dagster": DAGSTER, "ledger": "ledger_0002"}


def in_another_process(work: Callable[[], None]) -> int | None:
    """Its exit status; of one that was killed, the signal's number below zero."""
    process = FORK.Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def killed_at(statement: str, work: Callable[[], object]) -> Callable[[], None]:
    """The work, in a process that is killed right after the first statement that begins so."""

    def work_and_die() -> None:
        @sa.event.listens_for(sa.Engine, "after_cursor_execute")
        def die(_connection: object, _cursor: object, text: str, *_rest: object) -> None:
            if text.lstrip().startswith(statement):
                os.kill(os.getpid(), signal.SIGKILL)

        work()

    return work_and_die


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """No server, key or address of the surroundings; and MLflow and Dagster say nothing to anybody."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RADIA_DATABASE", "RADIA_LEDGER_KEY", "RADIA_LEDGER_KEY_FILE", "RADIA_LEDGER_ANCHOR"):
            patch.delenv(name, raising=False)
        for name in ("MLFLOW_TRACKING_URI", "RADIA_ADDRESSES", "PGPASSFILE"):
            patch.delenv(name, raising=False)
        patch.setenv("DAGSTER_HOME", "")  # dagster_home writes it
        quiet_dependencies()
        yield


# --- one machine ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def older(quiet: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    site = Workspace(tmp_path_factory.mktemp("older") / "data")
    return site.root, older_site(site)


@pytest.fixture
def site(older: tuple[Path, str], tmp_path: Path) -> Workspace:
    """A copy of the older site, on SQLite."""
    shutil.copytree(older[0], tmp_path / "data")
    return Workspace(tmp_path / "data")


@pytest.fixture
def half(site: Workspace) -> Workspace:
    """Of which MLflow's tracking alone is older: what waits for nothing starts no process."""
    for file in dagster_files(site):
        set_revision(file, "alembic_version", config_head("Dagster"))
    Path(accounts_url(site).removeprefix("sqlite:///")).unlink()
    return site


def config_head(name: str) -> str:
    from radia.operations.schema import known

    return known(name, "").wanted


def set_revision(file: Path, table: str, revision: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"UPDATE {table} SET version_num = ?", (revision,))
        database.commit()


def mlflow_file(site: Workspace) -> Path:
    return site.root / "mlflow.db"


def test_an_older_site_on_one_machine_comes_along_with_all_that_was_in_it(
    site: Workspace, older: tuple[Path, str]
) -> None:
    assert state(site) == OLDER
    assert {one.name for one in migrate(site) if one.pending} == ALL
    assert waiting(site) == set()
    assert_all_is_there(site, older[1])
    files = [mlflow_file(site), site.root / "ledger.db", site.root / "mlflow-accounts.db", *dagster_files(site)]
    before = {file: digests.of_file(file) for file in files}
    assert [one for one in migrate(site) if one.pending] == []
    assert {file: digests.of_file(file) for file in files} == before
    assert [path.name for path in site.root.iterdir() if path.name.startswith(".partial")] == []


def test_what_was_there_is_kept_as_it_was(site: Workspace, older: tuple[Path, str]) -> None:
    def stop(*_arguments: object, **_more: object) -> None:
        raise MigrationError("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migration, "_bring_files", stop)
        with pytest.raises(MigrationError, match="no"):
            migrate(site)
    kept = site.root / migration.BEFORE
    assert {path.name for path in kept.iterdir()} == {
        f"mlflow-{MLFLOW}",
        f"mlflows-accounts-{ACCOUNTS}",
        f"dagster-{DAGSTER}",
    }
    copy = Workspace(site.root.parent / "again")
    for folder in kept.iterdir():
        shutil.copytree(folder, copy.root, dirs_exist_ok=True)
    assert state(copy) == {name: found for name, found in OLDER.items() if name != "ledger"}
    assert {path.name for path in dagster_files(copy)} == {path.name for path in dagster_files(site)}


def test_a_migration_that_is_killed_leaves_the_old_database_and_ends_well_when_run_again(
    half: Workspace,
) -> None:
    before = digests.of_file(mlflow_file(half))
    assert in_another_process(killed_at("CREATE TABLE webhooks", lambda: migrate(half))) == -signal.SIGKILL
    assert digests.of_file(mlflow_file(half)) == before
    assert waiting(half) == {"MLflow"}
    migrate(half)
    assert waiting(half) == set()
    assert registry.champion(half).version == "4"  # type: ignore[union-attr]


def test_one_that_is_killed_while_the_new_database_takes_the_old_one_s_place_is_undone(half: Workspace) -> None:
    def die_half_way(_status: int, remaining: int, total: int) -> None:
        if remaining < total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def bring_slowly(copy: Path, database: sqlite3.Connection) -> None:
        with closing(sqlite3.connect(copy)) as source:
            source.backup(database, pages=8, progress=die_half_way)

    def work() -> None:
        sqlite_whole._brought = bring_slowly
        migrate(half)

    assert in_another_process(work) == -signal.SIGKILL
    assert waiting(half) == {"MLflow"}
    with closing(sqlite3.connect(mlflow_file(half))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    migrate(half)
    assert waiting(half) == set()


def test_a_new_ledger_that_is_killed_while_it_is_made_leaves_no_table(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    assert in_another_process(killed_at("CREATE TRIGGER", lambda: upgrade_ledger(url))) == -signal.SIGKILL
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == []
    upgrade_ledger(url)
    assert upgrade_ledger(url).found == "ledger_0002"


def test_of_two_that_migrate_at_once_one_does_and_one_finds_it_done(half: Workspace) -> None:
    assert sorted(at_once(half)) == [0, 1]


def at_once(site: Workspace, administrator: str = "") -> list[int]:
    """How many databases each of two processes found older, that migrated at the same moment."""
    start, found = FORK.Barrier(2), FORK.Queue()

    def work() -> None:
        start.wait()
        before = migrate(site, administrator=administrator, backed_up=True)
        found.put(sum(one.pending for one in before))

    both = [FORK.Process(target=work) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    return [found.get() for _ in both]


def test_a_database_that_somebody_uses_is_left_alone(half: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_whole, "PATIENCE_SECONDS", 0.1)
    before = digests.of_file(mlflow_file(half))
    with closing(sqlite3.connect(mlflow_file(half), isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(MigrationError, match=r"mlflow\.db is in use"):
            migrate(half)
    assert digests.of_file(mlflow_file(half)) == before


@pytest.mark.parametrize(
    ("name", "file", "table"),
    [
        ("ledger", "ledger.db", "ledger_revision"),
        ("MLflow", "mlflow.db", "alembic_version"),
        ("MLflow's accounts", "mlflow-accounts.db", "alembic_version_auth"),
        ("Dagster", "dagster/history/runs.db", "alembic_version"),
    ],
)
def test_a_newer_database_is_refused_by_both_revisions_and_nothing_is_touched(
    name: str, file: str, table: str, site: Workspace
) -> None:
    set_revision(site.root / file, table, "ffff00001111")
    before = state(site)
    with pytest.raises(MigrationError) as caught:
        migrate(site)
    said = str(caught.value)
    assert f"of {name} is at revision ffff00001111" in said
    assert config_head(name) in said
    assert "restore the backup" in said
    assert state(site) == before
    assert not (site.root / migration.BEFORE).exists()


def test_the_doctor_names_each_database_that_waits_and_each_that_is_newer(site: Workspace) -> None:
    set_revision(site.root / "mlflow-accounts.db", "alembic_version_auth", "ffff00001111")
    schema = [one for one in doctor.examine(site, reach_out=False) if one.subject == "schema"]
    assert {one.found: (one.state, one.advice) for one in schema} == {
        "ledger: ledger_0002": ("ok", ""),
        f"MLflow: {MLFLOW} → {config_head('MLflow')}": ("fail", "radia backup, then radia migrate"),
        "MLflow's accounts: ffff00001111, newer than f1a2b3c4d5e6": ("fail", doctor.NEWER),
        f"Dagster: {DAGSTER} → {config_head('Dagster')}": ("fail", "radia backup, then radia migrate"),
    }


def test_the_registry_does_not_migrate_unasked(half: Workspace) -> None:
    with pytest.raises(RegistryError, match="radia migrate"):
        registry.champion(half)
    assert waiting(half) == {"MLflow"}


def moved(site: Workspace, tmp_path: Path) -> Workspace:
    """Another data folder, with the first one's key of the ledger."""
    other = Workspace(tmp_path / "elsewhere")
    other.key_file.parent.mkdir(parents=True)
    shutil.copy2(site.ledger_key_file, other.ledger_key_file)
    return other


@pytest.fixture
def no_model_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The older model is rows alone: its files are looked for by tests of their own."""
    monkeypatch.setattr(registry, "checkpoint_folder", lambda *_: None)


def test_a_backup_of_an_older_site_comes_back_as_one_of_this_version_and_of_a_newer_one_not(
    half: Workspace, tmp_path: Path, no_model_files: None
) -> None:
    taken = backup.take(half, tmp_path / "backup", actor="a")
    assert (taken.schemas["MLflow"], taken.model) == (MLFLOW, "mlflow:cxr/4")
    assert waiting(half) == {"MLflow"}  # the backup is of what was there
    other = moved(half, tmp_path)
    assert backup.restore(tmp_path / "backup", other).model == "mlflow:cxr/4"
    assert waiting(other) == set()
    told = tmp_path / "backup" / "backup.json"
    told.write_text(told.read_text().replace(MLFLOW, "ffff00001111"))
    another = Workspace(tmp_path / "newer")
    with pytest.raises(MigrationError, match="ffff00001111"):
        backup.restore(tmp_path / "backup", another)
    assert not another.root.exists()


def test_a_backup_of_before_an_upgrade_proves_that_nothing_was_lost(
    half: Workspace, tmp_path: Path, no_model_files: None
) -> None:
    """As docs/upgrading.md has it: backup, upgrade, verify."""
    taken = backup.take(half, tmp_path / "backup", actor="a")
    migrate(half)
    done = backup.verify(half, taken)
    assert (done.events, done.model) == (2, "mlflow:cxr/4")
    engine = sa.create_engine(half.mlflow_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM registered_model_aliases")
    with pytest.raises(BackupError, match="no model is in use"):
        backup.verify(half, taken)


# --- a server -------------------------------------------------------------------------------------------------------

DATABASES = ("ledger", "mlflow", "dagster")


@pytest.fixture(scope="module")
def server(quiet: None) -> Iterator[Path]:
    """A PostgreSQL of the module's own, with the roles and databases of a hospital's."""
    with empty_server() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADIA_DATABASE", f"postgresql://?host={folder}")
        patch.setenv("PGPASSFILE", str(folder / "secrets" / "pgpass_admin"))
        prepare(folder / "secrets" / "pgpass_admin")
        yield folder


def sql(statement: str, database: str = "postgres") -> list[Any]:
    url = database_url(database, role=ADMINISTRATOR) or ""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        done = connection.exec_driver_sql(statement)
        return list(done) if done.returns_rows else []


@pytest.fixture(scope="module")
def older_server(server: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Older databases, kept as templates. Returns the id of the run in them."""
    site = Workspace(tmp_path_factory.mktemp("served") / "data")
    url = database_url("mlflow") or ""
    write_older_mlflow(url)
    write_older_accounts(url)
    run_id = write_older_dagster(site)
    for name in DATABASES:
        sql(f"CREATE DATABASE older_{name} TEMPLATE {name}")
    return run_id


@pytest.fixture
def served(older_server: str, server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An older site on PostgreSQL."""
    monkeypatch.setenv("RADIA_DATABASE", f"postgresql://?host={server}")
    monkeypatch.setenv("PGPASSFILE", str(server / "secrets" / "pgpass_admin"))
    for name in DATABASES:
        sql(f"DROP DATABASE {name} WITH (FORCE)")
        sql(f"CREATE DATABASE {name} TEMPLATE older_{name} OWNER {ADMINISTRATOR if name == 'ledger' else name}")
    grant_ledger_rights()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database_url("mlflow") or "")  # in the place of MLflow's server
    site = Workspace(tmp_path / "data")
    site.root.mkdir()
    open_ledger(site).append("evaluate", actor="a")
    return site


def migrated(site: Workspace, *, backed_up: bool = True) -> set[str]:
    return {one.name for one in migrate(site, administrator=ADMINISTRATOR, backed_up=backed_up) if one.pending}


def test_an_older_site_on_a_server_comes_along_whole_though_each_step_is_killed_once_and_two_end_it(
    served: Workspace, older_server: str
) -> None:
    assert state(served) == OLDER
    steps = {"webhooks": "MLflow", "roles": "MLflow's accounts", "backfill_tags": "Dagster"}
    for table, name in steps.items():
        assert in_another_process(killed_at(f"CREATE TABLE {table}", lambda: migrated(served))) == -signal.SIGKILL
        assert state(served)[name] == OLDER[name]
        database = "dagster" if name == "Dagster" else "mlflow"
        assert sql(f"SELECT 1 FROM pg_tables WHERE tablename = '{table}'", database) == []
    assert waiting(served) == {"Dagster"}
    assert sorted(at_once(served, ADMINISTRATOR)) == [0, 1]
    assert waiting(served) == set()
    assert_all_is_there(served, older_server)
    assert sql("SELECT 1 FROM pg_index WHERE NOT indisvalid", "dagster") == []


def test_dagster_s_data_are_migrated_by_the_next_one_where_the_first_was_killed_between(
    served: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[str] = []

    def run(module: str, *_arguments: str) -> None:
        asked_for.append(module)
        if len(asked_for) == 1:
            raise MigrationError("killed")

    monkeypatch.setattr(migration, "_run", run)
    for name in ("MLflow", "MLflow's accounts"):
        migration._bring(database_url("mlflow") or "", name)
    with pytest.raises(MigrationError, match="killed"):
        migrated(served)
    assert waiting(served) == set()
    migrated(served)
    migrated(served)
    assert asked_for == ["dagster", "dagster"]


def test_a_server_is_migrated_after_a_backup_alone_and_the_backup_comes_back_migrated(
    served: Workspace, older_server: str, tmp_path: Path, no_model_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PAUSE_SECONDS", 0.0)
    with pytest.raises(MigrationError, match=r"no backup of the last 24 hours: `radia backup FOLDER` first"):
        migrated(served, backed_up=False)
    assert waiting(served) == ALL
    taken = backup.take(served, tmp_path / "backup", actor="a")
    assert (taken.schemas["Dagster"], taken.model) == (DAGSTER, "mlflow:cxr/4")
    assert migration._backed_up_lately(served)
    migration._bring(database_url("mlflow") or "", "MLflow")  # restored over tables that the backup knows nothing of
    other = moved(served, tmp_path)
    done = backup.restore(tmp_path / "backup", other)
    assert (done.events, done.model) == (1, "mlflow:cxr/4")
    assert waiting(other) == set()
    assert_all_is_there(other, older_server)
    monkeypatch.setenv("PGPASSFILE", os.environ["PGPASSFILE"].replace("pgpass_admin", "pgpass_web"))
    open_ledger(other).append("read", actor="b")  # the services' role has its rights again


def test_an_empty_server_gets_the_schemas_of_the_installed_versions(served: Workspace) -> None:
    for name in DATABASES:
        empty(name)
    assert migrated(served) == set()
    assert waiting(served) == set()
    assert set(state(served)) == {"ledger", *ALL}
