import hashlib
import os
import re
import shutil
import stat
import time
from datetime import date
from pathlib import Path

import pytest
import yaml

from radia import intake
from radia.errors import EmptyInbox, IntakeError, StorageFull
from radia.intake import LeftFile, receipts, site_name, take_folder
from radia.intake import landing as landing_module
from radia.settings import Settings

TODAY = date(2026, 11, 23)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Two sites, three files."""
    for name, content in {"HND/a.dcm": b"one", "HND/study 7/b.dcm": b"two", "HVD/c.dcm": b"three"}.items():
        put(tmp_path / "inbox" / name, content)
    return tmp_path / "inbox"


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    return tmp_path / "landing"


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def take(inbox: Path, landing: Path) -> list[intake.Receipt]:
    return take_folder(inbox, landing, today=TODAY)


def names(receipt: intake.Receipt) -> list[str]:
    return [file.source_name for file in receipt.files]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


class TestTakeFolder:
    def test_makes_one_batch_a_site_with_files_named_by_digest(self, inbox: Path, landing: Path) -> None:
        first, second = take(inbox, landing)
        assert (first.batch, first.site, names(first)) == ("HND-20261123-1", "HND", ["a.dcm", "study 7/b.dcm"])
        assert (second.batch, second.site, names(second)) == ("HVD-20261123-1", "HVD", ["c.dcm"])
        for receipt in (first, second):
            for file in receipt.files:
                content = (landing / receipt.batch / "files" / file.sha256).read_bytes()
                assert hashlib.sha256(content).hexdigest() == file.sha256
                assert len(content) == file.bytes

    def test_reads_the_receipts_back_as_they_were_given(self, inbox: Path, landing: Path) -> None:
        taken = take(inbox, landing)
        assert receipts(landing) == taken

    def test_leaves_the_source_where_it_is(self, inbox: Path, landing: Path) -> None:
        take(inbox, landing)
        assert (inbox / "HND" / "a.dcm").read_bytes() == b"one"

    def test_takes_nothing_twice(self, inbox: Path, landing: Path) -> None:
        take(inbox, landing)
        assert take(inbox, landing) == []
        assert visible(landing) == ["HND-20261123-1", "HVD-20261123-1"]

    def test_does_not_take_known_content_under_another_name_or_from_another_site(
        self, inbox: Path, landing: Path
    ) -> None:
        take(inbox, landing)
        put(inbox / "HVD" / "copy.dcm", b"one")
        assert take(inbox, landing) == []

    def test_takes_only_what_a_growing_study_gained_into_the_next_batch(self, inbox: Path, landing: Path) -> None:
        take(inbox, landing)
        put(inbox / "HND" / "study 7" / "late.dcm", b"four")
        (receipt,) = take(inbox, landing)
        assert (receipt.batch, names(receipt)) == ("HND-20261123-2", ["study 7/late.dcm"])

    def test_takes_a_file_again_whose_content_changed(self, inbox: Path, landing: Path) -> None:
        take(inbox, landing)
        put(inbox / "HND" / "a.dcm", b"One")
        os.utime(inbox / "HND" / "a.dcm", ns=(1, 1))
        (receipt,) = take(inbox, landing)
        assert names(receipt) == ["a.dcm"]

    def test_keeps_doubles_of_one_feed_as_one_file_with_all_names(self, inbox: Path, landing: Path) -> None:
        put(inbox / "HND" / "z.dcm", b"one")
        receipt = take(inbox, landing)[0]
        assert [(file.source_name, file.also_named) for file in receipt.files] == [
            ("a.dcm", ("z.dcm",)),
            ("study 7/b.dcm", ()),
        ]
        assert take(inbox, landing) == []

    def test_forgets_nothing_when_its_catalogue_is_lost(self, inbox: Path, landing: Path) -> None:
        take(inbox, landing)
        (landing / ".received.db").unlink()
        assert take(inbox, landing) == []

    def test_takes_a_batch_again_that_was_removed_with_its_receipt(self, inbox: Path, landing: Path) -> None:
        take(inbox, landing)
        shutil.rmtree(landing / "HVD-20261123-1")
        (receipt,) = take(inbox, landing)
        assert names(receipt) == ["c.dcm"]

    def test_is_not_part_of_the_feed_if_hidden(self, inbox: Path, landing: Path) -> None:
        put(inbox / "HND" / ".a.dcm.Xy12", b"half")
        put(inbox / "HND" / ".sync" / "state", b"x")
        assert names(take(inbox, landing)[0]) == ["a.dcm", "study 7/b.dcm"]

    def test_keeps_the_landing_zone_to_its_owner(self, inbox: Path, landing: Path) -> None:
        take(inbox, landing)
        assert stat.S_IMODE(landing.stat().st_mode) == 0o700

    def test_waits_until_a_site_is_quiet(self, inbox: Path, landing: Path) -> None:
        os.utime(inbox / "HVD" / "c.dcm", (1, 1))
        (receipt,) = take_folder(inbox, landing, today=TODAY, quiet_seconds=3600)
        assert receipt.site == "HVD"

    def test_waits_no_longer_for_a_sender_whose_clock_runs_far_ahead(self, inbox: Path, landing: Path) -> None:
        future = time.time() + 1e6
        os.utime(inbox / "HVD" / "c.dcm", (future, future))
        assert [r.site for r in take_folder(inbox, landing, today=TODAY, quiet_seconds=3600)] == ["HVD"]

    def test_tells_how_far_it_is(self, inbox: Path, landing: Path) -> None:
        seen: list[tuple[int, int]] = []
        take_folder(inbox, landing, today=TODAY, progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (3, 3)


class TestSites:
    def test_are_named_by_letters_digits_and_underscores(self) -> None:
        assert site_name("Hôpital-Nord  2") == "Hopital_Nord_2"

    def test_need_a_letter_or_digit(self) -> None:
        with pytest.raises(IntakeError, match="rename it"):
            site_name("--")

    def test_may_not_become_one(self, tmp_path: Path, landing: Path) -> None:
        put(tmp_path / "inbox" / "A B" / "1", b"1")
        put(tmp_path / "inbox" / "A-B" / "2", b"2")
        with pytest.raises(IntakeError, match="both be site 'A_B'"):
            take(tmp_path / "inbox", landing)

    def test_an_inbox_of_files_alone_is_one_site_named_after_it(self, tmp_path: Path, landing: Path) -> None:
        put(tmp_path / "North" / "1.dcm", b"1")
        (receipt,) = take(tmp_path / "North", landing)
        assert (receipt.batch, names(receipt)) == ("North-20261123-1", ["1.dcm"])

    def test_files_beside_sites_are_refused(self, inbox: Path, landing: Path) -> None:
        put(inbox / "whose.dcm", b"?")
        with pytest.raises(IntakeError, match="1 files beside 2 folders"):
            take(inbox, landing)


class TestBadInput:
    def test_an_empty_inbox_is_named(self, tmp_path: Path, landing: Path) -> None:
        (tmp_path / "inbox" / "HND").mkdir(parents=True)
        with pytest.raises(EmptyInbox, match="holds no file"):
            take(tmp_path / "inbox", landing)

    def test_a_missing_inbox_is_named(self, tmp_path: Path, landing: Path) -> None:
        with pytest.raises(EmptyInbox, match="not a folder"):
            take(tmp_path / "nowhere", landing)

    def test_a_broken_link_and_a_pipe_are_left_and_named_in_the_receipt(self, inbox: Path, landing: Path) -> None:
        (inbox / "HND" / "gone.dcm").symlink_to("/nonexistent")
        os.mkfifo(inbox / "HND" / "pipe.dcm")
        receipt = take(inbox, landing)[0]
        assert names(receipt) == ["a.dcm", "study 7/b.dcm"]
        assert receipt.left == (
            LeftFile("gone.dcm", "No such file or directory"),
            LeftFile("pipe.dcm", "it is not a regular file"),
        )

    def test_a_link_out_of_its_folder_is_left_and_one_within_it_is_taken(
        self, inbox: Path, landing: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "key").write_text("of the pseudonyms")
        (inbox / "HND" / "out.dcm").symlink_to(tmp_path / "key")
        (inbox / "HND" / "within.dcm").symlink_to("a.dcm")
        receipt = take(inbox, landing)[0]
        assert receipt.left == (LeftFile("out.dcm", "it is a link that leads out of its site's folder"),)
        assert [file.also_named for file in receipt.files if file.source_name == "a.dcm"] == [("within.dcm",)]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_read_permission_is_left(self, inbox: Path, landing: Path) -> None:
        (inbox / "HND" / "a.dcm").chmod(0)
        assert take(inbox, landing)[0].left == (LeftFile("a.dcm", "Permission denied"),)

    def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_time(
        self, inbox: Path, landing: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        status = landing_module.os.fstat
        sizes = iter(range(1000))

        def growing(handle: int) -> os.stat_result:
            return os.stat_result((*tuple(status(handle))[:6], next(sizes), *tuple(status(handle))[7:]))

        with monkeypatch.context() as during:
            during.setattr(landing_module.os, "fstat", growing)
            with pytest.raises(IntakeError, match="none of 3 files could be read"):
                take(inbox, landing)
        assert len(take(inbox, landing)) == 2

    def test_a_site_of_which_nothing_can_be_read_is_an_error(self, tmp_path: Path, landing: Path) -> None:
        (tmp_path / "inbox" / "HND").mkdir(parents=True)
        (tmp_path / "inbox" / "HND" / "gone.dcm").symlink_to("/nonexistent")
        with pytest.raises(IntakeError, match="none of 1 files could be read"):
            take(tmp_path / "inbox", landing)
        assert visible(landing) == []

    def test_a_full_disk_leaves_no_half_batch(
        self, inbox: Path, landing: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as during:
            during.setattr(Path, "replace", full)
            with pytest.raises(StorageFull, match="free some and run again"):
                take(inbox, landing)
        assert visible(landing) == []
        assert len(take(inbox, landing)) == 2

    def test_what_a_killed_intake_left_is_swept_away(self, inbox: Path, landing: Path) -> None:
        put(landing / ".partial-abc" / "HND-20261123-1" / "x", b"half")
        take(inbox, landing)
        assert not list(landing.glob(".partial-*"))

    def test_a_damaged_receipt_is_named_by_its_batch(self, inbox: Path, landing: Path) -> None:
        take(inbox, landing)
        (landing / "HVD-20261123-1" / "receipt.json").write_text("{")
        with pytest.raises(IntakeError, match="receipt of batch HVD-20261123-1"):
            receipts(landing)


class TestExample:
    def test_of_the_parameters_file_can_be_used_as_it_stands(self) -> None:
        text = (Path(__file__).resolve().parents[2] / "params.yaml").read_text()
        example = Settings.model_validate(yaml.safe_load(re.sub(r"^#(?!\s*A site)", "", text, flags=re.MULTILINE)))
        assert example.intake.receiver.senders["PACS_NORTH"] == "HND"
        assert [pacs.site for pacs in example.intake.pacs] == ["HND"]
        assert example.notify.email is not None
