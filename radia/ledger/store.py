"""The ledger in a database: appending, reading, proving."""

import fcntl
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url

from radia.errors import ChainBroken, LedgerError
from radia.ledger.code import code_version
from radia.ledger.events import (
    FORMAT,
    Action,
    Anchor,
    Event,
    canonical,
    chain,
    digest_table,
    event_of,
    known_action,
    mac_of,
    plain,
    terms_of,
)
from radia.ledger.tables import (
    EVENTS,
    FORMATS,
    MENTIONS,
    METADATA,
    head_of,
    postgresql_guards,
    postgresql_statements,
    refuse_writing,
    reported,
    set_up_sqlite,
    sqlite_guards,
    stored_columns,
    streamed,
)
from radia.ledger.verification import Stretch, Verification, broken, check_bounds, stretches_of, verify_stretch


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
        # a server that was restarted has ended the connections that are kept: each is tried before it is used
        options: dict[str, Any] = {"connect_args": {"timeout": 120}} if self._sqlite else {"pool_pre_ping": True}
        with reported():
            self._engine = sa.create_engine(parsed, **options)
            if self._sqlite:
                sa.event.listen(self._engine, "connect", set_up_sqlite)
                if read_only:
                    sa.event.listen(self._engine, "connect", refuse_writing)
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
            "action": known_action(action),
            "actor": plain(actor, "actor"),
            "code": code or code_version(),
            "inputs": digest_table(inputs),
            "outputs": digest_table(outputs),
            "parameters": dict(parameters or {}),
            "subjects": sorted({plain(subject, "subject") for subject in subjects}),
            "files": dict(files or {}),
            "once": plain(once, "once") if once is not None else None,
        }
        canonical(values)  # refuse before any lock is taken
        with self._writing() as connection:
            if once is not None and (earlier := self._by_once(connection, once)):
                return earlier
            event = self._insert(connection, values)
        self._keep_anchor(event.anchor)
        return event

    def rekey(self, key: bytes, *, actor: str, reason: str) -> Event:
        """Signs with another key from this event on; a ledger that is open with the old one can write no more.

        What lies before stays proven: the event's hash holds all of it, and its HMAC is of the new key. The old key is
        of no use to anybody afterwards. Raises LedgerError where this ledger's own key is not the last event's.
        """
        values = {
            "format": FORMAT,
            "action": Action.REKEY,
            "actor": plain(actor, "actor"),
            "code": code_version(),
            "parameters": {"reason": reason},
        }
        with self._writing() as connection:
            event = self._insert(connection, values, sign_with=key)
        self._key = key
        self._keep_anchor(event.anchor)
        return event

    def is_signed_with(self, key: bytes) -> bool:
        """Whether the last event's HMAC is of this key."""
        with self._reading() as connection:
            head, _, mac = head_of(connection)
        return mac is not None and hmac.compare_digest(mac, mac_of(key, head.hash) or "")

    # --- reading

    def head(self) -> Anchor:
        """The last event's place; sequence 0 in an empty ledger."""
        with self._reading() as connection:
            return head_of(connection)[0]

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

        term: a digest, a subject, a person that the event names, or the name of an input or output. after: only events
        with a higher sequence.
        """
        query = _chosen(action, actor, term, after, newest_first).limit(limit)
        with self._reading() as connection:
            return [event_of(*row) for row in connection.execute(query)]

    def each(
        self,
        *,
        action: str | Sequence[str] | None = None,
        actor: str | None = None,
        term: str | None = None,
        after: int = 0,
    ) -> Iterator[Event]:
        """The same one by one, in order, for more events than memory should hold."""
        query = _chosen(action, actor, term, after, newest_first=False)
        with self._reading() as connection:
            for row in connection.execute(query, execution_options={"yield_per": 1000}):
                yield event_of(*row)

    def of_person(self, person: str) -> dict[Action, list[int]]:
        """The numbers of the events that a person wrote or that name the person, by action, in order."""
        own = sa.select(EVENTS.c.action, EVENTS.c.sequence).where(EVENTS.c.actor == person)
        named = sa.select(MENTIONS.c.action, MENTIONS.c.sequence).where(MENTIONS.c.term == person)
        found: dict[Action, list[int]] = {}
        with self._reading() as connection:
            for action, sequence in connection.execute(sa.union(own, named).order_by("sequence")):
                found.setdefault(Action(action), []).append(sequence)
        return found

    def people(self) -> list[str]:
        """Who wrote events, by name."""
        with self._reading() as connection:
            found = {name for (name,) in connection.execute(sa.select(EVENTS.c.actor).distinct())}
        return sorted(found)

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
        query = sa.select(EVENTS.c.sequence, EVENTS.c.body, EVENTS.c.hash).where(EVENTS.c.sequence > after)
        with self._reading() as connection:
            for sequence, body, hash_ in streamed(connection, query.order_by(EVENTS.c.sequence)):
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
            last = int(connection.execute(sa.select(sa.func.max(EVENTS.c.sequence))).scalar() or 0)
            check_bounds(connection)
            if not self._whole_by_parts(connection, last, hashes):
                verify_stretch(connection, stretches_of(connection, last, 1)[0], self._key, hashes)
            if hashes and max(hashes) > last:
                raise broken(last + 1, f"it is missing: an anchor proves {max(hashes)} events")
            head, _, _ = head_of(connection)  # its row can be read: it was
            self._check_guards(connection)
        return Verification(head.sequence, head, self._key is not None, len(expected))

    # --- within

    def _whole_by_parts(self, connection: Connection, last: int, anchors: Mapping[int, str]) -> bool:
        """Whether a long chain proved whole, one part a core. False also where it is too short to be worth it."""
        parts = min(len(os.sched_getaffinity(0)), last // 100_000)
        if parts < 2:
            return False
        url = self._engine.url.render_as_string(hide_password=False)
        with ProcessPoolExecutor(parts, mp_context=get_context("spawn")) as pool:
            stretches = stretches_of(connection, last, parts)
            return all(pool.map(verify_apart, repeat(url), repeat(self._key), stretches, repeat(anchors)))

    def _open(self, read_only: bool) -> None:
        tables = sa.inspect(self._engine).get_table_names()
        if FORMATS.name not in tables:
            if read_only:
                raise LedgerError("the database holds no ledger")
            with self._writing() as connection:
                self._create(connection)
        version = self._format()
        if version > FORMAT:
            raise LedgerError(f"the ledger is of version {version}, this RADIA knows {FORMAT}: use a newer RADIA")
        if version < FORMAT and not read_only:
            with self._writing() as connection:
                known = connection.execute(sa.select(sa.func.max(FORMATS.c.version))).scalar()
                if known != FORMAT:  # an older RADIA shall refuse what this one writes
                    connection.execute(sa.insert(FORMATS).values(version=FORMAT))

    def _format(self) -> int:
        with self._reading() as connection:
            return int(connection.execute(sa.select(sa.func.max(FORMATS.c.version))).scalar() or 0)

    def _create(self, connection: Connection) -> None:
        if FORMATS.name in sa.inspect(connection).get_table_names():
            return  # another process was first
        METADATA.create_all(connection)
        connection.execute(sa.insert(FORMATS).values(version=FORMAT))
        for statement in sqlite_guards().values() if self._sqlite else postgresql_statements():
            connection.exec_driver_sql(statement)

    def _insert(self, connection: Connection, values: Mapping[str, Any], *, sign_with: bytes | None = None) -> Event:
        head, last_at, last_mac = head_of(connection)
        if head.sequence and (last_mac is None) != (self._key is None):
            have = "with a key: give it (see `radia --help`)" if last_mac else "without a key: it cannot be given one"
            raise LedgerError(f"the ledger was begun {have}")
        if head.sequence and last_mac != mac_of(self._key, head.hash):
            raise LedgerError("the ledger's last event was signed with another key than the one given here")
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
            "mac": mac_of(sign_with or self._key, hash_),
        }
        connection.execute(sa.insert(EVENTS), row)
        named = [{"sequence": row["sequence"], "action": row["action"], "term": term} for term in terms_of(entry)]
        if named:
            connection.execute(sa.insert(MENTIONS), named)
        return event_of(body, head.hash, hash_)

    def _by_once(self, connection: Connection, once: str) -> Event | None:
        row = connection.execute(sa.select(*stored_columns()).where(EVENTS.c.once == once)).one_or_none()
        return event_of(row[0], row[1], row[2]) if row else None

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that no other writer overlaps, on any machine: the chain cannot fork."""
        self._leave_parents_connections()
        with reported():
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
        with reported(), self._engine.connect().execution_options(isolation_level=level) as connection:
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
        if self._sqlite:
            source = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        else:  # there a trigger only calls the function that refuses, of which the text counts
            source = "SELECT tgname, prosrc FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid WHERE tgenabled = 'O'"
        found = {row[0]: row[1] for row in connection.exec_driver_sql(source)}
        for name, text in sorted((sqlite_guards() if self._sqlite else postgresql_guards()).items()):
            if found.get(name) != text:
                raise ChainBroken(
                    f"the events are whole, but the trigger {name} that refuses changes is gone or is another: "
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


def _chosen(
    action: str | Sequence[str] | None, actor: str | None, term: str | None, after: int, newest_first: bool
) -> sa.Select[Any]:
    """The events that meet every condition, by the index of events or of mentions."""
    actions = [action] if isinstance(action, str) else list(action) if action is not None else None
    query = sa.select(*stored_columns())
    if term is None:
        place: sa.ColumnElement[int] = EVENTS.c.sequence
        kind: sa.ColumnElement[str] = EVENTS.c.action
    else:
        place, kind = MENTIONS.c.sequence, MENTIONS.c.action
        query = query.join(MENTIONS, MENTIONS.c.sequence == EVENTS.c.sequence).where(MENTIONS.c.term == term)
    if actions is not None:
        query = query.where(kind.in_(actions))
    if actor is not None:
        query = query.where(EVENTS.c.actor == actor)
    return query.where(place > after).order_by(place.desc() if newest_first else place)


def verify_apart(url: str, key: bytes | None, stretch: Stretch, anchors: Mapping[int, str]) -> bool:
    """Checks one stretch in a process of its own; whether it is whole."""
    ledger = Ledger(url, key=key, read_only=True)
    try:
        with ledger._reading() as connection:
            verify_stretch(connection, stretch, key, anchors)
    except ChainBroken:
        return False
    return True
