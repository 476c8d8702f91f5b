"""Whether a chain is whole: every event, its place, its HMAC, and the index by which it is found."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from json.scanner import make_scanner

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from radia.errors import ChainBroken
from radia.ledger.events import GENESIS, Action, Anchor, chain, terms_of
from radia.ledger.tables import EVENTS, MENTIONS, streamed


@dataclass(frozen=True, slots=True)
class Verification:
    """What was proven: so many events, up to this head, with HMACs checked or not, and so many anchors found."""

    events: int
    head: Anchor
    authenticated: bool
    anchors: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Events `after` < sequence <= `last`, and their index entries: `first_mention` <= id < `end_mention`."""

    after: int
    last: int
    first_mention: int
    end_mention: int


def verify_stretch(connection: Connection, stretch: Stretch, key: bytes | None, anchors: Mapping[int, str]) -> None:
    """Checks one stretch of the chain. Raises ChainBroken, naming its first bad event."""
    whole = stretch.after
    try:
        for whole in _verified(connection, stretch, key, anchors):  # noqa: B007 - the last one that was whole
            pass
    except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise broken(whole + 1, "its row cannot be read") from error


def _verified(connection: Connection, stretch: Stretch, key: bytes | None, anchors: Mapping[int, str]) -> Iterator[int]:
    """The numbers of the events of a stretch, each once it has been checked."""
    columns = [EVENTS.c[name] for name in ("sequence", "at", "action", "actor", "once", "body")]
    columns += [EVENTS.c.previous, EVENTS.c.hash, EVENTS.c.mac]
    query = sa.select(*columns).where(EVENTS.c.sequence > stretch.after, EVENTS.c.sequence <= stretch.last)
    found = sa.select(MENTIONS.c.sequence, MENTIONS.c.action, MENTIONS.c.term).where(
        MENTIONS.c.id >= stretch.first_mention, MENTIONS.c.id < stretch.end_mention
    )
    before = _before(connection, stretch.after)
    signed_from = _signed_from(connection)
    mentions = streamed(connection, found.order_by(MENTIONS.c.id))
    authenticate = _authenticator(key)
    sha256, read = hashlib.sha256, make_scanner(json.JSONDecoder())  # type: ignore[arg-type]
    last, last_at, number = *before, stretch.after
    last_bytes = bytes.fromhex(last)
    for sequence, at, action, actor, once, body, previous, hash_, mac in streamed(
        connection, query.order_by(EVENTS.c.sequence)
    ):
        number += 1
        if sequence != number:
            raise broken(number, "it is missing" if sequence > number else "its number is out of order")
        if previous != last:
            fits = hash_ == chain(last, body)
            earlier = not fits and number > 1 and _stands_alone(number, previous, body, hash_)
            raise broken(number - earlier, "the event after it follows another" if earlier else "it follows another")
        link = sha256(last_bytes + sha256(body.encode()).digest())
        if hash_ != link.hexdigest():
            raise broken(number, "its content does not have the recorded hash")
        last, last_bytes = hash_, link.digest()
        if authenticate is not None and number >= signed_from and mac != authenticate(last_bytes):
            raise broken(number, "its HMAC is not of this ledger's key")
        entry, _ = read(body, 0)  # the hash fits: it is JSON that this module wrote
        if (
            entry["sequence"] != sequence
            or entry["at"] != at
            or entry["action"] != action
            or entry["actor"] != actor
            or entry.get("once") != once
        ):
            raise broken(number, "the columns by which it is found say something else than it does")
        if at < last_at:
            raise broken(number, "it is dated before the event that it follows")
        last_at = at
        expected = [(number, action, term) for term in terms_of(entry)]
        if list(islice(mentions, len(expected))) != expected:
            raise broken(number, "the index by which it is found was changed")
        if anchors and anchors.get(number, hash_) != hash_:
            raise broken(number, "an anchor kept elsewhere has another hash for it")
        yield number
    if number != stretch.last:
        raise broken(number + 1, "it is missing")
    if (extra := next(mentions, None)) is not None:
        raise broken(max(number, extra[0]), "the index by which it is found names what is not there")


def check_bounds(connection: Connection) -> None:
    """Nothing may stand before the first event, where no stretch would look."""
    for table, column in ((EVENTS, EVENTS.c.sequence), (MENTIONS, MENTIONS.c.id)):
        lowest = connection.execute(sa.select(sa.func.min(column)).select_from(table)).scalar()
        if lowest is not None and lowest < 1:
            raise broken(1, "something was put before it")


def _signed_from(connection: Connection) -> int:
    """The first event of the key in use: what lies before is in its hash, and so is proven by its HMAC."""
    query = sa.select(sa.func.max(EVENTS.c.sequence)).where(EVENTS.c.action == Action.REKEY)
    return connection.execute(query).scalar() or 0


def _before(connection: Connection, sequence: int) -> tuple[str, str]:
    """Hash and time of an event; those before the first one for 0."""
    if sequence == 0:
        return GENESIS, ""
    row = connection.execute(sa.select(EVENTS.c.hash, EVENTS.c.at).where(EVENTS.c.sequence == sequence)).one_or_none()
    if row is None:
        raise broken(sequence, "it is missing")
    if not re.fullmatch("[0-9a-f]{64}", str(row[0])):
        raise broken(sequence, "its hash is none")
    return row[0], row[1]


def stretches_of(connection: Connection, last: int, parts: int) -> list[Stretch]:
    """The chain up to `last` in parts that can be checked one beside the other; every index entry is in one of them."""
    ends = [last * (part + 1) // parts for part in range(parts)]
    top = connection.execute(sa.select(sa.func.max(MENTIONS.c.id))).scalar() or 0
    marks = [0, *(_first_mention_after(connection, end, top) for end in ends[:-1]), top + 1]
    return [Stretch(*row) for row in zip([0, *ends[:-1]], ends, marks[:-1], marks[1:], strict=True)]


def _first_mention_after(connection: Connection, sequence: int, top: int) -> int:
    """The id of the first index entry of a later event, by bisection: ids and sequences rise together."""
    low, high = 0, top + 1
    while low < high:
        middle = (low + high) // 2
        query = sa.select(MENTIONS.c.sequence).where(MENTIONS.c.id >= middle).order_by(MENTIONS.c.id).limit(1)
        found = connection.execute(query).scalar()
        low, high = (low, middle) if found is None or found > sequence else (middle + 1, high)
    return low


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


def broken(sequence: int, why: str) -> ChainBroken:
    """The error that names an event."""
    return ChainBroken(f"event {sequence} of the ledger was changed after it was written: {why}")
