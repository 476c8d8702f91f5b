"""From a folder of files to landing batches with receipts: what came, from which site, when, and its digests.

What belongs here: getting files in, whole and once. `take_folder` opens nothing as DICOM: whatever a site sends is
received, and the de-identification says what of it can be used. Receipts name source files, which may hold a patient's
name: they stay in the landing zone.

The receipts are the truth. `landing/.received.db` repeats them so that a file received years ago is recognised without
reading every receipt; it is brought up to date from the receipts whenever it is opened, and may be deleted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import sqlite3
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from radia.errors import EmptyInbox, IntakeError
from radia.workspace import written_whole

logger = logging.getLogger(__name__)

RECEIPT, FILES = "receipt.json", "files"
"""What a batch's folder holds: the receipt, and a folder of the files, each named by its SHA-256."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ReceivedFile:
    """One content received: its digest, its size and every name under which it came (paths relative to the site)."""

    sha256: str
    bytes: int
    source_name: str
    also_named: tuple[str, ...] = ()
    modified_ns: int | None = None
    """The source's modification time; None where the source has none (network)."""


@dataclass(frozen=True)
class LeftFile:
    """One file that was not taken, and why. It is tried again next time."""

    source_name: str
    reason: str


@dataclass(frozen=True)
class Receipt:
    """What one batch holds. `received` is UTC in ISO 8601."""

    batch: str
    site: str
    received: str
    files: tuple[ReceivedFile, ...]
    left: tuple[LeftFile, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of the batch."""
        return sum(file.bytes for file in self.files)

    def to_json(self) -> str:
        """The text of `receipt.json`."""
        return json.dumps({"count": len(self.files), "bytes": self.bytes, **asdict(self)}, indent=1, ensure_ascii=False)


def take_folder(
    inbox: Path,
    landing: Path,
    *,
    today: date,
    quiet_seconds: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Receipt]:
    """Copies what is new in `inbox/<site>/…` into landing, one batch a site, and returns the new receipts.

    The source is the hospital's: it is read, never moved. Files already received, in whatever batch and under whatever
    name, are not taken again; several files of the same content become one with all its names. A batch appears whole
    or not at all. Hidden files are not part of a feed. An inbox that holds files and no folder is one site, named
    after it. A site of which any file changed less than `quiet_seconds` ago is left for the next time.

    Files that cannot be read, or that change while they are read, are left and named in the receipt.

    Raises EmptyInbox where there is no file at all, IntakeError where sites cannot be told apart or no file could be
    read, StorageFull.
    """
    sites = _sites(inbox)
    feeds = {site: _feed(folder) for site, folder in sites.items()}
    if not any(feeds.values()):
        raise EmptyInbox(f"{inbox} holds no file: expected DICOM files in one folder a site ({inbox.name}/<site>/…)")
    total, done = sum(map(len, feeds.values())), 0
    new: list[Receipt] = []
    unread = 0
    with _locked(landing):
        _sweep(landing)
        for site, files in feeds.items():
            if files and _is_quiet(files, quiet_seconds):
                receipt, tally = _take_site(site, sites[site], files, landing, today)
                new += [receipt] if receipt else []
                unread += 0 if tally.taken or tally.known else len(tally.left)
                _warn_of_left(site, tally)
            done += len(files)
            if progress:
                progress(done, total)
    if unread and not new:
        raise IntakeError(f"none of {unread} files could be read: give this user the right to read {inbox}")
    return new


def receipts(landing: Path) -> list[Receipt]:
    """The receipts of all batches, oldest first."""
    found = [_read_receipt(path) for path in landing.glob(f"[!.]*/{RECEIPT}")]
    return sorted(found, key=lambda receipt: (receipt.received, receipt.batch))


def site_name(name: str) -> str:
    """A site's name as it stands in batch names: ASCII letters, digits and `_`. Raises IntakeError if none is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")
    if not cleaned:
        raise IntakeError("a site's folder has a name without a letter or a digit: rename it")
    return cleaned


# --- the inbox ------------------------------------------------------------------------------------------------------


def _sites(inbox: Path) -> dict[str, Path]:
    """The folder of each site. Raises IntakeError, EmptyInbox."""
    if not inbox.is_dir():
        raise EmptyInbox(f"{inbox} is not a folder: expected one with a folder for each site")
    entries = [entry for entry in sorted(inbox.iterdir()) if not entry.name.startswith(".")]
    folders = [entry for entry in entries if entry.is_dir()]
    loose = len(entries) - len(folders)
    if loose and folders:
        raise IntakeError(
            f"{inbox} holds {loose} files beside {len(folders)} folders, so their site is unknown: "
            "move them into the folder of their site"
        )
    sites: dict[str, Path] = {}
    for folder in folders or [inbox.resolve()]:
        name = site_name(folder.name)
        if name in sites:
            raise IntakeError(f"two folders of {inbox} would both be site {name!r}: rename one")
        sites[name] = folder
    return sites


def _feed(folder: Path) -> list[Path]:
    """All files below a site's folder but hidden ones, in a stable order; a folder that cannot be opened stands for
    its files, so that it is named among those left."""
    closed: list[OSError] = []
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=closed.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent) / name for name in names if not name.startswith(".")]
    return sorted(found + [Path(error.filename) for error in closed])


