"""Who may use the web app: local accounts with hashed passwords, their roles, sessions and tokens. No Flask here.

One SQLite file that its owner alone can read. Passwords are kept as scrypt hashes, session and token secrets as
SHA-256: whoever reads the file can sign in as nobody. Names are people of the hospital's staff, never patients.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from werkzeug.security import check_password_hash, generate_password_hash

from radia.errors import AccountError

READER, LEAD, AUDITOR, ENGINEER = ROLES = ("reader", "lead", "auditor", "engineer")
"""A reader reads blind; a lead also sees progress and agreement; an auditor lineage; an engineer the model in use."""

SHORTEST_PASSWORD = 10
_NAME = re.compile(r"[\w.@-]{1,64}")
_NOBODY = generate_password_hash(secrets.token_hex(16))
"""Checked where a name is unknown, so that the answer takes as long."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS people (
    name TEXT PRIMARY KEY, roles TEXT NOT NULL, password TEXT NOT NULL, active INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE IF NOT EXISTS sessions (
    secret TEXT PRIMARY KEY, name TEXT NOT NULL, opened REAL NOT NULL, seen REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS tokens (secret TEXT PRIMARY KEY, name TEXT NOT NULL, made REAL NOT NULL);
CREATE TABLE IF NOT EXISTS failures (name TEXT NOT NULL, address TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS failures_at ON failures (at);
"""


@dataclass(frozen=True)
class Account:
    """A person and what they may do."""

    name: str
    roles: frozenset[str]
    active: bool = True


class Accounts:
    """The accounts of a site. Every method opens the file anew: threads and processes share it."""

    def __init__(self, file: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock

    # --- people -----------------------------------------------------------------------------------------------------

    def add(self, name: str, roles: Collection[str], password: str | None) -> Account:
        """A new account; without a password it can be used through a trusted proxy alone. Raises AccountError."""
        wanted = _checked_roles(roles)
        if not _NAME.fullmatch(name):
            raise AccountError("a name has 1 to 64 letters, digits or . _ @ -")
        hashed = "" if password is None else generate_password_hash(_strong(password, name))
        with self._open() as database:
            try:
                database.execute("INSERT INTO people (name, roles, password) VALUES (?, ?, ?)", (name, wanted, hashed))
            except sqlite3.IntegrityError as error:
                raise AccountError(f"there is an account {name} already") from error
        return Account(name, frozenset(wanted.split()))

    def set_password(self, name: str, password: str) -> None:
        """Another password; every session and token of the person ends. Raises AccountError."""
        self._change(name, "password", generate_password_hash(_strong(password, name)))

    def set_roles(self, name: str, roles: Collection[str]) -> None:
        """Other roles; the person signs in anew. Raises AccountError."""
        self._change(name, "roles", _checked_roles(roles))

    def remove(self, name: str) -> None:
        """The person is let in no more. What they read and did stays in the record. Raises AccountError."""
        self._change(name, "active", 0)

    def restore(self, name: str) -> None:
        """The person is let in again. Raises AccountError."""
        self._change(name, "active", 1)

    def all(self) -> list[Account]:
        """Everybody, by name."""
        if not self._file.is_file():
            return []
        with self._open() as database:
            rows = database.execute("SELECT name, roles, active FROM people ORDER BY name").fetchall()
        return [Account(name, frozenset(roles.split()), bool(active)) for name, roles, active in rows]

    def find(self, name: str) -> Account | None:
        """The active account of this name."""
        with self._open() as database:
            row = database.execute("SELECT roles FROM people WHERE name = ? AND active", (name,)).fetchone()
        return None if row is None else Account(name, frozenset(row[0].split()))

    # --- signing in -------------------------------------------------------------------------------------------------

    def check(self, name: str, password: str) -> Account | None:
        """The account, where the password is its own."""
        with self._open() as database:
            row = database.execute("SELECT roles, password FROM people WHERE name = ? AND active", (name,)).fetchone()
        known = row is not None and bool(row[1])
        right = check_password_hash(row[1] if known else _NOBODY, password)
        return Account(name, frozenset(row[0].split())) if known and right else None

    def wait(self, name: str, address: str, *, attempts: int, seconds: float) -> int:
        """Seconds until this name may be tried again from this address; 0: now.

        An address waits after four times as many wrong passwords over all names, a name after ten times over all
        addresses: guessing is slow everywhere, and one stranger cannot keep a person out.
        """
        now = self._clock()
        with self._open() as database:
            rows = database.execute(
                "SELECT name, address, at FROM failures WHERE at > ? AND (name = ? OR address = ?) ORDER BY at DESC",
                (now - seconds, name, address),
            ).fetchall()
        until = 0.0
        for same, limit in (
            ([at for who, where, at in rows if who == name and where == address], attempts),
            ([at for _, where, at in rows if where == address], 4 * attempts),
            ([at for who, _, at in rows if who == name], 10 * attempts),
        ):
            if len(same) >= limit:
                until = max(until, same[limit - 1] + seconds)
        return max(0, int(until - now) + 1) if until else 0

    def failed(self, name: str, address: str) -> None:
        """Counts a wrong password."""
        with self._open() as database:
            database.execute("DELETE FROM failures WHERE at < ?", (self._clock() - 86_400,))
            database.execute("INSERT INTO failures VALUES (?, ?, ?)", (name[:64], address, self._clock()))

    def open_session(self, name: str) -> str:
        """The secret of a new session; wrong passwords so far are forgotten."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        with self._open() as database:
            database.execute("DELETE FROM failures WHERE name = ?", (name,))
            database.execute("DELETE FROM sessions WHERE opened < ?", (now - 7 * 86_400,))
            database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", (_digest(secret), name, now, now))
        return secret

    def session(self, secret: str, *, idle_seconds: float, total_seconds: float) -> Account | None:
        """Who this session is of, while it lasts."""
        now = self._clock()
        with self._open() as database:
            row = database.execute(
                "SELECT name, roles, opened, seen FROM sessions JOIN people USING (name) WHERE secret = ? AND active",
                (_digest(secret),),
            ).fetchone()
            if row is None or now - row[2] > total_seconds or now - row[3] > idle_seconds:
                return None
            if now - row[3] > min(30.0, idle_seconds / 4):
                database.execute("UPDATE sessions SET seen = ? WHERE secret = ?", (now, _digest(secret)))
        return Account(row[0], frozenset(row[1].split()))

    def close_session(self, secret: str) -> None:
        """Signs out: the cookie is worth nothing any more, wherever a copy of it is."""
        with self._open() as database:
            database.execute("DELETE FROM sessions WHERE secret = ?", (_digest(secret),))

    # --- programs ---------------------------------------------------------------------------------------------------

    def make_token(self, name: str) -> str:
        """A secret with which a program speaks to the API for this person; shown once. Raises AccountError."""
        if self.find(name) is None:
            raise AccountError(f"there is no active account {name}")
        secret = secrets.token_urlsafe(32)
        with self._open() as database:
            database.execute("INSERT INTO tokens VALUES (?, ?, ?)", (_digest(secret), name, self._clock()))
        return secret

    def by_token(self, secret: str) -> Account | None:
        """Whose token this is."""
        with self._open() as database:
            row = database.execute(
                "SELECT name, roles FROM tokens JOIN people USING (name) WHERE secret = ? AND active",
                (_digest(secret),),
            ).fetchone()
        return None if row is None else Account(row[0], frozenset(row[1].split()))

    # --- the file ---------------------------------------------------------------------------------------------------

    def _change(self, name: str, column: str, value: str | int) -> None:
        with self._open() as database:
            query = f"UPDATE people SET {column} = ? WHERE name = ?"  # noqa: S608 - columns of this module
            if not database.execute(query, (value, name)).rowcount:
                raise AccountError(f"there is no account {name}")
            database.execute("DELETE FROM sessions WHERE name = ?", (name,))
            database.execute("DELETE FROM tokens WHERE name = ?", (name,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with opened_database(self._file, _SCHEMA) as database:
            yield database


@contextmanager
def opened_database(file: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """A SQLite file that its owner alone can read, made where there is none; what the block does is one transaction."""
    if not file.is_file():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    database = sqlite3.connect(file, timeout=20, isolation_level=None)
    try:
        if not file.stat().st_size or not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            with os.fdopen(os.open(file.with_name(f".{file.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # WAL is not waited for: two who make it at once would fail
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(schema)
        database.execute("BEGIN IMMEDIATE")
        yield database
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    finally:
        database.close()


def secret_key(file: Path) -> bytes:
    """The key that cookies are signed with, made on first use; several processes get the same one."""
    if not file.is_file():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
            target.write(secrets.token_hex(32))
        try:
            os.link(partial, file)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return bytes.fromhex(file.read_text())


def _checked_roles(roles: Collection[str]) -> str:
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        raise AccountError(f"an account needs a role, one or more of: {', '.join(ROLES)}")
    return " ".join(role for role in ROLES if role in roles)


def _strong(password: str, name: str) -> str:
    if len(password) < SHORTEST_PASSWORD or len(set(password)) < 5 or password.lower() == name.lower():
        raise AccountError(
            f"a password has at least {SHORTEST_PASSWORD} characters, 5 different ones, and is not the name"
        )
    return password


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
