"""A thousand random changes behind the ledger's back: every one is found, and the first bad event or file is named.

What DVC and MLflow keep is changed in tests/acceptance/test_tampered_site.py.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from radia.errors import ChainBroken
from radia.ledger import Anchor, Ledger, file_digests, open_ledger, verify_artefacts
from radia.workspace import Workspace
from tests.tampering import IN_THE_LEDGER, Change

EVENTS = 24


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


def change_a_file(chance: random.Random, site: Workspace) -> Change:
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
    return Change(f"file: {how}", (f"archive/{number}.parquet ",))


def test_a_thousand_random_changes_are_all_found_and_named(whole: Workspace, tmp_path: Path) -> None:
    chance = random.Random(2026)
    site = Workspace(tmp_path / "site")
    shutil.copytree(whole.root, site.root)
    key = bytes.fromhex(site.ledger_key_file.read_text())
    anchor = Anchor.parse(site.ledger_anchor_file.read_text())
    missed = []
    for _ in range(1000):
        if chance.random() < 0.1:
            change = change_a_file(chance, site)
        else:
            with sqlite3.connect(site.root / "ledger.db") as database:
                database.execute("PRAGMA synchronous = OFF")
                change = chance.choice(IN_THE_LEDGER)(database, chance)
            database.close()
        found = audit(site, key, anchor)
        if not any(name in found for name in change.named):
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
