"""The ledger's tables, the guards that refuse changes, and how rows are read from either database."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain as joined
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from radia.errors import LedgerError
from radia.ledger.events import GENESIS, Anchor

METADATA = sa.MetaData()
_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

EVENTS = sa.Table(
    "ledger_events",
    METADATA,
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

MENTIONS = sa.Table(
    "ledger_mentions",
    METADATA,
    sa.Column("id", _number, primary_key=True, autoincrement=True),
    sa.Column("sequence", _number, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("term", sa.Text, nullable=False),
    sa.Index("ledger_mentions_term", "term", "action", "sequence"),
)
"""Which events name a digest, an input, an output or a subject; in the order of the events."""

FORMATS = sa.Table("ledger_format", METADATA, sa.Column("version", sa.Integer, primary_key=True))

GUARDS = {
    f"{table.name}_{verb.lower()}": (table.name, verb)
    for table in (EVENTS, MENTIONS, FORMATS)
    for verb in ("UPDATE", "DELETE")
}


def stored_columns() -> tuple[sa.Column[Any], sa.Column[Any], sa.Column[Any]]:
    """The columns that `event_of` takes."""
    return EVENTS.c.body, EVENTS.c.previous, EVENTS.c.hash


def head_of(connection: Connection) -> tuple[Anchor, str, str | None]:
    """The last event's place, time and HMAC; those before the first in an empty ledger."""
    query = sa.select(EVENTS.c.sequence, EVENTS.c.hash, EVENTS.c.at, EVENTS.c.mac)
    row = connection.execute(query.order_by(EVENTS.c.sequence.desc()).limit(1)).one_or_none()
    return (Anchor(row[0], row[1]), row[2], row[3]) if row else (Anchor(0, GENESIS), "", None)


def streamed(connection: Connection, query: sa.Select[Any]) -> Iterator[Any]:
    """Rows as tuples, never all at once; past SQLAlchemy where the driver itself streams, which is twice as fast."""
    if connection.dialect.name == "sqlite":
        text = query.compile(connection, compile_kwargs={"literal_binds": True})
        driver: Any = connection.connection.driver_connection
        return iter(driver.execute(str(text)))
    partitions = connection.execute(query, execution_options={"yield_per": 5000}).partitions()
    return (tuple(row) for row in joined.from_iterable(partitions))


@contextmanager
def reported() -> Iterator[None]:
    """What the database refuses becomes a LedgerError, without a value in its text."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerError(f"the ledger's database refused: {type(cause).__name__}: {_first_line(cause)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"


def set_up_sqlite(connection: Any, _record: object) -> None:
    """Writers do not wait for readers, and what was committed survives a power cut."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def refuse_writing(connection: Any, _record: object) -> None:
    """Whatever the code does, this connection changes nothing."""
    connection.execute("PRAGMA query_only = ON")


def sqlite_guards() -> dict[str, str]:
    """Triggers that refuse every change but an addition, for SQLite: name -> the statement that makes it."""
    refuse = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    guards = {
        name: f"CREATE TRIGGER {name} BEFORE {verb} ON {table} {refuse}" for name, (table, verb) in GUARDS.items()
    }
    taken = f"(SELECT 1 FROM {EVENTS.name} WHERE sequence = NEW.sequence OR once = NEW.once)"  # noqa: S608
    replaced = f"CREATE TRIGGER ledger_events_replace BEFORE INSERT ON {EVENTS.name} WHEN EXISTS {taken} {refuse}"
    return guards | {"ledger_events_replace": replaced}  # INSERT OR REPLACE deletes without asking the DELETE trigger


_REFUSAL = "BEGIN RAISE EXCEPTION 'the ledger is append-only'; END"


def postgresql_guards() -> dict[str, str]:
    """The same for PostgreSQL: name -> the text of the function that it calls."""
    return dict.fromkeys([*GUARDS, *(f"{table}_truncate" for table in _guarded())], _REFUSAL)


def postgresql_statements() -> list[str]:
    """What makes them."""
    quoted = _REFUSAL.replace("'", "''")
    function = f"CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS '{quoted}'"
    refuse = "EXECUTE FUNCTION ledger_refuse()"
    guards = [
        f"CREATE TRIGGER {name} BEFORE {verb} ON {table} FOR EACH ROW {refuse}"
        for name, (table, verb) in GUARDS.items()
    ]
    cuts = [
        f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {refuse}"
        for table in _guarded()
    ]
    return [function, *guards, *cuts]


def _guarded() -> list[str]:
    return sorted({table for table, _ in GUARDS.values()})
