"""Versions of snapshots and batches in DVC: put in, brought back, and, for an erasure, forgotten."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from radia.errors import SnapshotError
from radia.settings import quiet_dependencies
from radia.snapshot.content import load
from radia.workspace import written_whole

if TYPE_CHECKING:
    from dvc.repo import Repo

DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
    no_scm = true
[cache]
    type = hardlink,copy
"""


def version(archive: Path, digest: str) -> str:
    """Puts the snapshot and the batches of its images under DVC; returns DVC's md5 of the snapshot's folder.

    The archive becomes a DVC repository of its own on first use, inside another repository or not. Versioned files turn
    into read-only hard links into the cache: replace them whole, never write into them. Raises SnapshotError.
    """
    snapshot = load(archive / "snapshots", digest)
    batches = {batch: archive / "images" / batch for batch in snapshot.batches}
    for batch, folder in batches.items():
        if not folder.is_dir():
            raise SnapshotError(f"snapshot {digest[:12]} needs batch {batch}, which is not in the archive")
    with _repository(archive) as repository:
        folders = [snapshot.folder, *batches.values()]
        unknown = [str(folder) for folder in folders if _recorded_md5(repository, folder) is None]
        if unknown:
            repository.add(unknown)
        md5 = _recorded_md5(repository, snapshot.folder)
    if md5 is None:
        raise SnapshotError(f"snapshot {digest[:12]} changed while it was versioned: run again")
    _pin(_record_of(snapshot.folder), {batch: _record_of(folder) for batch, folder in batches.items()})
    return md5


def note_anchor(archive: Path, digest: str, anchor: str) -> None:
    """Keeps a place of the ledger's chain in the snapshot's record, where it travels with the data; the first stays.

    Whoever holds a copy of the archive can show by it that the ledger's tail was cut. Raises SnapshotError.
    """
    record = _record_of(archive / "snapshots" / digest)
    if not record.is_file():
        raise SnapshotError(f"snapshot {digest[:12]} was never versioned in this archive")
    noted = _content_of(record)
    meta = noted.get("meta") or {}
    if "ledger" not in meta:
        noted["meta"] = {**meta, "ledger": anchor}
        with written_whole(record) as partial:
            partial.write_text(yaml.safe_dump(noted, sort_keys=False), encoding="utf-8")


def anchors(archive: Path) -> dict[str, str]:
    """Snapshot -> the place of the ledger's chain that its record keeps, where it keeps one. Raises SnapshotError."""
    found = {}
    for record in sorted((archive / "snapshots").glob("*.dvc")):
        meta = _content_of(record).get("meta")
        if isinstance(meta, dict) and "ledger" in meta:
            found[record.stem] = str(meta["ledger"])
    return found


def named_objects(archive: Path, digest: str) -> list[str] | None:
    """DVC's objects that a snapshot's record names: its own listing first, then those of the batches it was made from.

    None for one that was never versioned here. Raises SnapshotError.
    """
    record = _record_of(archive / "snapshots" / digest)
    if not record.is_file():
        return None
    noted = _content_of(record)
    try:
        batches = ((noted.get("meta") or {}).get("batches") or {}).values()
        return [str(out["md5"]) for out in (*noted["outs"], *batches)]
    except (AttributeError, KeyError, TypeError) as error:
        raise SnapshotError(f"DVC's record {record.name} is damaged") from error


