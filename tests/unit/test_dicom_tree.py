"""Whole trees: the account, doubles, what goes wrong on the way, keys, and the way back."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from radia.dicom import deidentify
from radia.dicom.crosswalk import Crosswalk
from radia.dicom.deidentify import COLUMNS, deidentify_tree
from radia.dicom.pseudonyms import Pseudonymizer, load_key
from radia.errors import KeyFileError, Reason, StorageFull, UnknownId
from radia.settings import DeidentifySettings
from tests.spec.hard_files import Person, build, leaked

KEY = bytes(range(32))
SETTINGS = DeidentifySettings(clean_pixels=False, workers=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(3):
        name = Person.invented(seed).last
        (folder / f"{name}_{seed}.dcm").write_bytes(build(["plain"], "explicit", seed)[0])
    return folder


def clean(source: Path, target: Path, **more: object) -> pd.DataFrame:
    return deidentify_tree(source, target, **{"key": KEY, "settings": SETTINGS, **more})  # type: ignore[arg-type]


def files(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*.dcm"))}


class TestTheAccount:
    def test_has_a_row_a_file_and_no_identifier(self, source: Path, tmp_path: Path) -> None:
        outcomes = clean(source, tmp_path / "out")
        assert list(outcomes.columns) == list(COLUMNS)
        assert set(outcomes.outcome) == {"clean"}
        assert set(outcomes.output) == set(files(tmp_path / "out"))
        digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in source.iterdir()}
        assert set(outcomes.source_sha256) == digests
        whole = b"".join(p.read_bytes() + p.name.encode() for p in (tmp_path / "out").rglob("*") if p.is_file())
        for seed in range(3):
            assert leaked(whole, Person.invented(seed).secrets) == []

    def test_is_the_one_that_is_kept(self, source: Path, tmp_path: Path) -> None:
        outcomes = clean(source, tmp_path / "out")
        kept = pd.read_parquet(tmp_path / "out" / "outcomes.parquet")
        assert kept.drop(columns="boxes").equals(outcomes.drop(columns="boxes"))
        assert outcomes.key_fingerprint.unique().tolist() == [Pseudonymizer(KEY).fingerprint]

    def test_names_the_reason_of_each_refusal(self, source: Path, tmp_path: Path) -> None:
        whole = build(["plain"], "explicit", 9)[0]
        (source / "empty.dcm").write_bytes(b"")
        (source / "notes.txt").write_text("à faire " * 50)
        (source / "cut.dcm").write_bytes(whole[:-500])
        (source / "video.dcm").write_bytes(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
        outcomes = clean(source, tmp_path / "out")
        reasons = set(outcomes[outcomes.outcome == "refused"].reason)
        assert reasons == {Reason.EMPTY_FILE, Reason.NOT_DICOM, Reason.TRUNCATED, Reason.UNSUPPORTED_SYNTAX}

    def test_is_the_same_over_processes_in_any_order(self, source: Path, tmp_path: Path) -> None:
        for seed in range(3, 9):
            (source / f"{9 - seed}.dcm").write_bytes(build(["references"], "rle", seed)[0])
        alone = clean(source, tmp_path / "one")
        together = clean(source, tmp_path / "two", settings=SETTINGS.model_copy(update={"workers": 2}))
        assert alone.equals(together)
        assert files(tmp_path / "one") == files(tmp_path / "two")

    def test_tells_how_far_it_is(self, source: Path, tmp_path: Path) -> None:
        told: list[tuple[int, int]] = []
        clean(source, tmp_path / "out", progress=lambda done, total: told.append((done, total)))
        assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]

    def test_of_a_file_that_nobody_thought_of_quotes_nothing_of_it(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = deidentify.Engine.deidentify_file

        def odd(engine: deidentify.Engine, raw: bytes, digest: str) -> deidentify.CleanFile:
            if raw == b"odd":
                raise ValueError("PatientName is Tremblay")
            return real(engine, raw, digest)

        (source / "odd.dcm").write_bytes(b"odd")
        monkeypatch.setattr(deidentify.Engine, "deidentify_file", odd)
        outcomes = clean(source, tmp_path / "out")
        row = outcomes[outcomes.outcome == "refused"].iloc[0]
        assert (row.reason, row.detail) == (Reason.UNREADABLE, "ValueError")
        assert (outcomes.outcome == "clean").sum() == 3

    def test_of_files_that_cannot_be_opened_says_so(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Path.read_bytes

        def locked(path: Path) -> bytes:
            if path.parent == source and path.name.endswith(("_0.dcm", "_1.dcm")):
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(Path, "read_bytes", locked)
        outcomes = clean(source, tmp_path / "out")
        assert sorted(outcomes.detail) == ["", *["the file cannot be opened: EACCES"] * 2]

    def test_of_a_file_without_a_patient_says_so(self, source: Path, tmp_path: Path) -> None:
        for number, blank in enumerate((b"       \0", b"\0" * 8)):
            person = Person.invented(20 + number)
            raw = build(["plain"], "explicit", 20 + number)[0]
            record = person.record.encode() + b" "
            (source / f"n{number}.dcm").write_bytes(raw.replace(b"LO\x08\0" + record, b"LO\x08\0" + blank))
        outcomes = clean(source, tmp_path / "out")
        assert set(outcomes[outcomes.outcome == "refused"].reason) == {Reason.NO_PATIENT}
        assert (outcomes.outcome == "refused").sum() == 2

    def test_holds_all_that_an_auditor_asks_for(self, source: Path, tmp_path: Path) -> None:
        from radia.dicom.profile import Profile, table_sha256

        row = clean(source, tmp_path / "out").iloc[0]
        actions = json.loads(row.actions)
        assert actions["00100010"] == actions["00100020"] == "D"
        assert actions["00101002"] == "X"
        assert set(actions.values()) <= {"X", "Z", "D", "K", "C", "U"}
        assert row.table_sha256 == table_sha256()
        assert row.profile == Profile(SETTINGS).name
        assert list(row.boxes) == []


class TestDoubles:
    def test_of_the_same_bytes_are_cleaned_once(self, source: Path, tmp_path: Path) -> None:
        (source / "again.dcm").write_bytes(next(source.iterdir()).read_bytes())
        outcomes = clean(source, tmp_path / "out")
        assert outcomes.outcome.value_counts().to_dict() == {"clean": 3, "refused": 1}
        assert set(outcomes.reason) == {"", Reason.DUPLICATE}

    def test_of_one_instance_with_other_content_are_both_refused(self, source: Path, tmp_path: Path) -> None:
        raw = build(["plain"], "explicit", 0)[0]
        (source / "other.dcm").write_bytes(raw.replace(b"045Y", b"046Y"))
        outcomes = clean(source, tmp_path / "out")
        refused = outcomes[outcomes.outcome == "refused"]
        assert len(refused) == 2
        assert set(refused.reason) == {Reason.DUPLICATE}
        assert len(files(tmp_path / "out")) == 2

    def test_that_come_later_take_the_earlier_one_with_them(self, source: Path, tmp_path: Path) -> None:
        clean(source, tmp_path / "out")
        later = tmp_path / "later"
        later.mkdir()
        (later / "other.dcm").write_bytes(build(["plain"], "explicit", 0)[0].replace(b"045Y", b"046Y"))
        outcomes = clean(later, tmp_path / "out")
        assert outcomes.outcome.value_counts().to_dict() == {"clean": 2, "refused": 2}


class TestGoingOn:
    def test_a_second_time_does_nothing(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = clean(source, tmp_path / "out")
        monkeypatch.setattr(deidentify.Engine, "deidentify_file", None)
        assert clean(source, tmp_path / "out").equals(first)

    def test_after_a_kill_ends_in_the_same_files(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = clean(source, tmp_path / "whole")
        real, calls = deidentify._Cleaning.__call__, []

        def killed(cleaning: deidentify._Cleaning, path: Path) -> deidentify.Done:
            calls.append(path)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(cleaning, path)

        monkeypatch.setattr(deidentify._Cleaning, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            clean(source, tmp_path / "out")
        assert len(files(tmp_path / "out")) == 1
        monkeypatch.setattr(deidentify._Cleaning, "__call__", real)
        assert clean(source, tmp_path / "out").equals(whole)
        assert files(tmp_path / "out") == files(tmp_path / "whole")

    def test_shows_no_image_that_was_cut_short(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cut(path: Path, pieces: list[bytes]) -> None:
            path.write_bytes(bytes(pieces[0]))
            raise KeyboardInterrupt

        real = deidentify._written
        monkeypatch.setattr(deidentify, "_written", cut)
        with pytest.raises(KeyboardInterrupt):
            clean(source, tmp_path / "out")
        monkeypatch.setattr(deidentify, "_written", real)
        assert files(tmp_path / "out") == {}
        assert not (tmp_path / "out" / "outcomes.parquet").exists()
        for path in source.iterdir():
            path.write_bytes(path.read_bytes().replace(b"045Y", b"046Y"))  # so that nobody finishes what was begun
        clean(source, tmp_path / "out")
        left = {path.name for path in (tmp_path / "out").iterdir() if not path.is_dir()}
        assert left == {"outcomes.parquet", "key-fingerprint.txt"}

    def test_with_other_options_does_everything_again(self, source: Path, tmp_path: Path) -> None:
        clean(source, tmp_path / "out")
        again = clean(source, tmp_path / "out", settings=SETTINGS.model_copy(update={"retain_modified_dates": False}))
        assert not again.profile.str.contains("retain_modified_dates").any()

    def test_names_a_full_disk(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise StorageFull("no room")

        monkeypatch.setattr(deidentify, "_written", full)
        with pytest.raises(StorageFull):
            clean(source, tmp_path / "out")
        assert files(tmp_path / "out") == {}


class TestTheKey:
    def test_of_another_archive_is_refused_with_both_fingerprints(self, source: Path, tmp_path: Path) -> None:
        clean(source, tmp_path / "out")
        other = bytes(32)
        with pytest.raises(KeyFileError) as refused:
            clean(source, tmp_path / "out", key=other)
        assert Pseudonymizer(KEY).fingerprint in str(refused.value)
        assert Pseudonymizer(other).fingerprint in str(refused.value)

    def test_is_made_for_its_owner_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RADIA_KEY", raising=False)
        path = tmp_path / "keys" / "a.key"
        key = load_key(path, create=True)
        assert path.stat().st_mode & 0o777 == 0o600
        assert load_key(path) == key

    @pytest.mark.parametrize(
        ("content", "mode", "said"),
        [("ab" * 32, 0o644, "chmod 600"), ("ab" * 31, 0o600, "31 bytes"), ("clé", 0o600, "64 hex digits")],
    )
    def test_that_is_no_key_or_open_to_others_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, mode: int, said: str
    ) -> None:
        monkeypatch.delenv("RADIA_KEY", raising=False)
        path = tmp_path / "a.key"
        path.write_text(content)
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=said):
            load_key(path)

    def test_that_is_missing_says_how_to_make_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RADIA_KEY", raising=False)
        with pytest.raises(KeyFileError, match="openssl rand"):
            load_key(tmp_path / "none.key")

    def test_of_the_environment_goes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RADIA_KEY", "cd" * 32)
        assert load_key(tmp_path / "none.key") == bytes.fromhex("cd" * 32)


class TestTheWayBack:
    def test_is_open_to_the_holder_of_the_key(self, source: Path, tmp_path: Path) -> None:
        path = tmp_path / "keys" / "crosswalk"
        outcomes = clean(source, tmp_path / "out", crosswalk=path)
        person = Person.invented(0)
        row = outcomes[outcomes.image == Pseudonymizer(KEY).image(person.instance)].iloc[0]
        for pseudonym in (row.patient, row.study, row["image"], row.accession):
            assert [origin.patient_id for origin in Crosswalk(path, KEY).origins(pseudonym)] == [person.record]
        assert path.stat().st_mode & 0o777 == 0o600

    def test_is_closed_to_everybody_else(self, source: Path, tmp_path: Path) -> None:
        path = tmp_path / "crosswalk"
        outcomes = clean(source, tmp_path / "out", crosswalk=path)
        for seed in range(3):
            assert leaked(path.read_bytes(), Person.invented(seed).secrets) == []
        with pytest.raises(KeyFileError):
            Crosswalk(path, bytes(32)).origins(outcomes.patient[0])

    def test_knows_no_pseudonym_that_it_never_gave(self, source: Path, tmp_path: Path) -> None:
        path = tmp_path / "crosswalk"
        clean(source, tmp_path / "out", crosswalk=path)
        with pytest.raises(UnknownId):
            Crosswalk(path, KEY).origins("PZZZZZZZZZZZZZZZZ")


def test_a_bad_file_costs_itself_and_no_other_over_processes(source: Path, tmp_path: Path) -> None:
    for seed in range(3, 7):
        (source / f"{seed}.dcm").write_bytes(build(["plain"], "explicit", seed)[0])
    (source / "bad.dcm").write_bytes(b"no image")
    outcomes = clean(source, tmp_path / "out", settings=SETTINGS.model_copy(update={"workers": 2}))
    assert outcomes.outcome.value_counts().to_dict() == {"clean": 7, "refused": 1}


class Crashing(deidentify._Cleaning):
    """Ends its process at a file that says so, as a decoder that crashes does."""

    def __call__(self, path: Path) -> deidentify.Done:
        if path.name == "crash.dcm":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(path)


def test_a_file_that_ends_its_process_is_refused_and_the_others_are_clean(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "crash.dcm").write_bytes(b"of which a decoder dies")
    monkeypatch.setattr(deidentify, "_Cleaning", Crashing)
    outcomes = clean(source, tmp_path / "out", settings=SETTINGS.model_copy(update={"workers": 2}))
    digest = hashlib.sha256(b"of which a decoder dies").hexdigest()
    assert outcomes.set_index("source_sha256").reason.to_dict() == {
        **dict.fromkeys(outcomes.source_sha256, ""),
        digest: "the process that had it ended twice: a decoder crashed, or memory ran out",
    }


def test_a_target_inside_the_source_is_not_read_as_source(source: Path, tmp_path: Path) -> None:
    target = source / "out"
    first = clean(source, target)
    assert len(clean(source, target)) == len(first)
