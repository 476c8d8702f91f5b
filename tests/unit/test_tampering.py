"""A thousand random changes behind the ledger's back: every one is found, and the first bad event or file is named."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from radia.errors import ChainBroken
from radia.ledger import Anchor, Ledger, canonical, chain, file_digests, open_ledger, verify_artefacts
from radia.workspace import Workspace

EVENTS = 24
COLUMNS = ("at", "action", "actor", "once", "body", "previous", "hash", "mac")


@dataclass(frozen=True)
class Change:
    """What was changed, and what must be named."""

    kind: str
    named: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A site with a ledger of 24 events under a key, and a file that each event records."""
    site = Workspace(tmp_path_factory.mktemp("whole"))
    ledger, chance = open_ledger(site), random.Random(0)
    for number in range(1, EVENTS + 1):
        artefact = site.root / "archive" / f"{number}.parquet"
        artefact.parent.mkdir(exist_ok=True)
        artefact.write_bytes(chance.randbytes(200))
        ledger.append(
            chance.choice(["intake", "images", "evaluate", "promote"]),
            actor=chance.choice(["radia", "Dr Côté"]),
            inputs={"batch": chance.randbytes(32).hex()},
            outputs={f"HND-{number}": chance.randbytes(32).hex()},
            parameters={"learning_rate": chance.random(), "note": "é"},
            subjects=[f"P{number}"],
            files=file_digests(site, [artefact]),
            once=chance.randbytes(16).hex(),
        )
    ledger.close()
    with sqlite3.connect(site.root / "ledger.db") as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
    database.close()  # the last connection: everything is in the one file now
    assert not (site.root / "ledger.db-wal").exists()
    return site


def flip_a_byte(database: sqlite3.Connection, chance: random.Random, _: Workspace) -> Change:
    number, column = chance.randint(1, EVENTS), chance.choice(COLUMNS)
    query = f"SELECT CAST({column} AS BLOB) FROM ledger_events WHERE sequence = ?"
    text = bytearray(database.execute(query, (number,)).fetchone()[0])
    text[chance.randrange(len(text))] ^= 1 << chance.randrange(8)
    statement = f"UPDATE ledger_events SET {column} = CAST(? AS TEXT) WHERE sequence = ?"
    database.execute(statement, (bytes(text), number))
    return Change(f"a byte of {column}", f"event {number} ")


def flip_a_byte_of_the_index(database: sqlite3.Connection, chance: random.Random, _: Workspace) -> Change:
    rows = database.execute("SELECT id, sequence, CAST(term AS BLOB) FROM ledger_mentions").fetchall()
    row, number, term = chance.choice(rows)
    changed = bytearray(term)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    database.execute("UPDATE ledger_mentions SET term = CAST(? AS TEXT) WHERE id = ?", (bytes(changed), row))
    return Change("a byte of the index", f"event {number} ")


def delete(database: sqlite3.Connection, chance: random.Random, _: Workspace) -> Change:
    number = chance.randint(1, EVENTS)
    database.execute("DELETE FROM ledger_events WHERE sequence = ?", (number,))
    return Change("deletion", f"event {number} ")


def delete_and_close_the_gap(database: sqlite3.Connection, chance: random.Random, _: Workspace) -> Change:
    number = chance.randint(1, EVENTS - 1)
    for table in ("ledger_events", "ledger_mentions"):
        database.execute(f"DELETE FROM {table} WHERE sequence = ?", (number,))
    for later in range(number + 1, EVENTS + 1):
        for table in ("ledger_events", "ledger_mentions"):
            database.execute(f"UPDATE {table} SET sequence = ? WHERE sequence = ?", (later - 1, later))
    return Change("deletion without a gap", f"event {number} ")


def swap(database: sqlite3.Connection, chance: random.Random, _: Workspace) -> Change:
    one, other = sorted(chance.sample(range(1, EVENTS + 1), 2))
    for before, after in ((one, 1000), (other, one), (1000, other)):
        database.execute("UPDATE ledger_events SET sequence = ? WHERE sequence = ?", (after, before))
    return Change("swap", f"event {one} ")


