"""Landing batches and their receipts: what came, from which site, when, and its digests. However it came.

What belongs here: getting contents into a batch whole and once. Nothing is opened as DICOM: whatever a site sends is
received, and the de-identification says what of it can be used. Receipts name source files, which may hold a patient's
name: they stay in the landing zone.

The receipts are the truth. `landing/.received.db` repeats them so that a file received years ago is recognised without
reading every receipt; it is brought up to date from the receipts whenever it is opened, and may be deleted. To free
the disk of a batch that is archived, remove its `files/` and keep its receipt.

What comes over the network is acknowledged file by file, before its batch is whole: it waits in a `Spool`, on disk,
which becomes a batch when it is sealed, by its owner or, where that one was killed, by the next intake.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock

from radia import digests
from radia.errors import IntakeError, StorageFull
from radia.workspace import written_whole

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


def receipts(landing: Path) -> list[Receipt]:
    """The receipts of all batches, oldest first."""
    found = [_read_receipt(path) for path in landing.glob(f"[!.]*/{RECEIPT}")]
    return sorted(found, key=lambda receipt: (receipt.received, receipt.batch))


def files_below(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, in a stable order; a folder that cannot be opened stands for its
    files, so that it is named among those left."""
    closed: list[OSError] = []
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=closed.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent) / name for name in names if not name.startswith(".")]
    return sorted(found + [Path(error.filename) for error in closed])


def site_name(name: str) -> str:
    """A site's name as it stands in batch names: ASCII letters, digits and `_`. Raises IntakeError if none is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")
    if not cleaned:
        raise IntakeError("a site's folder has a name without a letter or a digit: rename it")
    return cleaned


# --- one batch ------------------------------------------------------------------------------------------------------


class _Unreadable(Exception):
    """A file that is left for the next time; the text says why."""


class _NothingNew(Exception):
    """A batch that would hold no file is not made."""


@dataclass
class Tally:
    """What became of a site's files."""

    taken: dict[str, ReceivedFile]
    left: list[LeftFile]
    known: int = 0


Bring = Callable[[Path, Path, str], ReceivedFile]
"""How one file gets into a batch's folder under its digest: (source, folder, name) -> what was received."""


def take_files(
    site: str, folder: Path, files: list[Path], landing: Path, today: date, *, bring: Bring | None = None
) -> tuple[Receipt | None, Tally]:
    """One site's new files as a batch; no batch where all were received before or none could be read."""
    tally = Tally({}, [])
    batch = _next_batch(landing, site, today)
    with closing(Received(landing)) as received, suppress(_NothingNew), written_whole(landing / batch) as partial:
        (partial / FILES).mkdir(parents=True)
        for path in files:
            name = path.relative_to(folder).as_posix()
            _take_file(path, name, site, folder, partial / FILES, received, tally, bring or copied)
        received.commit()
        if not tally.taken:
            raise _NothingNew
        receipt = Receipt(batch, site, _now(), tuple(tally.taken.values()), tuple(tally.left))
        (partial / RECEIPT).write_text(receipt.to_json())
    if not tally.taken:
        return None, tally
    return receipt, tally


def _take_file(
    path: Path, name: str, site: str, feed: Path, folder: Path, received: Received, tally: Tally, bring: Bring
) -> None:
    """feed: the site's folder, of which the file is; folder: the batch's."""
    try:
        status = _stat(path, feed)
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


def copied(source: Path, folder: Path, name: str) -> ReceivedFile:
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


