"""A SQLite database that is changed whole or not at all, by programs whose own changes are not of one transaction.

SQLite's driver begins no transaction before tables are changed, so a migration that is killed leaves half of them. Here
it works on a copy, and what it made comes back by SQLite's online backup: every page in one transaction, which the
journal undoes where the process is killed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from radia.errors import MigrationError

PATIENCE_SECONDS = 20.0
"""How long another process may hold a database before it is said to run."""


@contextmanager
def changed_whole(files: Sequence[Path], copies: Sequence[Path], *, held: int | None = None) -> Iterator[None]:
    """Copies databases for the block to change, and puts each in its original's place when the block ends well.

    The last `held` originals (all of them if None) are locked from before they are copied until they are changed: none
    is read or written meanwhile. They come last, each in one transaction. Raises MigrationError where one is in use.
    """
    first_held = 0 if held is None else len(files) - held
    with ExitStack() as stack:
        locked = {path: stack.enter_context(closing(_exclusive(path))) for path in files[first_held:]}
        for file, copy in zip(files, copies, strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            if file in locked:
                _copied(locked[file], copy)
            else:
                with closing(sqlite3.connect(file, timeout=PATIENCE_SECONDS)) as database:
                    _copied(database, copy)
        yield
        for file, copy in zip(files, copies, strict=True):
            _check(copy)
            if file in locked:
                _brought(copy, locked[file])
            else:
                with closing(_exclusive(file)) as database:
                    _brought(copy, database)


def keep(files: Sequence[Path], copies: Sequence[Path]) -> None:
    """Copies databases, each of one moment."""
    for file, copy in zip(files, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=PATIENCE_SECONDS)) as database:
            _copied(database, copy)
        copy.chmod(file.stat().st_mode & 0o777)


def revision(file: Path, table: str) -> str:
    """The revision that Alembic keeps in a table of a database; empty where there is none. Raises MigrationError."""
    there = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    try:
        with closing(sqlite3.connect(file, timeout=PATIENCE_SECONDS)) as database:
            if not database.execute(there, (table,)).fetchone():
                return ""
            row = database.execute(f'SELECT version_num FROM "{table}"').fetchone()  # noqa: S608  # names are RADIA's
    except sqlite3.Error as error:
        raise MigrationError(f"{file.name} cannot be read as a database: {type(error).__name__}") from error
    return str(row[0]) if row else ""


def _exclusive(file: Path) -> sqlite3.Connection:
    """A connection that keeps its lock over transactions, until it is closed."""
    database = sqlite3.connect(file, timeout=PATIENCE_SECONDS, isolation_level=None)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        database.execute("COMMIT")
    except sqlite3.Error as error:
        database.close()
        raise MigrationError(f"{file.name} is in use ({error}): end `radia up` and every service first") from error
    return database


def _copied(database: sqlite3.Connection, copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as target:
        database.backup(target)


def _brought(copy: Path, database: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(copy)) as source:
        source.backup(database)


def _check(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as database:
        if (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise MigrationError(f"{copy.name} is damaged after its migration, so it was left as it was: {found[:200]}")
