"""A backup of all that a site is, taken while its services run, and its way back.

In a backup: `files/`, the data folder as it was; `databases/`, those of PostgreSQL, dumped; `backup.json`, every file
with its digest, the ledger's anchor and the model in use. The keys are in it only where they are asked for, encrypted
under a passphrase: a backup without them shows no patient's name that the landing zone does not. It holds the landing
zone, so it is to be kept like it.

What RADIA writes it writes whole, so a copied file is never half of one. The databases are taken between two looks at
the files, the ledger first: where nothing changed between the looks, files, ledger, MLflow and Dagster are of one
moment; where something did, it is copied again and the databases are taken anew.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from radia import __version__, digests, registry
from radia.errors import BackupError
from radia.ledger import Action, Anchor, open_ledger, verify_artefacts
from radia.operations.databases import empty, grant_ledger_rights
from radia.operations.migration import BEFORE, migrate
from radia.operations.schema import known, refuse_newer, schemas
from radia.operations.sealed_keys import open_keys, seal_keys
from radia.operations.secret_files import ADMINISTRATOR, DATABASES
from radia.settings import database_url, ledger_anchor_file
from radia.workspace import Workspace, written_whole

FILES, DUMPS, LIST, KEYS, ANCHOR = "files", "databases", "backup.json", "keys.sealed", "ledger.anchor"
ATTEMPTS = 10
"""How often the databases are taken anew where files changed meanwhile; then the work must rest first."""
PAUSE_SECONDS = 3.0

_LEFT_OUT = frozenset({"keys", "logs", "hospital", BEFORE})
"""Of the data folder: keys are sealed apart, logs are not state, the demonstration's hospital can be written again, and
what databases were before a migration is in the backup that was taken then."""
_SQLITE = b"SQLite format 3\x00"


@dataclass(frozen=True)
class Backup:
    """What a backup holds. taken: UTC. anchor: the ledger's newest. model: the one in use, or empty."""

    taken: str
    radia: str
    anchor: str
    model: str
    schemas: Mapping[str, str]
    postgresql: bool
    keys: bool
    files: Mapping[str, str]


@dataclass(frozen=True)
class Restored:
    """What a restored site was found to hold."""

    files: int
    events: int
    artefacts: int
    model: str


def take(site: Workspace, target: Path, *, actor: str, passphrase: str = "") -> Backup:
    """Writes a backup of the site to a folder that is not there yet, whole or not at all.

    passphrase: seals the keys into it; without it they are left out. Raises BackupError, StorageFull.
    """
    if target.exists():
        raise BackupError(f"{target} is there already: name a folder that is not")
    if target.resolve().is_relative_to(site.root.resolve()):
        raise BackupError("the backup would lie in the data folder itself: name a folder on another disk")
    with written_whole(target) as folder:
        folder.mkdir(mode=0o700)
        anchor = _copy_all(site, folder)
        if passphrase:
            (folder / KEYS).write_bytes(seal_keys(site, passphrase))
        backup = Backup(
            datetime.now(UTC).isoformat(timespec="seconds"),
            __version__,
            str(anchor),
            _model_in_use(site),
            {one.name: one.found for one in schemas(site)},
            database_url("ledger") is not None,
            bool(passphrase),
            {name: digests.of_file(path) for name, path in _listed(folder)},
        )
        (folder / LIST).write_text(json.dumps(asdict(backup), indent=1) + "\n")
    ledger = open_ledger(site)
    digest = digests.of_file(target / LIST)
    ledger.append(Action.BACKUP, actor=actor, outputs={"backup": digest}, parameters={"anchor": backup.anchor})
    return backup