def insert(database: sqlite3.Connection, chance: random.Random, _: Workspace) -> Change:
    """A forged event at the end, with a hash that fits: only the key's holder could have written its HMAC."""
    (previous,) = database.execute("SELECT hash FROM ledger_events ORDER BY sequence DESC LIMIT 1").fetchone()
    number, at = EVENTS + 1, "2999-01-01T00:00:00.000000Z"
    facts = {"format": 1, "action": "promote", "actor": "Mallory", "at": at, "code": "x", "sequence": number}
    body = canonical(facts)
    row = (number, at, "promote", "Mallory", None, body, previous, chain(previous, body))
    mac = chance.choice([None, chance.randbytes(32).hex()])
    database.execute("INSERT INTO ledger_events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, mac))
    return Change("insertion", f"event {number} ")


def cut_the_tail(database: sqlite3.Connection, chance: random.Random, _: Workspace) -> Change:
    number = chance.randint(2, EVENTS)
    for table in ("ledger_events", "ledger_mentions"):
        database.execute(f"DELETE FROM {table} WHERE sequence >= ?", (number,))
    return Change("tail cut", f"event {number} ")


def rewrite_from(database: sqlite3.Connection, chance: random.Random, _: Workspace) -> Change:
    """Another actor, and every later hash computed anew: consistent, but for the key and the anchor."""
    number = chance.randint(1, EVENTS)
    rows = database.execute("SELECT sequence, body, hash FROM ledger_events ORDER BY sequence").fetchall()
    last = rows[number - 2][2] if number > 1 else "0" * 64
    for sequence, body, _hash in rows[number - 1 :]:
        if sequence == number:
            body = body.replace('"actor":"', '"actor":"not ')
            database.execute("UPDATE ledger_events SET actor = 'not ' || actor WHERE sequence = ?", (number,))
        statement = "UPDATE ledger_events SET body = ?, previous = ?, hash = ? WHERE sequence = ?"
        database.execute(statement, (body, last, last := chain(last, body), sequence))
    return Change("rewriting", f"event {number} ")


def change_a_file(_: sqlite3.Connection, chance: random.Random, site: Workspace) -> Change:
    number = chance.randint(1, EVENTS)
    path = site.root / "archive" / f"{number}.parquet"
    content = bytearray(path.read_bytes())
    how = chance.choice(["byte", "cut", "gone"])
    if how == "byte":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if how == "cut" else content)
    return Change(f"file: {how}", f"archive/{number}.parquet ")


CHANGES: tuple[Callable[[sqlite3.Connection, random.Random, Workspace], Change], ...] = (
    flip_a_byte,
    flip_a_byte,
    flip_a_byte,
    flip_a_byte_of_the_index,
    delete,
    delete_and_close_the_gap,
    swap,
    insert,
    cut_the_tail,
    rewrite_from,
    change_a_file,
)


def test_a_thousand_random_changes_are_all_found_and_named(whole: Workspace, tmp_path: Path) -> None:
    chance = random.Random(2026)
    site = Workspace(tmp_path / "site")
    shutil.copytree(whole.root, site.root)
    key = bytes.fromhex(site.ledger_key_file.read_text())
    anchor = Anchor.parse(site.ledger_anchor_file.read_text())
    missed = []
    for _ in range(1000):
        with sqlite3.connect(site.root / "ledger.db") as database:
            database.execute("PRAGMA synchronous = OFF")
            change = chance.choice(CHANGES)(database, chance, site)
        database.close()
        found = audit(site, key, anchor)
        if change.named not in found:
            missed.append((change, found))
        put_back(whole, site)
    assert missed == []


def audit(site: Workspace, key: bytes, anchor: Anchor) -> str:
    """What the first complaint says; of a whole site, only that the guards (taken away here) are gone."""
    ledger = Ledger(site.ledger_url, key=key, read_only=True)
    try:
        ledger.verify([anchor])
    except ChainBroken as broken:
        if "trigger" not in str(broken):
            return str(broken)
    finally:
        ledger.close()
    try:
        verify_artefacts(site, ledger)
    except ChainBroken as broken:
        return str(broken)
    finally:
        ledger.close()
    return "nothing was found"


def put_back(whole: Workspace, site: Workspace) -> None:
    for leftover in site.root.glob("ledger.db*"):
        leftover.unlink()
    shutil.copy(whole.root / "ledger.db", site.root / "ledger.db")
    for path in (whole.root / "archive").iterdir():
        copy = site.root / "archive" / path.name
        if not copy.is_file() or copy.read_bytes() != path.read_bytes():
            shutil.copy(path, copy)


def test_a_whole_site_gives_no_alarm(whole: Workspace) -> None:
    key = bytes.fromhex(whole.ledger_key_file.read_text())
    assert audit(whole, key, Anchor.parse(whole.ledger_anchor_file.read_text())) == "nothing was found"
