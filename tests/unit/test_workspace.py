"""Nothing partial is ever visible, and a full disk has a name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from radia import digests
from radia.errors import StorageFull
from radia.workspace import written_whole


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "table.csv"
    with written_whole(target) as partial:
        partial.write_text("a")
        assert not target.exists()
    assert target.read_text() == "a"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_what_was_there_before(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), written_whole(target) as partial:  # noqa: PT012 - what it is about
        partial.write_text("half")
        (tmp_path / "nowhere" / "x").touch()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_an_older_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    with written_whole(target) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="no room left"), written_whole(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_another_failure_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), written_whole(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_folders_digest_changes_with_a_name_or_a_byte_and_with_nothing_else(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a").write_bytes(b"1")
    assert digests.of_folder(first) == digests.of_folder(second)
    (second / "sub" / "a").write_bytes(b"2")
    assert digests.of_folder(first) != digests.of_folder(second)
    (second / "sub" / "a").write_bytes(b"1")
    (second / "sub" / "a").rename(second / "sub" / "b")
    assert digests.of_folder(first) != digests.of_folder(second)


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert digests.of_json({"a": 1, "b": [2, "é"]}) == digests.of_json({"b": [2, "é"], "a": 1})