def _stat(path: Path, feed: Path) -> os.stat_result:
    """A regular file's status; opening a pipe would wait for ever. Raises _Unreadable.

    A link to what lies outside the feed is not followed: who may write there may not read with RADIA's eyes.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _Unreadable(os.strerror(error.errno or 0)) from error
    if not stat.S_ISREG(status.st_mode):
        raise _Unreadable("it is not a regular file")
    if path.is_symlink() and not path.resolve().is_relative_to(feed.resolve()):
        raise _Unreadable("it is a link that leads out of its site's folder")
    return status


def _next_batch(landing: Path, site: str, today: date) -> str:
    prefix = f"{site}-{today:%Y%m%d}-"
    taken = [
        int(path.name.removeprefix(prefix)) for path in landing.glob(f"{prefix}*") if path.name[len(prefix) :].isdigit()
    ]
    return f"{prefix}{max(taken, default=0) + 1}"


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


class Received:
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

    def has_name(self, site: str, name: str) -> bool:
        """Whether anything was received from this site under this name."""
        return self._one("SELECT 1 FROM seen WHERE site = ? AND name = ?", site, name)

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
            for name in (file.source_name, *file.also_named):
                self.note(receipt.site, replace(file, source_name=name))

    def _forget(self, batch: str) -> None:
        self._connection.execute(
            "DELETE FROM seen WHERE sha256 IN (SELECT sha256 FROM content WHERE batch = ?)", (batch,)
        )
        self._connection.execute("DELETE FROM content WHERE batch = ?", (batch,))
        self._connection.execute("DELETE FROM batch WHERE name = ?", (batch,))

    def _one(self, query: str, *values: object) -> bool:
        return self._connection.execute(query, values).fetchone() is not None


def make_landing(landing: Path) -> None:
    """The landing zone, closed to all but its owner."""
    landing.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextmanager
def locked(landing: Path) -> Iterator[None]:
    """One intake at a time writes to a landing zone. The lock goes with the process, however it ends."""
    make_landing(landing)
    with (landing / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep(landing: Path) -> None:
    """Removes what a killed intake left half written. Only under the lock."""
    for path in landing.glob(".partial-*"):
        shutil.rmtree(path)


# --- what comes over the network -------------------------------------------------------------------------------------


class Spool:
    """Contents of one site that were received and acknowledged and are not yet a batch, safe on disk.

    Lies in `landing/.spool/`, locked while its owner lives.
    """

    def __init__(self, landing: Path, site: str) -> None:
        """site: in the form of `site_name`."""
        self._landing, self.site = landing, site
        self._writing = Lock()
        self._sealed = False
        make_landing(landing)
        home = landing / ".spool"
        home.mkdir(exist_ok=True, mode=0o700)
        with full_disk_named(landing):
            hidden = Path(mkdtemp(prefix=".new-", dir=home))
            self._lock = (hidden / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._folder = hidden.rename(home / f"{site}{hidden.name.removeprefix('.new')}")

    def write(self, name: str, content: bytes) -> bool:
        """Keeps a file under a relative name; when this returns True it is on the disk.

        False where the spool was sealed meanwhile: the file belongs into another one. A name that is taken by other
        content gets a number, so that nothing acknowledged is written over. Raises StorageFull.
        """
        with self._writing, full_disk_named(self._landing):
            if self._sealed:
                return False
            target = _unlike_others(self._folder / name, content)
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name}")
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
            _sync_folder(target.parent)
        return True

    def seal(self, today: date) -> Receipt | None:
        """Makes what is there a batch; none where it holds nothing that was not received before.

        Raises StorageFull; then it is left to the next intake (`seal_abandoned`).
        """
        with self._writing:
            self._sealed = True
        with closing(self._lock), locked(self._landing):
            return _seal_folder(self._folder, self.site, self._landing, today)


def seal_abandoned(landing: Path, today: date) -> list[Receipt]:
    """Makes batches of the spools whose owner was killed."""
    new: list[Receipt] = []
    with locked(landing):  # first the lock and then the look: until it is held, living owners seal theirs
        for folder in sorted((landing / ".spool").glob("[!.]*")):
            with (folder / ".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                receipt = _seal_folder(folder, folder.name.split("-")[0], landing, today)
                new += [receipt] if receipt else []
    return new


def spooled(landing: Path) -> tuple[int, float | None]:
    """How many files were acknowledged and are in no batch yet, and when the oldest was written (seconds since 1970).

    Only looks; what becomes a batch meanwhile is counted or is not.
    """
    count, oldest = 0, None
    for path in (path for folder in (landing / ".spool").glob("[!.]*") for path in files_below(folder)):
        with suppress(FileNotFoundError, NotADirectoryError):
            written = path.stat().st_mtime
            count, oldest = count + 1, min(written, oldest or written)
    return count, oldest


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder last, so that a file acknowledged is found after a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unlike_others(target: Path, content: bytes) -> Path:
    """The name wanted, or with a number where a file of that name holds something else."""
    number, free = 1, target
    while free.exists() and free.read_bytes() != content:
        number += 1
        free = target.with_name(f"{target.stem}-{number}{target.suffix}")
    return free


@contextmanager
def full_disk_named(landing: Path) -> Iterator[None]:
    """Turns the error of a full disk into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no room left on the disk that holds {landing.name}/: free some and send again"
            ) from error
        raise


def _seal_folder(folder: Path, site: str, landing: Path, today: date) -> Receipt | None:
    receipt, _ = take_files(site, folder, files_below(folder), landing, today, bring=_linked)
    shutil.rmtree(folder)
    return receipt


def _linked(source: Path, folder: Path, name: str) -> ReceivedFile:
    """Gives a spooled file a second name in the batch: if the intake is killed, it is still in the spool."""
    sha256 = digests.of_file(source)
    target = folder / sha256
    if not target.exists():
        os.link(source, target)
    return ReceivedFile(sha256, source.stat().st_size, name)
