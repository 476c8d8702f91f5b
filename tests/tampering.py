"""Single changes behind RADIA's back, in everything that a site keeps: each is made, looked for, and taken back.

An attacker here may write to every file and database, but has no key. What the ledger's triggers refuse is done with
the triggers taken away and put back, so that only content can give it away.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from radia.audit import audit
from radia.errors import RadiaError
from radia.ledger import canonical, chain, open_ledger
from radia.workspace import Workspace

COLUMNS = ("at", "action", "actor", "once", "body", "previous", "hash", "mac")


@dataclass(frozen=True)
class Change:
    """What was changed, and what an audit must name: any of these words."""

    kind: str
    named: tuple[str, ...]


def flipped(content: bytes, chance: random.Random) -> bytes:
    """The content with one bit the other way round."""
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


# --- the ledger -----------------------------------------------------------------------------------------------------


def length_of(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT max(sequence) FROM ledger_events").fetchone()[0])


def flip_a_byte(database: sqlite3.Connection, chance: random.Random) -> Change:
    number, column = chance.randint(1, length_of(database)), chance.choice(COLUMNS)
    query = f"SELECT CAST({column} AS BLOB) FROM ledger_events WHERE sequence = ?"
    text = database.execute(query, (number,)).fetchone()[0] or b"x"  # `once` may be empty: then it is no more
    statement = f"UPDATE ledger_events SET {column} = CAST(? AS TEXT) WHERE sequence = ?"
    database.execute(statement, (flipped(text, chance), number))
    return Change(f"a byte of {column}", (f"event {number} ",))


def flip_a_byte_of_the_index(database: sqlite3.Connection, chance: random.Random) -> Change:
    rows = database.execute("SELECT id, sequence, CAST(term AS BLOB) FROM ledger_mentions").fetchall()
    row, number, term = chance.choice(rows)
    database.execute("UPDATE ledger_mentions SET term = CAST(? AS TEXT) WHERE id = ?", (flipped(term, chance), row))
    return Change("a byte of the index", (f"event {number} ",))


def delete(database: sqlite3.Connection, chance: random.Random) -> Change:
    number = chance.randint(1, length_of(database))
    database.execute("DELETE FROM ledger_events WHERE sequence = ?", (number,))
    return Change("deletion", (f"event {number} ",))


def delete_and_close_the_gap(database: sqlite3.Connection, chance: random.Random) -> Change:
    last = length_of(database)
    number = chance.randint(1, last - 1)
    for table in ("ledger_events", "ledger_mentions"):
        database.execute(f"DELETE FROM {table} WHERE sequence = ?", (number,))
        for later in range(number + 1, last + 1):
            database.execute(f"UPDATE {table} SET sequence = ? WHERE sequence = ?", (later - 1, later))
    return Change("deletion without a gap", (f"event {number} ",))


def swap(database: sqlite3.Connection, chance: random.Random) -> Change:
    one, other = sorted(chance.sample(range(1, length_of(database) + 1), 2))
    for before, after in ((one, 10**6), (other, one), (10**6, other)):
        database.execute("UPDATE ledger_events SET sequence = ? WHERE sequence = ?", (after, before))
    return Change("swap", (f"event {one} ",))


def insert(database: sqlite3.Connection, chance: random.Random) -> Change:
    """A forged event at the end, with a hash that fits: only the key's holder could have written its HMAC."""
    (previous,) = database.execute("SELECT hash FROM ledger_events ORDER BY sequence DESC LIMIT 1").fetchone()
    number, at = length_of(database) + 1, "2999-01-01T00:00:00.000000Z"
    facts = {"format": 1, "action": "promote", "actor": "Mallory", "at": at, "code": "x", "sequence": number}
    body = canonical(facts)
    row = (number, at, "promote", "Mallory", None, body, previous, chain(previous, body))
    mac = chance.choice([None, chance.randbytes(32).hex()])
    database.execute("INSERT INTO ledger_events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, mac))
    return Change("insertion", (f"event {number} ",))


def cut_the_tail(database: sqlite3.Connection, chance: random.Random) -> Change:
    number = chance.randint(2, length_of(database))
    for table in ("ledger_events", "ledger_mentions"):
        database.execute(f"DELETE FROM {table} WHERE sequence >= ?", (number,))
    return Change("tail cut", (f"event {number} ",))


def rewrite_from(database: sqlite3.Connection, chance: random.Random) -> Change:
    """Another actor, and every later hash computed anew: consistent, but for the key and the anchors."""
    number = chance.randint(1, length_of(database))
    rows = database.execute("SELECT sequence, body, hash FROM ledger_events ORDER BY sequence").fetchall()
    last = rows[number - 2][2] if number > 1 else "0" * 64
    for sequence, body, _hash in rows[number - 1 :]:
        if sequence == number:
            body = body.replace('"actor":"', '"actor":"not ')
            database.execute("UPDATE ledger_events SET actor = 'not ' || actor WHERE sequence = ?", (number,))
        statement = "UPDATE ledger_events SET body = ?, previous = ?, hash = ? WHERE sequence = ?"
        database.execute(statement, (body, last, last := chain(last, body), sequence))
    return Change("rewriting", (f"event {number} ",))


IN_THE_LEDGER: tuple[Callable[[sqlite3.Connection, random.Random], Change], ...] = (
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
)


# --- files ----------------------------------------------------------------------------------------------------------


def changed_content(content: bytes, chance: random.Random) -> tuple[str, bytes | None]:
    """How a file is changed, and what it holds then; None: it is gone."""
    how = chance.choice(["byte", "byte", "cut", "longer", "gone"] if content else ["longer", "gone"])
    ways = {"byte": lambda: flipped(content, chance), "cut": lambda: content[:-1], "longer": lambda: content + b"\0"}
    return how, ways[how]() if how in ways else None


@contextmanager
def other_content(site: Workspace, path: Path, content: bytes | None, *, through_links: bool) -> Iterator[None]:
    """The file with other content; through_links: also under its other names. Everything is as before at the end."""
    before, status = path.read_bytes(), path.stat()
    kept = site.root / ".kept"
    os.link(path, kept)  # the inode stays, with all its names
    try:
        if through_links:
            _write_into(path, content if content is not None else b"", status)
        else:
            path.unlink()
            if content is not None:
                path.write_bytes(content)
        if content is None:
            path.unlink(missing_ok=True)
        yield
    finally:
        if kept.read_bytes() != before:
            _write_into(kept, before, status)
        os.replace(kept, path)
        kept.unlink(missing_ok=True)  # `replace` leaves both where they are one file


def _write_into(path: Path, content: bytes, status: os.stat_result) -> None:
    path.chmod(status.st_mode | 0o200)
    path.write_bytes(content)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@dataclass(frozen=True)
class Site:
    """A site whose job has run and whose candidate a person promoted; everything recorded in it is whole."""

    workspace: Workspace

    @property
    def recorded(self) -> list[Path]:
        """Files whose digests events hold, that are there on purpose."""
        root = self.workspace.root
        named = {name: digest for event in open_ledger(self.workspace).events() for name, digest in event.files.items()}
        return sorted(root / name for name, digest in named.items() if digest is not None)

    @property
    def cached(self) -> list[Path]:
        """DVC's objects."""
        return sorted(path for path in (self.workspace.archive / ".dvc/cache/files/md5").glob("??/*") if path.is_file())

    @property
    def versioned(self) -> list[Path]:
        """Shards, and the parts of snapshots, as they lie in the archive."""
        shards = self.workspace.images.glob("*/shard-*")
        return sorted([*shards, *(path for path in self.workspace.snapshots.glob("*/**/*") if path.is_file())])

    @property
    def kept_by_mlflow(self) -> list[Path]:
        """Models and artefacts: what MLflow keeps as files of registered candidates."""
        with sqlite3.connect(self.workspace.root / "mlflow.db") as database:
            folders = [Path(urlsplit(uri).path) for row in database.execute(CANDIDATES_FOLDERS) for uri in row]
        return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())

    def names_of(self, path: Path) -> tuple[str, ...]:
        """What an audit may call a file: each of the names under which it lies, and DVC's name for an object."""
        same = [one for one in (*self.cached, *self.versioned, *self.recorded) if one.exists() and one.samefile(path)]
        found = []
        for one in {path, *same}:
            objects = self.workspace.archive / ".dvc"
            inside = one.relative_to(self.workspace.root).as_posix()
            found += (
                [one.parent.name + one.name]
                if one.is_relative_to(objects)
                else [f"{inside} ", f"{one.parent.name}/{one.name} "]
            )
        return tuple(found)