def _is_quiet(files: Iterable[Path], seconds: float) -> bool:
    """Whether no file was written lately. A clock that runs ahead at the sender counts as quiet after the same time."""
    if seconds <= 0:
        return True
    now = datetime.now(UTC).timestamp()
    return all(abs(now - path.lstat().st_mtime) >= seconds for path in files)


# --- one batch ------------------------------------------------------------------------------------------------------


class _Unreadable(Exception):
    """A file that is left for the next time; the text says why."""


class _NothingNew(Exception):
    """A batch that would hold no file is not made."""


@dataclass
class _Tally:
    """What became of a site's files."""

    taken: dict[str, ReceivedFile]
    left: list[LeftFile]
    known: int = 0


Bring = Callable[[Path, Path, str], ReceivedFile]
"""How one file gets into a batch's folder under its digest: (source, folder, name) -> what was received."""


def _take_site(
    site: str, folder: Path, files: list[Path], landing: Path, today: date, *, bring: Bring | None = None
) -> tuple[Receipt | None, _Tally]:
    """One site's new files as a batch; no batch where all were received before or none could be read."""
    tally = _Tally({}, [])
    batch = _next_batch(landing, site, today)
    with closing(_Received(landing)) as received, suppress(_NothingNew), written_whole(landing / batch) as partial:
        (partial / FILES).mkdir(parents=True)
        for path in files:
            name = path.relative_to(folder).as_posix()
            _take_file(path, name, site, partial / FILES, received, tally, bring or _copied)
        received.commit()
        if not tally.taken:
            raise _NothingNew
        receipt = Receipt(batch, site, _now(), tuple(tally.taken.values()), tuple(tally.left))
        (partial / RECEIPT).write_text(receipt.to_json())
    if not tally.taken:
        return None, tally
    return receipt, tally


def _take_file(
    path: Path, name: str, site: str, folder: Path, received: _Received, tally: _Tally, bring: Bring
) -> None:
    try:
        status = _stat(path)
        if received.has_seen(site, name, status):
            tally.known += 1
            return
        file = replace(bring(path, folder, name), modified_ns=status.st_mtime_ns)
    except _Unreadable as error:
        tally.left.append(LeftFile(name, str(error)))
        return
    if received.has(file.sha256):
        (folder / file.sha256).unlink()
        received.note(site, file)
        tally.known += 1
    elif file.sha256 in tally.taken:
        first = tally.taken[file.sha256]
        tally.taken[file.sha256] = replace(first, also_named=(*first.also_named, name))
    else:
        tally.taken[file.sha256] = file


def _copied(source: Path, folder: Path, name: str) -> ReceivedFile:
    """Copies a file into the folder under its digest. Raises _Unreadable, and OSError where it cannot be written."""
    digest, size, draft = hashlib.sha256(), 0, folder / ".draft"
    with draft.open("wb") as target:
        for chunk in _chunks(source):
            digest.update(chunk)
            size += target.write(chunk)
    draft.replace(folder / digest.hexdigest())
    return ReceivedFile(digest.hexdigest(), size, name)


def _chunks(source: Path) -> Iterator[bytes]:
    """The bytes of a file that nobody writes to meanwhile. Raises _Unreadable."""
    try:
        with source.open("rb") as file:
            before = os.fstat(file.fileno())
            while chunk := file.read(_CHUNK):
                yield chunk
            after = os.fstat(file.fileno())
    except OSError as error:
        raise _Unreadable(os.strerror(error.errno or 0)) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _Unreadable("it changed while it was read")