def read(source: Path) -> Backup:
    """The list of a backup, every file held against it. Raises BackupError, naming the first bad file."""
    try:
        backup = Backup(**json.loads((source / LIST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise BackupError(f"{source} is not a backup of RADIA: {LIST} cannot be read") from error
    present = dict(_listed(source))
    if missing := sorted(set(backup.files) - set(present)):
        raise BackupError(f"the backup lacks {missing[0]}, and {len(missing) - 1} more files")
    if added := sorted(set(present) - set(backup.files)):
        raise BackupError(f"the backup holds {added[0]}, which its list does not name")
    for name, digest in backup.files.items():
        if digests.of_file(present[name]) != digest:
            raise BackupError(f"{name} of the backup was changed, or its disk fails")
    return backup


def restore(source: Path, site: Workspace, *, passphrase: str = "") -> Restored:
    """Brings a backup back into an empty site, migrates it, and holds the result against its list.

    The databases of PostgreSQL must be there and empty (`radia migrate --passwords`), or be SQLite as they were. A
    backup of an older version is brought to this one's schemas; one of a newer version is refused before anything is
    written. Raises BackupError, MigrationError.
    """
    backup = read(source)
    taken_with = [known(name, revision) for name, revision in backup.schemas.items()]
    refuse_newer(taken_with)
    if site.root.is_dir() and any(path.name not in (*_LEFT_OUT, *_PLACES) for path in site.root.iterdir()):
        raise BackupError(f"{site.root} holds something already: restore into an empty data folder")
    if any(_names_of(place) for place in _places(site)):
        raise BackupError(f"a folder of {site.root} holds something already: restore into an empty data folder")
    if backup.postgresql != (database_url("ledger") is not None):
        where = "PostgreSQL: name the server in RADIA_DATABASE" if backup.postgresql else "SQLite: unset RADIA_DATABASE"
        raise BackupError(f"the backup is of a site on {where}")
    if backup.keys and passphrase:
        open_keys(site, (source / KEYS).read_bytes(), passphrase)
    links: dict[tuple[int, int], Path] = {}
    for name, path in _below(source / FILES):
        _copy_file(path, site.root / name, links)
    kept = ledger_anchor_file(site)
    if (source / ANCHOR).is_file() and not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / ANCHOR, kept)
    if backup.postgresql:
        for database in DATABASES:
            _undump(database, source / DUMPS / f"{database}.dump")
        grant_ledger_rights()
    if any(schema.pending for schema in taken_with):
        migrate(site, administrator=ADMINISTRATOR if backup.postgresql else "", backed_up=True)
    return verify(site, backup)


def verify(site: Workspace, backup: Backup) -> Restored:
    """Holds a restored site against its backup: ledger, recorded files, the model in use. Raises BackupError."""
    ledger = open_ledger(site)
    verification = ledger.verify([Anchor.parse(backup.anchor)])
    artefacts = verify_artefacts(site, ledger)
    model = _model_in_use(site)
    if model != backup.model:
        raise BackupError(f"{model or 'no model'} is in use after the restoration: expected {backup.model or 'none'}")
    if model:
        registry.checkpoint_folder(site, registry.CHAMPION_URI)
    return Restored(len(backup.files), verification.events, artefacts, model)


# --- one moment of all that changes ---------------------------------------------------------------------------------

_Seen = dict[str, tuple[int, int, int]]


def _copy_all(site: Workspace, folder: Path) -> Anchor:
    """Files, databases, and a second look at the files. Raises BackupError where the site never rests."""
    files, links = folder / FILES, dict[tuple[int, int], Path]()
    seen = _copy_changed(site, files, {}, links)
    for _ in range(ATTEMPTS):
        ledger = open_ledger(site)
        _copy_databases(site, folder)
        anchor = _anchor_of_copy(site, folder, ledger.head())
        after = _copy_changed(site, files, seen, links)
        if after == seen:
            (folder / ANCHOR).write_text(f"{anchor}\n")
            return anchor
        seen = after
        time.sleep(PAUSE_SECONDS)
    raise BackupError(f"files changed each of {ATTEMPTS} times the databases were taken: wait until the job has ended")


def _copy_changed(site: Workspace, files: Path, seen: _Seen, links: dict[tuple[int, int], Path]) -> _Seen:
    """Copies what is not as it was seen, removes what is gone, and returns what was seen now."""
    now: _Seen = {}
    for name, path in _state(site):
        try:
            status = path.stat()
            facts = (status.st_size, status.st_mtime_ns, status.st_ino)
            if seen.get(name) != facts:
                _copy_file(path, files / name, links)
            now[name] = facts
        except FileNotFoundError:
            continue
    for name in seen.keys() - now.keys():
        (files / name).unlink(missing_ok=True)
    return now


def _copy_databases(site: Workspace, folder: Path) -> None:
    """The ledger first: it is never ahead of what it speaks of. Then MLflow, then the others."""
    ours = sorted(_sqlite_files(site), key=lambda path: (path.name != "ledger.db", path.name != "mlflow.db", str(path)))
    for path in ours:
        _copy_sqlite(path, folder / FILES / path.relative_to(site.root))
    if database_url("ledger") is not None:
        for database in DATABASES:
            _dump(database, folder / DUMPS / f"{database}.dump")


def _anchor_of_copy(site: Workspace, folder: Path, before: Anchor) -> Anchor:
    """The newest event of the copied ledger; of a dump, which cannot be asked, the newest before it was taken."""
    copy = folder / FILES / "ledger.db"
    if database_url("ledger") is not None or not copy.is_file():
        return before
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as database:
        newest = database.execute("SELECT sequence, hash FROM ledger_events ORDER BY sequence DESC LIMIT 1").fetchone()
    return Anchor(*newest) if newest else before


def _state(site: Workspace) -> Iterator[tuple[str, Path]]:
    """Every file of the data folder that is state and no database: (name, path)."""
    for name, path in _below(site.root):
        if _is_state(name) and not _is_sqlite(path):
            yield name, path


def _sqlite_files(site: Workspace) -> list[Path]:
    return [path for name, path in _below(site.root) if _is_state(name) and _is_sqlite(path)]


def _is_state(name: str) -> bool:
    parts = name.split("/")
    partial = any(part.startswith((".partial-", ".new-")) for part in parts)
    beside_a_database = name.endswith(("-wal", "-shm", "-journal"))
    return parts[0] not in _LEFT_OUT and not partial and not beside_a_database and parts[-1] not in (".lock", ANCHOR)


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except FileNotFoundError:
        return False


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, by its name in it. A link is not followed."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix(), path


def _listed(folder: Path) -> Iterator[tuple[str, Path]]:
    return ((name, path) for name, path in _below(folder) if name != LIST)


def _copy_file(source: Path, target: Path, links: dict[tuple[int, int], Path]) -> None:
    """A copy with the source's mode and times; what are names of one file there are names of one file here."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    status = source.stat()
    place = (status.st_dev, status.st_ino)
    first = links.get(place)
    if status.st_nlink > 1 and first is not None and first.is_file() and first.stat().st_size == status.st_size:
        os.link(first, target)
        return
    shutil.copy2(source, target)
    links[place] = target


def _copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's online backup: of one moment, while others write."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(source, timeout=60)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
    shutil.copymode(source, target)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


def _dump(database: str, target: Path) -> None:
    """pg_dump's own format: of one moment, while others write."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _postgresql("pg_dump", "--format=custom", "--no-password", f"--file={target}", f"--dbname={_plain_url(database)}")


def _undump(database: str, source: Path) -> None:
    """Into the database that `radia migrate --passwords` made: all its tables give way, also those that are newer."""
    empty(database)
    options = ("--no-password", "--exit-on-error", "--single-transaction")
    _postgresql("pg_restore", *options, f"--dbname={_plain_url(database)}", str(source))


def _plain_url(database: str) -> str:
    url = make_url(database_url(database, role=ADMINISTRATOR) or "")
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _postgresql(program: str, *arguments: str) -> None:
    binary = shutil.which(program)
    if binary is None:
        raise BackupError(f"{program} is not installed: apt-get install postgresql-client")
    done = subprocess.run([binary, *arguments], capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise BackupError(
            f"{program} ended with {done.returncode}: {(done.stderr.strip() or 'no word').splitlines()[0]}"
        )


# --- what a backup is held against ----------------------------------------------------------------------------------

_PLACES = ("inbox", "landing", "quarantine", "mlartifacts", "dagster", "web")
"""Folders of the data folder that volumes of docker-compose.yml are mounted over, so that they are always there."""


def _places(site: Workspace) -> list[Path]:
    return [site.root / name for name in _PLACES]


def _names_of(folder: Path) -> list[str]:
    made_at_once = {"dagster.yaml", ".received.db", ".lock"}
    return [name for name, _ in _below(folder) if name.split("/")[-1] not in made_at_once]


def _model_in_use(site: Workspace) -> str:
    """As the registry says. While databases wait for a migration MLflow's server does not run: as its tables say."""
    url = database_url("mlflow") or site.mlflow_url
    found = {one.name: one for one in schemas(site)}
    made = "MLflow" in found and found["MLflow"].found
    if not made or not any(one.pending for one in found.values()):
        used = registry.champion(site)
        return used.uri if used else ""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            query = sa.text("SELECT version FROM registered_model_aliases WHERE name = :name AND alias = :alias")
            row = connection.execute(query, {"name": registry.MODEL, "alias": registry.CHAMPION}).first()
    except SQLAlchemyError as error:
        raise BackupError(f"MLflow's database cannot be asked which model is in use: {type(error).__name__}") from error
    finally:
        engine.dispose()
    return f"mlflow:{registry.MODEL}/{row[0]}" if row else ""


def told(backup: Backup) -> dict[str, Any]:
    """A backup in figures, without its list."""
    values = asdict(backup)
    return {**values, "files": len(backup.files)}