# --- MLflow ---------------------------------------------------------------------------------------------------------

IN_MLFLOW = (
    ("metric", "UPDATE latest_metrics SET value = value + 0.001 WHERE rowid = ?", "latest_metrics"),
    ("metric gone", "DELETE FROM latest_metrics WHERE rowid = ?", "latest_metrics"),
    ("parameter", "UPDATE params SET value = value || '0' WHERE rowid = ?", "params"),
    ("tag of a run", "UPDATE tags SET value = value || '0' WHERE rowid = ?", "tags"),
    ("tag of a version", "UPDATE model_version_tags SET value = value || 'f' WHERE rowid = ?", "model_version_tags"),
    ("tag gone", "DELETE FROM model_version_tags WHERE rowid = ?", "model_version_tags"),
    ("card", "UPDATE model_versions SET description = 'fine: ' || description WHERE rowid = ?", "model_versions"),
    ("run of a version", "UPDATE model_versions SET run_id = 'f' || run_id WHERE rowid = ?", "model_versions"),
    ("model in use", "UPDATE registered_model_aliases SET version = version + 7 WHERE rowid = ?", "aliases"),
)
MEANT = {
    "tags": "SELECT rowid FROM tags WHERE key NOT LIKE 'mlflow.%' AND run_uuid IN "
    "(SELECT run_id FROM model_versions WHERE name = 'cxr-candidate')",
    "model_version_tags": "SELECT rowid FROM model_version_tags WHERE key NOT IN ('acted', 'approval', 'promoted') "
    "AND name || '/' || version IN ({})",
    "model_versions": "SELECT rowid FROM model_versions WHERE name || '/' || version IN ({})",
    "aliases": "SELECT rowid FROM registered_model_aliases WHERE alias = 'champion'",
}


