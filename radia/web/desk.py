"""Which film lies before whom: leases, drafts and times of blind reading, in one SQLite file. No Flask here.

A film is taken by a person in a role, and stays theirs while the page gives a sign of life; what they answered so far
is kept for ever, so that a read goes on where it was left. Nothing here knows what others or a model said.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from radia.web.accounts import opened_database

LEASE_SECONDS = 20 * 60.0
"""After so long without a sign of life another person may be given the film."""

State = Literal["open", "locked", "gone"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    token TEXT PRIMARY KEY, study TEXT NOT NULL, person TEXT NOT NULL, role TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'open', answers TEXT NOT NULL DEFAULT '{}', seconds REAL NOT NULL DEFAULT 0,
    before REAL NOT NULL DEFAULT 0, shown REAL NOT NULL, seen REAL NOT NULL, locked REAL,
    UNIQUE (study, person, role)
);
CREATE INDEX IF NOT EXISTS items_person ON items (person, role);
"""
_COLUMNS = "token, study, person, role, state, answers, seconds"


@dataclass(frozen=True)
class Item:
    """One film before one person. answers: finding -> `1`, `0`, `U` or `N`. seconds: looked at it, without idleness."""

    token: str
    study: str
    person: str
    role: str
    state: State
    answers: Mapping[str, str]
    seconds: float


@dataclass(frozen=True)
class Offer:
    """A study that a person may be given in a role. places: how many people may still have it at the same time."""

    study: str
    role: str
    places: int = 1


@dataclass(frozen=True)
class Pace:
    """What a person has locked: films, and the median of seconds a film (None before the first)."""

    films: int
    seconds: float | None


class Desk:
    """The films that lie before people. Every method opens the file anew: threads and processes share it."""

    def __init__(self, file: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock

    def current(self, person: str, roles: Collection[str]) -> Item | None:
        """The film that this person has begun in one of these roles."""
        marks = ", ".join("?" * len(roles))
        with self._open() as database:
            row = database.execute(
                f"SELECT {_COLUMNS} FROM items WHERE person = ? AND state = 'open' AND role IN ({marks}) "  # noqa: S608
                "ORDER BY seen DESC LIMIT 1",
                (person, *roles),
            ).fetchone()
        return None if row is None else _item(row)

    def take(self, person: str, offers: Iterable[Offer]) -> Item | None:
        """Gives this person the first of the offers that has a place left; two people never get the same place.

        What they have locked in that role is not given again.
        """
        now = self._clock()
        with self._open() as database:
            for offer in offers:
                before = database.execute(
                    "SELECT state FROM items WHERE study = ? AND person = ? AND role = ?",
                    (offer.study, person, offer.role),
                ).fetchone()
                if before is not None and before[0] == "locked":
                    continue
                (others,) = database.execute(
                    "SELECT count(*) FROM items WHERE study = ? AND role = ? AND person <> ? AND state = 'open' "
                    "AND seen > ?",
                    (offer.study, offer.role, person, now - LEASE_SECONDS),
                ).fetchone()
                if others >= offer.places:
                    continue
                database.execute(
                    "INSERT INTO items (token, study, person, role, shown, seen) VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (study, person, role) DO UPDATE SET state = 'open', seen = excluded.seen",
                    (secrets.token_urlsafe(12), offer.study, person, offer.role, now, now),
                )
                row = database.execute(
                    f"SELECT {_COLUMNS} FROM items WHERE study = ? AND person = ? AND role = ?",  # noqa: S608
                    (offer.study, person, offer.role),
                ).fetchone()
                return _item(row)
        return None

    def item(self, token: str, person: str) -> Item | None:
        """This person's film of this token; nobody else's."""
        with self._open() as database:
            row = database.execute(
                f"SELECT {_COLUMNS} FROM items WHERE token = ? AND person = ?",  # noqa: S608 - columns of this module
                (token, person),
            ).fetchone()
        return None if row is None else _item(row)

    def show(self, token: str) -> None:
        """The page is opened: its clock begins, beside what was counted before."""
        now = self._clock()
        with self._open() as database:
            database.execute(
                "UPDATE items SET before = seconds, shown = ?, seen = ? WHERE token = ? AND state = 'open'",
                (now, now, token),
            )

    def keep(self, token: str, answers: Mapping[str, str], seconds: float) -> bool:
        """Keeps the answers so far, and the seconds that the page counted since it was opened; False once it is locked.

        A page cannot count more seconds than have passed.
        """
        now = self._clock()
        with self._open() as database:
            row = database.execute(
                "SELECT before, shown, seconds FROM items WHERE token = ? AND state = 'open'", (token,)
            ).fetchone()
            if row is None:
                return False
            before, shown, so_far = row
            counted = max(so_far, before + min(max(seconds, 0.0), now - shown))
            database.execute(
                "UPDATE items SET answers = ?, seconds = ?, seen = ? WHERE token = ?",
                (json.dumps(dict(answers)), counted, now, token),
            )
        return True

    def close(self, token: str, state: Literal["locked", "gone"]) -> bool:
        """Locks a film, or sets one aside that cannot be read any more; False where it was closed before."""
        with self._open() as database:
            done = database.execute(
                "UPDATE items SET state = ?, locked = ? WHERE token = ? AND state = 'open'",
                (state, self._clock(), token),
            )
            return bool(done.rowcount)

    def locked(self, person: str) -> dict[str, list[str]]:
        """The studies that this person has locked, by role, in that order."""
        with self._open() as database:
            rows = database.execute(
                "SELECT role, study FROM items WHERE person = ? AND state = 'locked' ORDER BY locked", (person,)
            ).fetchall()
        found: dict[str, list[str]] = {}
        for role, study in rows:
            found.setdefault(role, []).append(study)
        return found

    def pace(self, person: str | None = None) -> Pace:
        """How much was locked, and how fast: of one person, or of everybody."""
        whose, values = ("", ()) if person is None else (" AND person = ?", (person,))
        with self._open() as database:
            rows = database.execute(f"SELECT seconds FROM items WHERE state = 'locked'{whose}", values)  # noqa: S608
            seconds = [float(row[0]) for row in rows.fetchall()]
        timed = [one for one in seconds if one > 0]
        return Pace(len(seconds), median(timed) if timed else None)

    def people(self) -> list[str]:
        """Everybody who has locked something."""
        with self._open() as database:
            rows = database.execute("SELECT DISTINCT person FROM items WHERE state = 'locked' ORDER BY person")
            return [str(row[0]) for row in rows.fetchall()]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with opened_database(self._file, _SCHEMA) as database:
            yield database


def _item(row: tuple[str, str, str, str, State, str, float]) -> Item:
    token, study, person, role, state, answers, seconds = row
    return Item(token, study, person, role, state, json.loads(answers), seconds)
