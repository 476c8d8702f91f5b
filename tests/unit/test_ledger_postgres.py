"""The ledger on a real PostgreSQL server, started for these tests and ended after them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from radia.errors import ChainBroken, LedgerError
from radia.ledger import Ledger


def find_binaries() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").is_file() and (place / "pg_ctl").is_file()), None)


BINARIES = find_binaries()
pytestmark = pytest.mark.skipif(BINARIES is None, reason="no PostgreSQL server is installed (initdb, pg_ctl)")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an empty database. The server listens on a socket in its own folder only."""
    folder = Path(tempfile.mkdtemp(prefix="radia-pg-"))
    data = folder / "data"
    run_as: dict[str, object] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        run_as = {"user": "postgres", "group": "postgres"}

    def run(*command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **run_as)

    assert BINARIES is not None
    run(str(BINARIES / "initdb"), "-D", str(data), "-U", "radia", "--auth=trust", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    run(str(BINARIES / "pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-w", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://radia@/postgres?host={folder}"
    finally:
        run(str(BINARIES / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def url(server: str) -> str:
    """A database of its own for each test."""
    name = f"t{os.urandom(6).hex()}"
    execute(server, f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


def execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def tamper(url: str, *statements: str) -> None:
    """What the database's owner can do: switch the guards off, write, switch them on."""
    tables = ("ledger_events", "ledger_mentions")
    off = [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in tables]
    on = [f"ALTER TABLE {table} ENABLE TRIGGER USER" for table in tables]
    execute(url, *off, *statements, *on)


def append_many(url: str, name: str, count: int) -> None:
    ledger = Ledger(url)
    for number in range(count):
        ledger.append("predict", actor=name, once=f"{name}{number}", subjects=[f"I{number}"])
    ledger.append("predict", actor=name, once="the same for all")


def test_events_come_back_as_they_were_written(url: str) -> None:
    ledger = Ledger(url)
    written = ledger.append("read", actor="Dr Côté", parameters={"nul": "a\u0000b", "é": [1, 0.1]}, subjects=["P1"])
    assert Ledger(url).events(term="P1") == [written]
    assert ledger.append("read", actor="x", once="k") == ledger.append("read", actor="y", once="k")


def test_several_processes_at_once_make_one_chain_and_lose_nothing(url: str) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(url, name, 25)) for name in "abcd"]  # and make the tables
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert Ledger(url).verify().events == 101
    assert len({event.once for event in Ledger(url).events()}) == 101


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_events SET actor = 'x'",
        "DELETE FROM ledger_events",
        "TRUNCATE ledger_events",
        "DELETE FROM ledger_mentions",
        "INSERT INTO ledger_events SELECT * FROM ledger_events ON CONFLICT (sequence) DO UPDATE SET actor = 'x'",
    ],
)
def test_guards_refuse_update_delete_and_truncate(url: str, statement: str) -> None:
    ledger = Ledger(url)
    ledger.append("read", actor="Dr Côté", subjects=["P1"])
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        execute(url, statement)
    assert ledger.verify().events == 1


@pytest.mark.parametrize(
    ("statement", "first_bad"),
    [
        ("UPDATE ledger_events SET body = replace(body, 'Dr', 'Mr') WHERE sequence = 2", 2),
        ("UPDATE ledger_events SET actor = 'x' WHERE sequence = 3", 3),
        ("DELETE FROM ledger_events WHERE sequence = 2", 2),
        ("DELETE FROM ledger_mentions WHERE term = 'P2'", 2),
        ("UPDATE ledger_mentions SET term = 'P9' WHERE term = 'P3'", 3),
    ],
)
def test_changes_behind_the_guards_are_found_and_named(url: str, statement: str, first_bad: int) -> None:
    ledger = Ledger(url)
    for number in (1, 2, 3):
        ledger.append("read", actor="Dr Côté", subjects=[f"P{number}"])
    tamper(url, statement)
    with pytest.raises(ChainBroken, match=f"event {first_bad} of the ledger"):
        ledger.verify()


def test_guards_that_are_off_are_noticed(url: str) -> None:
    ledger = Ledger(url)
    ledger.append("read", actor="Dr Côté")
    execute(url, "ALTER TABLE ledger_events DISABLE TRIGGER ledger_events_delete")
    with pytest.raises(ChainBroken, match="trigger ledger_events_delete"):
        ledger.verify()


def test_an_auditor_s_role_reads_everything_and_writes_nothing(url: str) -> None:
    Ledger(url).append("read", actor="Dr Côté")
    role = f"auditor{os.urandom(4).hex()}"
    execute(url, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    auditor = Ledger(url.replace("//radia@", f"//{role}@"), read_only=True)
    assert auditor.verify().events == 1
    assert auditor.events()[0].actor == "Dr Côté"
    with pytest.raises(LedgerError, match="permission denied"):
        auditor.append("read", actor="auditor")


def test_errors_do_not_show_the_password() -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger("postgresql://radia:very-secret@127.0.0.1:9/none")
    assert "very-secret" not in str(caught.value)