def change_mlflow(database: sqlite3.Connection, chance: random.Random, watched: list[str]) -> Change:
    """One row of MLflow's tables about a version that the ledger recorded. watched: such versions, by name."""
    kind, statement, table = chance.choice(IN_MLFLOW)
    if kind == "card" or kind == "run of a version" or table == "model_version_tags":
        rows = MEANT[table].format(", ".join(f"'{name}'" for name in watched))
    else:
        rows = MEANT.get(table, f"SELECT rowid FROM {table} WHERE run_uuid IN ({RECORDED_RUNS})")
    chosen = chance.choice(database.execute(rows).fetchall())[0]
    database.execute(statement, (chosen,))
    return Change(f"MLflow's {kind}", ("cxr",))


CANDIDATES_FOLDERS = (
    "SELECT runs.artifact_uri, storage_location FROM model_versions JOIN runs ON run_uuid = run_id "
    "WHERE model_versions.name = 'cxr-candidate'"
)
RECORDED_RUNS = "SELECT run_id FROM model_versions WHERE name = 'cxr-candidate'"


# --- all of it ------------------------------------------------------------------------------------------------------


@contextmanager
def changed_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for changes; at the end the content is what it was before."""
    database, before = sqlite3.connect(path, timeout=60), sqlite3.connect(":memory:")
    database.backup(before)
    try:
        yield database
    finally:
        before.backup(database)
        database.close()
        before.close()


@contextmanager
def changed_for_good(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes stay."""
    database = sqlite3.connect(path, timeout=60)
    try:
        yield database
        database.commit()
    finally:
        database.close()


def tampered(site: Workspace, chance: random.Random) -> tuple[Change, str]:
    """Makes one random change, asks an audit, takes the change back. What was changed, and what the audit said."""
    known = Site(site)
    kind = chance.choice(["ledger", "ledger", "recorded", "cached", "versioned", "mlflow", "mlflow file", "anchor"])
    if kind == "ledger":
        with changed_database(site.root / "ledger.db") as database:
            guards = triggers_of(database)
            for name in guards:
                database.execute(f"DROP TRIGGER {name}")
            change = chance.choice(IN_THE_LEDGER)(database, chance)
            for statement in guards.values():
                database.execute(statement)
            database.commit()
            return change, said_of(site)
    if kind == "mlflow":
        with changed_database(site.root / "mlflow.db") as database:
            change = change_mlflow(database, chance, ["cxr-candidate/1", "cxr/2"])
            database.commit()
            return change, said_of(site)
    if kind == "anchor":
        places = [site.ledger_anchor_file, *site.snapshots.glob("*.dvc")]
        path = chance.choice(places)
        content = path.read_text()
        start = content.index(":", content.index("ledger: ") + 8 if path.suffix == ".dvc" else 0) + 1
        digit = start + chance.randrange(64)
        other = content[:digit] + chance.choice([c for c in "0123456789abcdef" if c != content[digit]])
        with other_content(site, path, (other + content[digit + 1 :]).encode(), through_links=True):
            return Change(f"anchor in {path.suffix}", ("anchor", "record of snapshot", f"record {path.name}")), said_of(
                site
            )
    files = {
        "recorded": known.recorded,
        "cached": known.cached,
        "versioned": known.versioned,
        "mlflow file": known.kept_by_mlflow,
    }[kind]
    path = chance.choice(files)
    how, content = changed_content(path.read_bytes(), chance)
    named = ("cxr-candidate",) if kind == "mlflow file" else known.names_of(path)
    with other_content(site, path, content, through_links=kind == "cached" and content is not None):
        return Change(f"{kind}: {how}", named), said_of(site)


def triggers_of(database: sqlite3.Connection) -> dict[str, str]:
    return dict(database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))


def said_of(site: Workspace) -> str:
    """What an audit says first; nothing where it finds nothing."""
    ledger = open_ledger(site, read_only=True)
    try:
        audit(site, ledger)
    except RadiaError as error:
        return str(error)
    finally:
        ledger.close()
    return ""


def missed(site: Workspace, count: int, seed: int) -> tuple[list[tuple[Change, str]], Counter[str]]:
    """Makes so many changes, one at a time. Those that were not found or not named, and how many there were by kind."""
    chance, found, kinds = random.Random(seed), [], Counter[str]()
    for _ in range(count):
        change, said = tampered(site, chance)
        kinds[change.kind] += 1
        if not any(name in said for name in change.named):
            found.append((change, said))
    return found, kinds
