"""The append-only record of who did what to which data, and the proof that it was not changed afterwards.

An event is one line of canonical JSON. The chain is `hash = SHA-256(previous hash ‖ SHA-256(event))`, so an excerpt can
prove an event's place with the digests of its neighbours alone, without showing them. Where the site has a ledger key,
each hash also carries an HMAC: who can write to the database but does not hold the key cannot write a new chain.
`Anchor`s (a sequence number and its hash), kept anywhere else, show that the tail was not cut.

One event stands for a batch, a snapshot or a model, never for one image: events carry the digests of the Parquet files
whose rows are the images. What the events mean together is `radia.trace`'s to say. Nothing here quotes a patient's
values: ids in events are pseudonyms and digests.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import math
import os
import re
import secrets
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib.metadata import version
from itertools import chain as joined
from itertools import islice, repeat
from json.scanner import make_scanner
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError

from radia import digests, settings
from radia.errors import ChainBroken, KeyFileError, LedgerError
from radia.workspace import Workspace

FORMAT = 1
"""The version of the tables and of the events. A ledger of a later one is refused, not guessed at."""

GENESIS = "0" * 64
"""The hash before the first event."""


class Action(StrEnum):
    """What an event records: the steps of the pipeline, what people do, and DICOM's audit event types.

    `imported`, `exported`, `accessed` and `queried` mirror DICOM PS3.15 A.5.3 (DICOM Instances Transferred, Export,
    DICOM Instances Accessed, Query): from them a hospital's log of who used which information can be drawn.
    """

    INTAKE = "intake"
    DEIDENTIFY = "deidentify"
    IMAGES = "images"
    LABELS = "labels"
    CHECK = "check"
    QUALITY = "quality"
    SNAPSHOT = "snapshot"
    BASE_MODEL = "base-model"
    TRAIN_BASE = "train-base"
    SUSPECTS = "suspects"
    QUEUE = "queue"
    READ = "read"
    NOISE = "noise"
    FINETUNE = "finetune"
    EVALUATE = "evaluate"
    GATE = "gate"
    REGISTER = "register"
    PROMOTE = "promote"
    REJECT = "reject"
    ROLLBACK = "rollback"
    PREDICT = "predict"
    MONITOR = "monitor"
    WITHDRAW = "withdraw"
    ERASE = "erase"
    REIDENTIFY = "reidentify"
    RESTORE = "restore"
    BUNDLE = "bundle"
    IMPORTED = "imported"
    EXPORTED = "exported"
    ACCESSED = "accessed"
    QUERIED = "queried"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place in the chain, to be kept where the ledger's administrator cannot write."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The anchor of its text `<sequence>:<hash>`. Raises LedgerError."""
        if not (match := re.fullmatch(r"(\d+):([0-9a-f]{64})", text.strip())):
            raise LedgerError("an anchor is not `<sequence>:<64 hex digits>`")
        return cls(int(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class Event:
    """One entry. `body` is the canonical JSON that `hash` covers; every other field is read from it."""

    sequence: int
    at: str
    action: Action
    actor: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    parameters: Mapping[str, Any]
    subjects: tuple[str, ...]
    files: Mapping[str, str | None]
    code: str
    once: str | None
    previous: str
    hash: str
    body: str = field(repr=False)

    @property
    def anchor(self) -> Anchor:
        """This event's place in the chain."""
        return Anchor(self.sequence, self.hash)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was proven: so many events, up to this head, with HMACs checked or not, and so many anchors found."""

    events: int
    head: Anchor
    authenticated: bool
    anchors: int


_metadata = sa.MetaData()
_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

_events = sa.Table(
    "ledger_events",
    _metadata,
    sa.Column("sequence", _number, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("once", sa.Text, nullable=True, unique=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("mac", sa.Text, nullable=True),
    sa.Index("ledger_events_action", "action", "sequence"),
    sa.Index("ledger_events_actor", "actor", "sequence"),
)
"""Columns beside `body` repeat it for searching; `verify` holds them to it."""

_mentions = sa.Table(
    "ledger_mentions",
    _metadata,
    sa.Column("id", _number, primary_key=True, autoincrement=True),
    sa.Column("sequence", _number, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("term", sa.Text, nullable=False),
    sa.Index("ledger_mentions_term", "term", "action", "sequence"),
)
"""Which events name a digest, an input, an output or a subject; in the order of the events."""

_format = sa.Table("ledger_format", _metadata, sa.Column("version", sa.Integer, primary_key=True))

_GUARDS = {
    f"{table.name}_{verb.lower()}": (table.name, verb)
    for table in (_events, _mentions, _format)
    for verb in ("UPDATE", "DELETE")
}


def canonical(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces, UTF-8. Raises LedgerError for what JSON cannot hold exactly.

    Floats are written by Python's shortest text that reads back as the same double; NaN and infinity are refused, and
    so are keys that are not text, because JSON would change them without a word.
    """
    _check_exact(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LedgerError("an event holds text that is not valid Unicode") from error
    return text


def chain(previous: str, body: str) -> str:
    """The hash of an event that follows `previous`."""
    return hashlib.sha256(bytes.fromhex(previous) + hashlib.sha256(body.encode()).digest()).hexdigest()


class Ledger:
    """The events in one database: SQLite or PostgreSQL, by its SQLAlchemy URL.

    `key` authenticates: with it every event carries an HMAC, and a ledger begun with a key cannot be written without.
    `anchor_file` holds the newest anchor; it is worth most on another disk. `read_only` never creates anything.
    Raises LedgerError where the database cannot be used or is of a newer version.
    """

    def __init__(
        self, url: str, *, key: bytes | None = None, anchor_file: Path | None = None, read_only: bool = False
    ) -> None:
        self._key = key
        self._anchor_file = anchor_file
        self._process = os.getpid()
        parsed = make_url(url)
        self._sqlite = parsed.get_backend_name() == "sqlite"
        if self._sqlite and parsed.database and parsed.database != ":memory:":
            file = Path(parsed.database)
            if read_only and not file.is_file():
                raise LedgerError(f"there is no ledger at {file.name}")
            file.parent.mkdir(parents=True, exist_ok=True)
        if not self._sqlite and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        options: dict[str, Any] = {"connect_args": {"timeout": 120}} if self._sqlite else {}
        with _reported():
            self._engine = sa.create_engine(parsed, **options)
            if self._sqlite:
                sa.event.listen(self._engine, "connect", _set_up_sqlite)
            self._open(read_only)

    def close(self) -> None:
        """Gives the connections back; the next call opens new ones."""
        self._engine.dispose()

    # --- writing

    def append(
        self,
        action: str,
        *,
        actor: str,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        subjects: Iterable[str] = (),
        files: Mapping[str, str | None] | None = None,
        once: str | None = None,
        code: str | None = None,
    ) -> Event:
        """Adds one event and returns it as stored.

        action: a value of `Action`. actor: the person or service account. inputs, outputs: name -> digest.
        parameters: anything JSON. subjects: pseudonymous ids that the event is about (an image, a patient, a study).
        files: path below the site's data folder -> SHA-256 of the file, or None for one that is gone on purpose;
        `verify_artefacts` holds the disk to them. once: a key under which the event is written a single time; when it
        already is, nothing is written and the earlier event is returned. code: the code's version; this code's if None.

        Raises LedgerError.
        """
        values: dict[str, Any] = {
            "format": FORMAT,
            "action": _known_action(action),
            "actor": _plain(actor, "actor"),
            "code": code or code_version(),
            "inputs": _digest_table(inputs),
            "outputs": _digest_table(outputs),
            "parameters": dict(parameters or {}),
            "subjects": sorted({_plain(subject, "subject") for subject in subjects}),
            "files": dict(files or {}),
            "once": _plain(once, "once") if once is not None else None,
        }
        canonical(values)  # refuse before any lock is taken
        with self._writing() as connection:
            if once is not None and (earlier := self._by_once(connection, once)):
                return earlier
            event = self._insert(connection, values)
        self._keep_anchor(event.anchor)
        return event

    # --- reading

    def head(self) -> Anchor:
        """The last event's place; sequence 0 in an empty ledger."""
        with self._reading() as connection:
            return _head(connection)[0]

    def events(
        self,
        *,
        action: str | Sequence[str] | None = None,
        actor: str | None = None,
        term: str | None = None,
        after: int = 0,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[Event]:
        """The events that meet every condition given, in order.

        term: a digest, a subject, or the name of an input or output. after: only events with a higher sequence.
        """
        actions = [action] if isinstance(action, str) else list(action) if action is not None else None
        query = sa.select(*_stored())
        if term is None:
            place: sa.ColumnElement[int] = _events.c.sequence
            if actions is not None:
                query = query.where(_events.c.action.in_(actions))
        else:
            place = _mentions.c.sequence
            query = query.join(_mentions, _mentions.c.sequence == _events.c.sequence).where(_mentions.c.term == term)
            if actions is not None:
                query = query.where(_mentions.c.action.in_(actions))
        if actor is not None:
            query = query.where(_events.c.actor == actor)
        query = query.where(place > after).order_by(place.desc() if newest_first else place).limit(limit)
        with self._reading() as connection:
            return [_event(*row) for row in connection.execute(query)]

    def event(self, sequence: int) -> Event:
        """One event by its number. Raises LedgerError."""
        found = self.events(after=sequence - 1, limit=1)
        if not found or found[0].sequence != sequence:
            raise LedgerError(f"the ledger has no event {sequence}: it ends with {self.head().sequence}")
        return found[0]

    def last(self, action: str, *, term: str | None = None) -> Event | None:
        """The newest event of an action."""
        return next(iter(self.events(action=action, term=term, newest_first=True, limit=1)), None)

    def proofs(self, *, after: int = 0) -> Iterator[tuple[int, str, str]]:
        """Sequence, SHA-256 of the body and chain hash of every event after `after`: enough to prove an excerpt."""
        query = sa.select(_events.c.sequence, _events.c.body, _events.c.hash).where(_events.c.sequence > after)
        with self._reading() as connection:
            for sequence, body, hash_ in _streamed(connection, query.order_by(_events.c.sequence)):
                yield sequence, hashlib.sha256(body.encode()).hexdigest(), hash_

    # --- proving

    def verify(self, anchors: Iterable[Anchor] = ()) -> Verification:
        """Re-checks every event: chain, HMAC, numbering, time, and the columns and mentions by which it is found.

        anchors: places recorded elsewhere that the chain must still contain; the anchor file's is added to them.
        Raises ChainBroken, naming the first bad event.
        """
        expected = {*anchors, *self._kept_anchor()}
        hashes = {anchor.sequence: anchor.hash for anchor in expected if anchor.sequence}
        with self._reading() as connection:
            head, _, _ = _head(connection)
            _check_bounds(connection)
            if not self._whole_by_parts(connection, head, hashes):
                _verify_stretch(connection, _stretches(connection, head.sequence, 1)[0], self._key, hashes)
            if hashes and max(hashes) > head.sequence:
                raise _broken(head.sequence + 1, f"it is missing: an anchor proves {max(hashes)} events")
            self._check_guards(connection)
        return Verification(head.sequence, head, self._key is not None, len(expected))

    # --- within

    def _whole_by_parts(self, connection: Connection, head: Anchor, anchors: Mapping[int, str]) -> bool:
        """Whether a long chain proved whole, one part a core. False also where it is too short to be worth it."""
        parts = min(len(os.sched_getaffinity(0)), head.sequence // 100_000)
        if parts < 2:
            return False
        url = self._engine.url.render_as_string(hide_password=False)
        with ProcessPoolExecutor(parts, mp_context=get_context("spawn")) as pool:
            stretches = _stretches(connection, head.sequence, parts)
            return all(pool.map(_verify_apart, repeat(url), repeat(self._key), stretches, repeat(anchors)))

    def _open(self, read_only: bool) -> None:
        tables = sa.inspect(self._engine).get_table_names()
        if _format.name not in tables:
            if read_only:
                raise LedgerError("the database holds no ledger")
            with self._writing() as connection:
                self._create(connection)
        with self._reading() as connection:
            version = connection.execute(sa.select(sa.func.max(_format.c.version))).scalar()
        if version != FORMAT:
            raise LedgerError(f"the ledger is of version {version}, this RADIA knows {FORMAT}: use a newer RADIA")

    def _create(self, connection: Connection) -> None:
        if _format.name in sa.inspect(connection).get_table_names():
            return  # another process was first
        _metadata.create_all(connection)
        connection.execute(sa.insert(_format).values(version=FORMAT))
        for statement in _sqlite_guards() if self._sqlite else _postgresql_guards():
            connection.exec_driver_sql(statement)

    def _insert(self, connection: Connection, values: Mapping[str, Any]) -> Event:
        head, last_at, last_mac = _head(connection)
        if head.sequence and (last_mac is None) != (self._key is None):
            have = "with a key: give it (see `radia --help`)" if last_mac else "without a key: it cannot be given one"
            raise LedgerError(f"the ledger was begun {have}")
        clock = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        entry = {key: value for key, value in values.items() if value not in ({}, [], None)}
        entry |= {"sequence": head.sequence + 1, "at": max(clock, last_at)}
        if clock < last_at:
            entry["clock"] = clock  # the machine's clock went back: the order stands, and so does what the clock said
        body = canonical(entry)
        hash_ = chain(head.hash, body)
        row = {
            "sequence": entry["sequence"],
            "at": entry["at"],
            "action": entry["action"],
            "actor": entry["actor"],
            "once": entry.get("once"),
            "body": body,
            "previous": head.hash,
            "hash": hash_,
            "mac": _mac(self._key, hash_),
        }
        connection.execute(sa.insert(_events), row)
        named = [{"sequence": row["sequence"], "action": row["action"], "term": term} for term in _terms(entry)]
        if named:
            connection.execute(sa.insert(_mentions), named)
        return _event(body, head.hash, hash_)

    def _by_once(self, connection: Connection, once: str) -> Event | None:
        row = connection.execute(sa.select(*_stored()).where(_events.c.once == once)).one_or_none()
        return _event(row[0], row[1], row[2]) if row else None

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that no other writer overlaps, on any machine: the chain cannot fork."""
        self._leave_parents_connections()
        with _reported():
            if self._sqlite:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                    try:
                        yield connection
                    except BaseException:
                        connection.exec_driver_sql("ROLLBACK")
                        raise
                    connection.exec_driver_sql("COMMIT")
            else:
                with self._engine.begin() as connection:
                    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7209451830)")
                    yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """One view of the ledger that writers neither change nor wait for."""
        self._leave_parents_connections()
        level = "AUTOCOMMIT" if self._sqlite else "REPEATABLE READ"
        with _reported(), self._engine.connect().execution_options(isolation_level=level) as connection:
            if not self._sqlite:
                yield connection
                return
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")

    def _leave_parents_connections(self) -> None:
        if os.getpid() != self._process:  # a forked child must not speak through its parent's sockets
            self._engine.dispose(close=False)
            self._process = os.getpid()

    def _check_guards(self, connection: Connection) -> None:
        source = "sqlite_master WHERE type = 'trigger'" if self._sqlite else "pg_trigger WHERE tgenabled = 'O'"
        column = "name" if self._sqlite else "tgname"
        found = {name for (name,) in connection.exec_driver_sql(f"SELECT {column} FROM {source}")}  # noqa: S608
        if missing := sorted(_GUARDS.keys() - found):
            raise ChainBroken(
                f"the events are whole, but the trigger {missing[0]} that refuses changes is gone: "
                "somebody opened the ledger for writing"
            )

    def _keep_anchor(self, anchor: Anchor) -> None:
        """Writes the newest anchor. One short write of fixed length under a lock: whole or not at all."""
        if self._anchor_file is None:
            return
        self._anchor_file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(self._anchor_file, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            kept = file.read().strip()
            if not kept or Anchor.parse(kept.decode("ascii", "replace")).sequence < anchor.sequence:
                os.pwrite(file.fileno(), f"{anchor.sequence:020d}:{anchor.hash}\n".encode(), 0)

    def _kept_anchor(self) -> list[Anchor]:
        if self._anchor_file is None or not self._anchor_file.is_file():
            return []
        return [Anchor.parse(self._anchor_file.read_text(encoding="ascii", errors="replace"))]


# --- a site's ledger ------------------------------------------------------------------------------------------------


def open_ledger(site: Workspace, *, read_only: bool = False) -> Ledger:
    """The site's ledger, with its key and its anchor file.

    The key is `$RADIA_LEDGER_KEY` or `keys/ledger.key`, made when the ledger is; the anchor file is
    `$RADIA_LEDGER_ANCHOR` (better on another disk) or `ledger.anchor`. An auditor without the key opens it `read_only`:
    the chain is checked, the HMACs are not, and `Verification.authenticated` says so.
    """
    url = settings.ledger_url(site)
    anchor_file = settings.ledger_anchor_file(site)
    key = settings.ledger_key_from_environment()
    if key is None and (site.ledger_key_file.is_file() or (not read_only and _is_empty(url))):
        key = _key_of(site.ledger_key_file)
    return Ledger(url, key=key, anchor_file=anchor_file, read_only=read_only)


def _is_empty(url: str) -> bool:
    ledger = Ledger(url)
    try:
        return ledger.head().sequence == 0
    finally:
        ledger.close()


def verify_artefacts(site: Workspace, ledger: Ledger) -> int:
    """Re-checks every file whose digest events record, against the newest event that names it; how many there were.

    Raises ChainBroken, naming the first bad file (by the order of the events) and the event that recorded it.
    """
    meant: dict[str, tuple[str | None, Event]] = {}
    frequent = {Action.ACCESSED, Action.QUERIED, Action.PREDICT, Action.READ}
    for event in ledger.events(action=[str(action) for action in Action if action not in frequent]):
        for name, digest in event.files.items():
            meant.pop(name, None)
            meant[name] = (digest, event)
    for name, (digest, event) in meant.items():
        _check_file(site.root, name, digest, event)
    return sum(digest is not None for digest, _ in meant.values())


def file_digests(site: Workspace, paths: Iterable[Path]) -> dict[str, str | None]:
    """`files` of an event: each path below the data folder, with its SHA-256, or None where there is no such file."""
    root = site.root.resolve()
    return {
        path.resolve().relative_to(root).as_posix(): digests.of_file(path) if path.is_file() else None for path in paths
    }


@cache
def code_version() -> str:
    """The commit of this checkout, with `+changes` when files were changed since; else the version of the package."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603
            ["git", "-C", str(here.parent), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    try:
        if git("ls-files", "--error-unmatch", here.name).returncode:
            return f"radia {version('radia')}"  # installed, or beside a repository that is not RADIA's
        commit = git("rev-parse", "HEAD").stdout.strip()
        changed = git("status", "--porcelain", "--untracked-files=no").stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return f"radia {version('radia')}"
    return f"{commit}+changes" if changed else commit


# --- the chain ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Events `after` < sequence <= `last`, and their index entries: `first_mention` <= id < `end_mention`."""

    after: int
    last: int
    first_mention: int
    end_mention: int


def _verify_stretch(connection: Connection, stretch: _Stretch, key: bytes | None, anchors: Mapping[int, str]) -> None:
    """Checks one stretch of the chain. Raises ChainBroken, naming its first bad event."""
    whole = stretch.after
    try:
        for whole in _verified(connection, stretch, key, anchors):  # noqa: B007 - the last one that was whole
            pass
    except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise _broken(whole + 1, "its row cannot be read") from error


def _verified(
    connection: Connection, stretch: _Stretch, key: bytes | None, anchors: Mapping[int, str]
) -> Iterator[int]:
    """The numbers of the events of a stretch, each once it has been checked."""
    columns = [_events.c[name] for name in ("sequence", "at", "action", "actor", "once", "body")]
    columns += [_events.c.previous, _events.c.hash, _events.c.mac]
    query = sa.select(*columns).where(_events.c.sequence > stretch.after, _events.c.sequence <= stretch.last)
    found = sa.select(_mentions.c.sequence, _mentions.c.action, _mentions.c.term).where(
        _mentions.c.id >= stretch.first_mention, _mentions.c.id < stretch.end_mention
    )
    before = _before(connection, stretch.after)
    mentions = _streamed(connection, found.order_by(_mentions.c.id))
    authenticate = _authenticator(key)
    sha256, read = hashlib.sha256, make_scanner(json.JSONDecoder())  # type: ignore[arg-type]
    last, last_at, number = *before, stretch.after
    last_bytes = bytes.fromhex(last)
    for sequence, at, action, actor, once, body, previous, hash_, mac in _streamed(
        connection, query.order_by(_events.c.sequence)
    ):
        number += 1
        if sequence != number:
            raise _broken(number, "it is missing" if sequence > number else "its number is out of order")
        if previous != last:
            fits = hash_ == chain(last, body)
            earlier = not fits and number > 1 and _stands_alone(number, previous, body, hash_)
            raise _broken(number - earlier, "the event after it follows another" if earlier else "it follows another")
        link = sha256(last_bytes + sha256(body.encode()).digest())
        if hash_ != link.hexdigest():
            raise _broken(number, "its content does not have the recorded hash")
        last, last_bytes = hash_, link.digest()
        if authenticate is not None and mac != authenticate(last_bytes):
            raise _broken(number, "its HMAC is not of this ledger's key")
        entry, _ = read(body, 0)  # the hash fits: it is JSON that this module wrote
        if (
            entry["sequence"] != sequence
            or entry["at"] != at
            or entry["action"] != action
            or entry["actor"] != actor
            or entry.get("once") != once
        ):
            raise _broken(number, "the columns by which it is found say something else than it does")
        if at < last_at:
            raise _broken(number, "it is dated before the event that it follows")
        last_at = at
        expected = [(number, action, term) for term in _terms(entry)]
        if list(islice(mentions, len(expected))) != expected:
            raise _broken(number, "the index by which it is found was changed")
        if anchors and anchors.get(number, hash_) != hash_:
            raise _broken(number, "an anchor kept elsewhere has another hash for it")
        yield number
    if number != stretch.last:
        raise _broken(number + 1, "it is missing")
    if (extra := next(mentions, None)) is not None:
        raise _broken(max(number, extra[0]), "the index by which it is found names what is not there")


def _check_bounds(connection: Connection) -> None:
    """Nothing may stand before the first event, where no stretch would look."""
    for table, column in ((_events, _events.c.sequence), (_mentions, _mentions.c.id)):
        lowest = connection.execute(sa.select(sa.func.min(column)).select_from(table)).scalar()
        if lowest is not None and lowest < 1:
            raise _broken(1, "something was put before it")


def _before(connection: Connection, sequence: int) -> tuple[str, str]:
    """Hash and time of an event; those before the first one for 0."""
    if sequence == 0:
        return GENESIS, ""
    row = connection.execute(
        sa.select(_events.c.hash, _events.c.at).where(_events.c.sequence == sequence)
    ).one_or_none()
    if row is None:
        raise _broken(sequence, "it is missing")
    if not re.fullmatch("[0-9a-f]{64}", str(row[0])):
        raise _broken(sequence, "its hash is none")
    return row[0], row[1]


def _stretches(connection: Connection, last: int, parts: int) -> list[_Stretch]:
    """The chain up to `last` in parts that can be checked one beside the other; every index entry is in one of them."""
    ends = [last * (part + 1) // parts for part in range(parts)]
    top = connection.execute(sa.select(sa.func.max(_mentions.c.id))).scalar() or 0
    marks = [0, *(_first_mention_after(connection, end, top) for end in ends[:-1]), top + 1]
    return [_Stretch(*row) for row in zip([0, *ends[:-1]], ends, marks[:-1], marks[1:], strict=True)]


def _first_mention_after(connection: Connection, sequence: int, top: int) -> int:
    """The id of the first index entry of a later event, by bisection: ids and sequences rise together."""
    low, high = 0, top + 1
    while low < high:
        middle = (low + high) // 2
        query = sa.select(_mentions.c.sequence).where(_mentions.c.id >= middle).order_by(_mentions.c.id).limit(1)
        found = connection.execute(query).scalar()
        low, high = (low, middle) if found is None or found > sequence else (middle + 1, high)
    return low


def _verify_apart(url: str, key: bytes | None, stretch: _Stretch, anchors: Mapping[int, str]) -> bool:
    """Checks one stretch in a process of its own; whether it is whole."""
    ledger = Ledger(url, key=key, read_only=True)
    try:
        with ledger._reading() as connection:
            _verify_stretch(connection, stretch, key, anchors)
    except ChainBroken:
        return False
    return True


def _authenticator(key: bytes | None) -> Callable[[bytes], str] | None:
    """HMAC-SHA256 (RFC 2104) of a hash, with the key's half of the work done once."""
    if key is None:
        return None
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def authenticate(hash_: bytes) -> str:
        first, second = inner.copy(), outer.copy()
        first.update(hash_)
        second.update(first.digest())
        return second.hexdigest()

    return authenticate


def _stands_alone(number: int, previous: str, body: str, hash_: str) -> bool:
    """Whether an event fits the hash that it names as the one before: then it is the one before that was changed."""
    try:
        return hash_ == chain(previous, body) and json.loads(body)["sequence"] == number
    except ValueError:
        return False


def _broken(sequence: int, why: str) -> ChainBroken:
    return ChainBroken(f"event {sequence} of the ledger was changed after it was written: {why}")


def _mac(key: bytes | None, hash_: str) -> str | None:
    return hmac.digest(key, bytes.fromhex(hash_), "sha256").hex() if key is not None else None


def _terms(entry: Mapping[str, Any]) -> list[str]:
    """The terms by which an event is found, each once, in a fixed order."""
    terms = set(entry.get("subjects", ()))
    for table in (entry.get("inputs"), entry.get("outputs")):
        if table:
            terms.update(table)
            terms.update(table.values())
    return sorted(terms)


def _check_file(root: Path, name: str, digest: str | None, event: Event) -> None:
    path = root / name
    recorded = f"event {event.sequence} ({event.action}) recorded it"
    if digest is None:
        if path.exists():
            raise ChainBroken(f"{name} is there again, though it was erased: {recorded}")
    elif not path.is_file():
        raise ChainBroken(f"{name} is missing: {recorded}")
    elif digests.of_file(path) != digest:
        raise ChainBroken(f"{name} was changed after {recorded}")


# --- rows -----------------------------------------------------------------------------------------------------------


def _stored() -> tuple[sa.Column[Any], sa.Column[Any], sa.Column[Any]]:
    return _events.c.body, _events.c.previous, _events.c.hash


def _event(body: str, previous: str, hash_: str) -> Event:
    entry = json.loads(body)
    return Event(
        sequence=entry["sequence"],
        at=entry["at"],
        action=Action(entry["action"]),
        actor=entry["actor"],
        inputs=entry.get("inputs", {}),
        outputs=entry.get("outputs", {}),
        parameters=entry.get("parameters", {}),
        subjects=tuple(entry.get("subjects", ())),
        files=entry.get("files", {}),
        code=entry["code"],
        once=entry.get("once"),
        previous=previous,
        hash=hash_,
        body=body,
    )


def _head(connection: Connection) -> tuple[Anchor, str, str | None]:
    query = sa.select(_events.c.sequence, _events.c.hash, _events.c.at, _events.c.mac)
    row = connection.execute(query.order_by(_events.c.sequence.desc()).limit(1)).one_or_none()
    return (Anchor(row[0], row[1]), row[2], row[3]) if row else (Anchor(0, GENESIS), "", None)


def _streamed(connection: Connection, query: sa.Select[Any]) -> Iterator[Any]:
    """Rows as tuples, never all at once; past SQLAlchemy where the driver itself streams, which is twice as fast."""
    if connection.dialect.name == "sqlite":
        text = query.compile(connection, compile_kwargs={"literal_binds": True})
        driver: Any = connection.connection.driver_connection
        return iter(driver.execute(str(text)))
    partitions = connection.execute(query, execution_options={"yield_per": 5000}).partitions()
    return (tuple(row) for row in joined.from_iterable(partitions))


# --- what an event may hold -----------------------------------------------------------------------------------------


def _known_action(action: str) -> str:
    try:
        return str(Action(action))
    except ValueError as error:
        raise LedgerError(f"unknown action {action!r}; expected one of: {', '.join(Action)}") from error


def _plain(text: object, what: str) -> str:
    if not isinstance(text, str) or not text or any(ord(character) < 32 for character in text):
        raise LedgerError(f"an event's {what} must be text of one line, and not empty")
    return text


def _digest_table(table: Mapping[str, str] | None) -> dict[str, str]:
    return {_plain(name, "input or output"): _plain(digest, "digest") for name, digest in (table or {}).items()}


def _check_exact(value: object) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise LedgerError(f"an event's key is a {type(key).__name__}: expected text")
            _check_exact(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_exact(item)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise LedgerError("an event holds a number that is not finite: write null or a word instead")
    elif value is not None and not isinstance(value, str | int):
        raise LedgerError(f"an event cannot hold a {type(value).__name__}: expected what JSON holds")


# --- databases ------------------------------------------------------------------------------------------------------


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerError(f"the ledger's database refused: {type(cause).__name__}: {_first_line(cause)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _sqlite_guards() -> list[str]:
    refuse = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    guards = [f"CREATE TRIGGER {name} BEFORE {verb} ON {table} {refuse}" for name, (table, verb) in _GUARDS.items()]
    taken = f"(SELECT 1 FROM {_events.name} WHERE sequence = NEW.sequence OR once = NEW.once)"  # noqa: S608
    replaced = f"CREATE TRIGGER ledger_events_replace BEFORE INSERT ON {_events.name} WHEN EXISTS {taken} {refuse}"
    return [*guards, replaced]  # INSERT OR REPLACE deletes without asking the DELETE trigger


def _postgresql_guards() -> list[str]:
    body = "BEGIN RAISE EXCEPTION 'the ledger is append-only'; END"
    function = (
        f"CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS '{body.replace(chr(39), chr(39) * 2)}'"
    )
    refuse = "EXECUTE FUNCTION ledger_refuse()"
    guards = [
        f"CREATE TRIGGER {name} BEFORE {verb} ON {table} FOR EACH ROW {refuse}"
        for name, (table, verb) in _GUARDS.items()
    ]
    cuts = [
        f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {refuse}"
        for table in sorted({table for table, _ in _GUARDS.values()})
    ]
    return [function, *guards, *cuts]


# --- the key --------------------------------------------------------------------------------------------------------


def _key_of(path: Path) -> bytes:
    """The key in a file of 64 hex digits that its owner alone can read; made where there is none."""
    if not path.exists():
        _make_key(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyFileError(f"{path.name} can be read by others: run `chmod 600 {path}`")
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path.name} is not a ledger key: expected 64 hex digits") from error
    if len(key) != 32:
        raise KeyFileError(f"{path.name} holds {len(key)} bytes: expected 32")
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    try:
        os.link(partial, path)  # of two processes that make it at once, one is first
    except FileExistsError:
        return
    finally:
        partial.unlink()
