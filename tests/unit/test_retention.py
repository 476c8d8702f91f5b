"""Retention: what may go after its days, what never does, and the event it leaves."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from radia.intake import receipts, take_folder
from radia.ledger import open_ledger
from radia.operations.retention import DAY, plan, remove
from radia.settings import RetentionSettings
from radia.snapshot import version
from radia.workspace import Workspace
from tests.unit.test_snapshot import archived, manifest_of

NOW = 2_000_000_000.0
ALL = RetentionSettings(landing_days=30, quarantine_days=30, log_days=30, shard_days=30)


def old(path: Path, *, days: float = 31) -> Path:
    """A file that was last written so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(b"x" * 100)
    for place in (path, *([path.parent] if path.parent.name == "files" else [])):
        os.utime(place, (NOW - days * DAY, NOW - days * DAY))
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A batch that was taken in and archived, with a refused file and logs."""
    for name in ("RADIA_DATABASE", "RADIA_LEDGER_KEY", "RADIA_LEDGER_KEY_FILE", "RADIA_LEDGER_ANCHOR"):
        monkeypatch.delenv(name, raising=False)
    site = Workspace(tmp_path / "data")
    (tmp_path / "inbox" / "HND").mkdir(parents=True)
    (tmp_path / "inbox" / "HND" / "a.dcm").write_bytes(b"a film")
    (receipt,) = take_folder(tmp_path / "inbox", site.landing, today=date(2026, 1, 1))
    for file in (site.landing / receipt.batch / "files").iterdir():
        old(file)
    old(site.clean / receipt.batch / "outcomes.parquet")
    old(site.manifest / f"{receipt.batch}.parquet")
    old(site.records / f"images-{receipt.batch}.json")
    old(site.quarantine / receipt.batch / "deidentify" / "0123")
    old(site.quarantine / receipt.batch / "deidentify" / "reasons.json")
    old(site.root / "logs" / "web.log")
    return site


def names(site: Workspace, settings: RetentionSettings = ALL) -> set[str]:
    return {one.name for one in plan(site, settings, now=NOW)}


def test_nothing_goes_unless_its_days_are_set(site: Workspace) -> None:
    assert names(site, RetentionSettings()) == set()


def test_what_is_old_and_archived_may_go(site: Workspace) -> None:
    batch = "HND-20260101-1"
    assert names(site) == {f"landing/{batch}/files", f"quarantine/{batch}/deidentify/0123", "logs/web.log"}


def test_what_is_younger_stays(site: Workspace) -> None:
    assert names(site, RetentionSettings(landing_days=32, quarantine_days=32, log_days=32)) == set()


@pytest.mark.parametrize("missing", ["clean/{}/outcomes.parquet", "manifest/{}.parquet", "records/images-{}.json"])
def test_a_batch_that_is_not_archived_whole_stays(missing: str, site: Workspace) -> None:
    (site.root / missing.format("HND-20260101-1")).unlink()
    assert not [name for name in names(site) if name.startswith("landing")]


def test_a_file_that_came_lately_keeps_its_batch(site: Workspace) -> None:
    files = site.landing / "HND-20260101-1" / "files"
    old(next(files.iterdir()), days=1)
    assert f"landing/{files.parent.name}/files" not in names(site)


def test_removal_is_recorded_and_nothing_is_taken_in_again(site: Workspace, tmp_path: Path) -> None:
    ledger = open_ledger(site)
    removals = plan(site, ALL, now=NOW)
    freed = remove(site, ledger, removals, actor="anne")
    assert freed == sum(one.bytes for one in removals) == 206
    event = ledger.last("retention")
    assert event is not None
    assert event.parameters == {"landing": 1, "logs": 1, "quarantine": 1, "bytes": 206}
    assert names(site) == set()
    assert [len(receipt.files) for receipt in receipts(site.landing)] == [1]
    assert take_folder(tmp_path / "inbox", site.landing, today=date(2026, 2, 1)) == []
    assert (site.quarantine / "HND-20260101-1" / "deidentify" / "reasons.json").is_file()


def test_nothing_to_remove_leaves_no_event(site: Workspace) -> None:
    ledger = open_ledger(site)
    assert remove(site, ledger, [], actor="anne") == 0
    assert ledger.last("retention") is None


def test_shards_that_a_snapshot_names_never_go(site: Workspace) -> None:
    digest = archived(site.archive, manifest_of(20))
    version(site.archive, digest)
    cache = site.archive / ".dvc" / "cache" / "files" / "md5"
    stray = old(cache / "ff" / ("0" * 30))
    for path in cache.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            os.utime(path, (NOW - 99 * DAY, NOW - 99 * DAY))
    assert {name for name in names(site) if name.startswith("archive")} == {stray.relative_to(site.root).as_posix()}