def _content_of(record: Path) -> dict[str, Any]:
    try:
        noted = yaml.safe_load(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SnapshotError(f"DVC's record {record.name} is damaged") from error
    if not isinstance(noted, dict):
        raise SnapshotError(f"DVC's record {record.name} is damaged")
    return noted


def restore(archive: Path, digest: str, target: Path | None = None) -> None:
    """Brings back the exact files of a versioned snapshot, and its batches as they were then. Raises SnapshotError.

    target: another folder, which becomes an archive of its own that shares DVC's cache; None: the archive itself.
    """
    kept = _record_of(archive / "snapshots" / digest)
    if not kept.is_file():
        raise SnapshotError(f"snapshot {digest[:12]} was never versioned in this archive")
    place = archive if target is None else target
    record = _record_of(place / "snapshots" / digest)
    if target is not None:
        with written_whole(record) as partial:
            partial.write_bytes(kept.read_bytes())
    with _repository(place, shared=archive) as repository:
        _check_out(repository, [record], digest)
        _check_out(repository, _unpin(record, place / "images"), digest)
    load(place / "snapshots", digest)


def _check_out(repository: Repo, records: list[Path], digest: str) -> None:
    """Puts versioned files in place; what the cache lacks is fetched from DVC's remote where there is one."""
    from dvc.exceptions import CheckoutError, DvcException

    targets = [str(path) for path in records]
    try:
        try:
            repository.checkout(targets, force=True)
            return
        except CheckoutError:
            if (remote := repository.config["core"].get("remote")) is None:
                raise
    except DvcException as error:
        raise SnapshotError(
            f"snapshot {digest[:12]} cannot be restored: DVC's cache lacks a part of it, and no remote is set up "
            f"({type(error).__name__})"
        ) from error
    try:
        repository.fetch(targets)
        repository.checkout(targets, force=True)
    except (DvcException, OSError) as error:  # a remote's own errors: no such folder, no network, no right
        raise SnapshotError(
            f"snapshot {digest[:12]} cannot be restored: DVC's cache lacks a part of it, and the remote {remote} "
            f"does not answer or lacks it too ({type(error).__name__})"
        ) from error


def forget_versions(archive: Path, batch: str) -> int:
    """Makes the batch as it is now its only version, and removes from DVC's cache what no record names any more.

    For an erasure: every snapshot's record then points to the batch without what was erased. A call that was killed is
    finished by the next one. A batch that was never versioned has nothing to forget. Returns how many objects were
    removed. Raises SnapshotError.
    """
    if not _record_of(archive / "images" / batch).is_file():
        return 0
    with _repository(archive) as repository:
        repository.add([str(archive / "images" / batch)])
        now = _out_of(_record_of(archive / "images" / batch))
        with repository.lock:
            for record in sorted((archive / "snapshots").glob("*.dvc")):
                noted = yaml.safe_load(record.read_text(encoding="utf-8"))
                pinned = (noted.get("meta") or {}).get("batches") or {}
                if pinned.get(batch, now) != now:
                    pinned[batch] = now
                    with written_whole(record) as partial:
                        partial.write_text(yaml.safe_dump(noted, sort_keys=False), encoding="utf-8")
            return _sweep(archive)


def _sweep(archive: Path) -> int:
    """Removes what `unnamed_objects` finds. Under DVC's lock."""
    unnamed = unnamed_objects(archive)
    for path in unnamed:
        path.unlink()
    return len(unnamed)


def unnamed_objects(archive: Path) -> list[Path]:
    """The objects of DVC's cache that no record of a batch or snapshot names, nor pins. Raises SnapshotError.

    `dvc gc` knows only what lies in the workspace now, not what older snapshots pin.
    """
    cache = archive / ".dvc" / "cache" / "files" / "md5"
    named: set[str] = set()
    for record in [*(archive / "snapshots").glob("*.dvc"), *(archive / "images").glob("*.dvc")]:
        noted = yaml.safe_load(record.read_text(encoding="utf-8"))
        for out in [*noted["outs"], *((noted.get("meta") or {}).get("batches") or {}).values()]:
            listing = cache / out["md5"][:2] / out["md5"][2:]
            if not listing.is_file():
                raise SnapshotError(f"DVC's cache lacks {out['md5']}, which {record.name} names: nothing was removed")
            named |= {out["md5"], *(entry["md5"] for entry in json.loads(listing.read_text(encoding="utf-8")))}
    return [path for path in cache.glob("??/*") if path.parent.name + path.name not in named]


def _out_of(record: Path) -> dict[str, Any]:
    out: dict[str, Any] = yaml.safe_load(record.read_text(encoding="utf-8"))["outs"][0]
    return out


def _record_of(folder: Path) -> Path:
    """DVC's record beside a versioned folder."""
    return folder.with_name(f"{folder.name}.dvc")


def _pin(record: Path, batches: dict[str, Path]) -> None:
    """Notes in a snapshot's record which version of each batch it was made from: a batch may be made anew later."""
    noted = yaml.safe_load(record.read_text(encoding="utf-8"))
    pinned = (noted.get("meta") or {}).get("batches") or {}
    missing = {batch: path for batch, path in batches.items() if batch not in pinned}
    if not missing:
        return
    for batch, path in missing.items():
        pinned[batch] = _out_of(path)
    noted["meta"] = {**(noted.get("meta") or {}), "batches": pinned}
    with written_whole(record) as partial:
        partial.write_text(yaml.safe_dump(noted, sort_keys=False), encoding="utf-8")


def _unpin(record: Path, images: Path) -> list[Path]:
    """The records of a snapshot's batches, put back to the versions that it was made from."""
    pinned = yaml.safe_load(record.read_text(encoding="utf-8"))["meta"]["batches"]
    records = []
    for batch, out in pinned.items():
        path = _record_of(images / batch)
        current = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if current.get("outs") != [out]:
            with written_whole(path) as partial:
                partial.write_text(yaml.safe_dump({"outs": [out]}, sort_keys=False), encoding="utf-8")
        records.append(path)
    return records


def _recorded_md5(repository: Repo, folder: Path) -> str | None:
    """DVC's md5 of a folder that is versioned and unchanged since; None where it must be added."""
    record = _record_of(folder).resolve()
    if not record.is_file():
        return None
    with repository.lock:
        (out,) = repository.stage.load_one(str(record)).outs
        unchanged = not out.status() and not out.changed_cache()
    return str(out.hash_info.value) if unchanged else None


@contextmanager
def _repository(archive: Path, shared: Path | None = None) -> Iterator[Repo]:
    """The archive as a DVC repository, made on first use; waits while another process works in it.

    shared: another archive whose cache and remotes it uses, for one that is made from it.
    """
    quiet_dependencies()
    from dvc.repo import Repo

    root = archive.resolve()
    if not (root / ".dvc").is_dir():
        with written_whole(root / ".dvc") as partial:
            partial.mkdir()
            (partial / "config").write_text(DVC_CONFIG, encoding="utf-8")
    own_state: dict[str, Any] = {"core": {"site_cache_dir": str(root / ".dvc" / "tmp" / "site")}}  # else in /var/tmp
    if shared is not None and shared.resolve() != root:
        own_state["cache"] = {"dir": str((shared / ".dvc" / "cache").resolve())}
        with _repository(shared) as other:
            remote = other.config["core"].get("remote")
            own_state["core"] |= {"remote": remote} if remote else {}
            own_state["remote"] = dict(other.config["remote"])
    log = logging.getLogger("dvc")
    level = log.level
    log.setLevel(logging.CRITICAL)  # DVC speaks and draws bars through it; its errors reach us as exceptions
    try:
        with Repo(str(root), config=own_state, _wait_for_lock=True) as repository:
            yield repository
    finally:
        log.setLevel(level)
