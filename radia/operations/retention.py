"""What a site need not keep for ever: which files may go after how many days, and letting them go.

Only what nothing needs goes: files of landing batches that are archived in clean form (receipts stay, so nothing is
taken twice), quarantined files (their reasons stay), logs that nobody writes any more, and versions of shards in DVC's
cache that no snapshot names. Snapshots, and what they name, never go. Nothing goes unless its days are set and it is
asked for; each time leaves an event in the ledger.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from radia import digests
from radia.intake import FILES, receipts
from radia.ledger import Action, Ledger
from radia.settings import RetentionSettings
from radia.workspace import Workspace

DAY = 86_400.0


@dataclass(frozen=True)
class Removal:
    """Something that may go: of which rule, its path in the data folder, its bytes."""

    rule: str
    name: str
    bytes: int


def plan(site: Workspace, settings: RetentionSettings, *, now: float | None = None) -> list[Removal]:
    """What the rules let go, in a stable order. Nothing is changed."""
    moment = time.time() if now is None else now
    rules: list[tuple[str, int | None, Callable[[Workspace], Iterator[Path]]]] = [
        ("landing", settings.landing_days, _archived_batches),
        ("quarantine", settings.quarantine_days, _quarantined),
        ("logs", settings.log_days, _logs),
        ("shards", settings.shard_days, _unnamed_shards),
    ]
    found = []
    for rule, days, candidates in rules:
        if days is not None:
            old = [path for path in candidates(site) if moment - _newest(path) >= days * DAY]
            found += [Removal(rule, path.relative_to(site.root).as_posix(), _bytes(path)) for path in sorted(old)]
    return found


def remove(site: Workspace, ledger: Ledger, removals: list[Removal], *, actor: str) -> int:
    """Removes what `plan` named, and records it. The bytes that were freed.

    The event is written first: what a killed call left is in the next plan again, and was said to go.
    """
    if not removals:
        return 0
    names = [one.name for one in removals]
    counts = {rule: sum(one.rule == rule for one in removals) for rule in sorted({one.rule for one in removals})}
    freed = sum(one.bytes for one in removals)
    ledger.append(
        Action.RETENTION,
        actor=actor,
        inputs={"removed": digests.of_json(names)},
        parameters={**counts, "bytes": freed},
        once=digests.of_json(["retention", names]),
    )
    for one in removals:
        path = site.root / one.name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return freed


def _archived_batches(site: Workspace) -> Iterator[Path]:
    """The files of batches whose clean form, images and manifest rows are there; the receipt is no part of it."""
    for receipt in receipts(site.landing):
        done = (
            (site.clean / receipt.batch / "outcomes.parquet").is_file()
            and (site.manifest / f"{receipt.batch}.parquet").is_file()
            and (site.records / f"images-{receipt.batch}.json").is_file()
        )
        files = site.landing / receipt.batch / FILES
        if done and files.is_dir() and any(files.iterdir()):
            yield files


def _quarantined(site: Workspace) -> Iterator[Path]:
    """Refused files; reasons.json beside them stays."""
    for reasons in site.quarantine.rglob("reasons.json"):
        yield from (path for path in reasons.parent.iterdir() if path.is_file() and path != reasons)


def _logs(site: Workspace) -> Iterator[Path]:
    """Logs of `radia up`, and what Dagster kept of the output of runs."""
    for folder in (site.root / "logs", site.dagster_home / "logs", site.dagster_home / "storage"):
        if folder.is_dir():
            yield from (path for path in folder.rglob("*") if path.suffix in (".log", ".out", ".err"))


def _unnamed_shards(site: Workspace) -> Iterator[Path]:
    from radia.snapshot.versions import unnamed_objects

    if (site.archive / ".dvc").is_dir():
        yield from unnamed_objects(site.archive)


def _newest(path: Path) -> float:
    if path.is_file():
        return path.stat().st_mtime
    return max((one.lstat().st_mtime for one in path.rglob("*")), default=path.stat().st_mtime)


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)
