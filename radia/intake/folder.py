"""A folder a site, taken when quiet: `inbox/<site>/…` to landing batches."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path

from radia.errors import EmptyInbox, IntakeError
from radia.intake.landing import Receipt, Tally, files_below, locked, site_name, sweep, take_files

logger = logging.getLogger(__name__)


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
    feeds = {site: files_below(folder) for site, folder in sites.items()}
    if not any(feeds.values()):
        raise EmptyInbox(f"{inbox} holds no file: expected DICOM files in one folder a site ({inbox.name}/<site>/…)")
    total, done = sum(map(len, feeds.values())), 0
    new: list[Receipt] = []
    unread = 0
    with locked(landing):
        sweep(landing)
        for site, files in feeds.items():
            if files and not _is_quiet(files, quiet_seconds):
                logger.warning("site %s is still growing: left for the next time", site)
            elif files:
                receipt, tally = take_files(site, sites[site], files, landing, today)
                new += [receipt] if receipt else []
                unread += 0 if tally.taken or tally.known else len(tally.left)
                _warn_of_left(site, tally)
            done += len(files)
            if progress:
                progress(done, total)
    if unread and not new:
        raise IntakeError(f"none of {unread} files could be read: give this user the right to read {inbox}")
    return new


def quiet_files(inbox: Path, quiet_seconds: float) -> list[Path]:
    """The files of the sites that are not growing, as `take_folder` would take them. Raises IntakeError."""
    if not inbox.is_dir():
        return []
    feeds = [files_below(folder) for folder in _sites(inbox).values()]
    return [path for files in feeds if _is_quiet(files, quiet_seconds) for path in files if path.is_file()]


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


def _is_quiet(files: Iterable[Path], seconds: float) -> bool:
    """Whether no file was written lately. A clock that runs ahead at the sender counts as quiet after the same time."""
    if seconds <= 0:
        return True
    now = datetime.now(UTC).timestamp()
    return all(abs(now - path.lstat().st_mtime) >= seconds for path in files)


def _warn_of_left(site: str, tally: Tally) -> None:
    for reason, count in Counter(file.reason for file in tally.left).items():
        logger.warning("site %s: %d files were left for the next time: %s", site, count, reason)