def _stat(path: Path) -> os.stat_result:
    """A regular file's status; opening a pipe would wait for ever. Raises _Unreadable."""
    try:
        status = path.stat()
    except OSError as error:
        raise _Unreadable(os.strerror(error.errno or 0)) from error
    if not stat.S_ISREG(status.st_mode):
        raise _Unreadable("it is not a regular file")
    return status


def _next_batch(landing: Path, site: str, today: date) -> str:
    prefix = f"{site}-{today:%Y%m%d}-"
    taken = [
        int(path.name.removeprefix(prefix)) for path in landing.glob(f"{prefix}*") if path.name[len(prefix) :].isdigit()
    ]
    return f"{prefix}{max(taken, default=0) + 1}"


def _warn_of_left(site: str, tally: _Tally) -> None:
    for reason, count in Counter(file.reason for file in tally.left).items():
        logger.warning("site %s: %d files were left for the next time: %s", site, count, reason)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _read_receipt(path: Path) -> Receipt:
    """Raises IntakeError, naming the batch."""
    try:
        record = json.loads(path.read_text())
        files = tuple(ReceivedFile(**{**file, "also_named": tuple(file["also_named"])}) for file in record["files"])
        left = tuple(LeftFile(**file) for file in record["left"])
        return Receipt(record["batch"], record["site"], record["received"], files, left)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntakeError(f"the receipt of batch {path.parent.name} cannot be read: {type(error).__name__}") from error


# --- what was received before ---------------------------------------------------------------------------------------


class _Received:
    """Every digest ever received, in SQLite, brought up to date from the receipts."""

    def __init__(self, landing: Path) -> None:
        self._connection = sqlite3.connect(landing / ".received.db")
        self._connection.executescript(
            """
            CREATE TABLE IF NOT EXISTS batch (name TEXT PRIMARY KEY);
            CREATE TABLE IF NOT EXISTS content (sha256 TEXT PRIMARY KEY, batch TEXT) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS seen (site TEXT, name TEXT, bytes INT, modified INT, sha256 TEXT,
                                             PRIMARY KEY (site, name)) WITHOUT ROWID;
            """
        )
        recorded = {name for (name,) in self._connection.execute("SELECT name FROM batch")}
        present = {path.parent.name for path in landing.glob(f"[!.]*/{RECEIPT}")}
        for name in recorded - present:
            self._forget(name)
        for name in sorted(present - recorded):
            self._add(_read_receipt(landing / name / RECEIPT))
        self.commit()

    def has(self, sha256: str) -> bool:
        """Whether this content was received in any batch."""
        return self._one("SELECT 1 FROM content WHERE sha256 = ?", sha256)

    def has_seen(self, site: str, name: str, status: os.stat_result) -> bool:
        """Whether a received file has this name, size and modification time, so that it need not be read again."""
        query = "SELECT 1 FROM seen WHERE site = ? AND name = ? AND bytes = ? AND modified = ?"
        return self._one(query, site, name, status.st_size, status.st_mtime_ns)

    def note(self, site: str, file: ReceivedFile) -> None:
        """Remembers one more name of received content."""
        row = (site, file.source_name, file.bytes, file.modified_ns, file.sha256)
        self._connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", row)

    def commit(self) -> None:
        """Makes what was noted last."""
        self._connection.commit()

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()

    def _add(self, receipt: Receipt) -> None:
        self._connection.execute("INSERT INTO batch VALUES (?)", (receipt.batch,))
        for file in receipt.files:
            self._connection.execute("INSERT OR IGNORE INTO content VALUES (?, ?)", (file.sha256, receipt.batch))
            self.note(receipt.site, file)

    def _forget(self, batch: str) -> None:
        self._connection.execute(
            "DELETE FROM seen WHERE sha256 IN (SELECT sha256 FROM content WHERE batch = ?)", (batch,)
        )
        self._connection.execute("DELETE FROM content WHERE batch = ?", (batch,))
        self._connection.execute("DELETE FROM batch WHERE name = ?", (batch,))

    def _one(self, query: str, *values: object) -> bool:
        return self._connection.execute(query, values).fetchone() is not None


@contextmanager
def _locked(landing: Path) -> Iterator[None]:
    """One intake at a time writes to a landing zone. The lock goes with the process, however it ends."""
    landing.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (landing / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(landing: Path) -> None:
    """Removes what a killed intake left half written. Only under the lock."""
    for path in landing.glob(".partial-*"):
        shutil.rmtree(path)
