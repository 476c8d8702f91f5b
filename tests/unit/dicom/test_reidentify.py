"""The way back from a pseudonym: with the key, on the record, and in no other way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from radia.cli import main
from radia.dicom.crosswalk import Crosswalk, Origin
from radia.dicom.pseudonyms import Pseudonymizer
from radia.errors import KeyFileError, UnknownId
from radia.ledger import open_ledger
from radia.workspace import Workspace
from tests.spec.hard_files import Person, build, leaked

KEY = bytes(range(32))
PERSON = Person.invented(0)


@dataclass(frozen=True)
class Desk:
    """A folder of clean files with its crosswalk, and a command line."""

    folder: Path
    runner: CliRunner

    def run(self, *arguments: str) -> Result:
        return self.runner.invoke(main, list(arguments))

    def ask(self, pseudonym: str, *more: str, key: str = "a.key") -> Result:
        return self.run("reidentify", pseudonym, "--key", key, "--crosswalk", "crosswalk", *more, "--json")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.delenv("RADIA_KEY", raising=False)
    monkeypatch.setenv("RADIA_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.dcm").write_bytes(build(["plain"], "explicit", 0)[0])
    for name, key in (("a.key", KEY), ("b.key", bytes(32))):
        Path(name).write_text(key.hex())
        Path(name).chmod(0o600)
    Path("params.yaml").write_text("deidentify: {clean_pixels: false}\n")
    desk = Desk(tmp_path, CliRunner())
    done = desk.run("deidentify", "in", "out", "--key", "a.key", "--crosswalk", "crosswalk")
    assert done.exit_code == 0, done.stderr
    return desk


NAMES = Pseudonymizer(KEY)
PSEUDONYMS = {
    "patient": NAMES.patient(PERSON.record),
    "study": NAMES.study(PERSON.study),
    "image": NAMES.image(PERSON.instance),
    "accession": NAMES.accession(PERSON.accession),
}


@pytest.mark.parametrize("what", PSEUDONYMS)
def test_the_holder_of_the_key_learns_what_a_pseudonym_stands_for(desk: Desk, what: str) -> None:
    asked = desk.ask(PSEUDONYMS[what])
    assert asked.exit_code == 0, asked.stderr
    (origin,) = json.loads(asked.stdout)["origins"]
    assert origin["patient_id"] == PERSON.record
    assert origin["accession"] == PERSON.accession


def test_the_ledger_knows_who_asked_and_nothing_of_the_answer(desk: Desk) -> None:
    desk.ask(PSEUDONYMS["patient"], "--person", "Dre Hamelin", "--reason", "rappel")
    with_site = Workspace(desk.folder / "data")
    event = open_ledger(with_site, read_only=True).last("reidentify", term=PSEUDONYMS["patient"])
    assert event is not None
    assert event.parameters["person"] == "Dre Hamelin"
    assert event.parameters["reason"] == "rappel"
    assert event.parameters["key"] == NAMES.fingerprint
    whole = b"".join(path.read_bytes() for path in (desk.folder / "data").rglob("*") if path.is_file())
    assert leaked(whole, PERSON.secrets) == []


def test_another_key_opens_nothing_and_leaves_no_record(desk: Desk) -> None:
    asked = desk.ask(PSEUDONYMS["patient"], key="b.key")
    assert asked.exit_code == 1
    assert asked.stdout == ""
    assert "another key" in asked.stderr
    assert leaked(asked.stderr.encode(), PERSON.secrets) == []
    assert open_ledger(Workspace(desk.folder / "data")).last("reidentify") is None


def test_without_a_key_nothing_is_asked(desk: Desk) -> None:
    assert desk.run("reidentify", PSEUDONYMS["patient"], "--crosswalk", "crosswalk").exit_code == 2


def test_what_is_no_pseudonym_is_not_repeated(desk: Desk) -> None:
    asked = desk.ask(PERSON.record)
    assert asked.exit_code == 1
    assert PERSON.record not in asked.stderr


def test_a_site_without_a_crosswalk_says_so(desk: Desk) -> None:
    asked = desk.run("reidentify", PSEUDONYMS["patient"], "--key", "a.key")
    assert asked.exit_code == 1
    assert "no crosswalk" in asked.stderr


def test_who_is_forgotten_cannot_be_found_again(tmp_path: Path) -> None:
    walk = Crosswalk(tmp_path / "crosswalk", KEY)
    origins = [Origin(number, "", f"A{number}", f"1.{number}", f"2.{number}") for number in ("11", "22")]
    walk.append(map(walk.seal, origins))
    assert walk.forget(NAMES.patient("11")) == 1
    with pytest.raises(UnknownId):
        walk.origins(NAMES.patient("11"))
    assert walk.origins(NAMES.patient("22")) == [origins[1]]
    assert walk.path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site that took in and cleaned one file."""
    from radia import steps

    monkeypatch.delenv("RADIA_KEY", raising=False)
    monkeypatch.setenv("RADIA_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "params.yaml").write_text("deidentify: {clean_pixels: false, workers: 1}\n")
    (tmp_path / "inbox" / "HVD").mkdir(parents=True)
    (tmp_path / "inbox" / "HVD" / "a.dcm").write_bytes(build(["plain"], "explicit", 0)[0])
    run = steps.open_run()
    steps.intake(run, tmp_path / "inbox")
    steps.deidentify(run)
    return tmp_path


def test_a_site_keeps_its_crosswalk_in_the_landing_zone(site: Path) -> None:
    key = str(site / "data" / "keys" / "pseudonyms.key")
    pseudonym = Pseudonymizer(bytes.fromhex(Path(key).read_text().strip())).patient(PERSON.record)
    asked = CliRunner().invoke(main, ["reidentify", pseudonym, "--key", key, "--json"])
    assert asked.exit_code == 0, asked.stderr
    assert json.loads(asked.stdout)["origins"][0]["patient_id"] == PERSON.record
    assert (site / "data" / "landing" / "crosswalk").stat().st_mode & 0o777 == 0o600


def test_a_site_that_changed_its_key_is_refused_with_both_fingerprints(site: Path) -> None:
    from radia import steps

    key = site / "data" / "keys" / "pseudonyms.key"
    before = Pseudonymizer(bytes.fromhex(key.read_text().strip())).fingerprint
    key.write_text(bytes(32).hex())
    (site / "inbox" / "HVD" / "b.dcm").write_bytes(build(["plain"], "explicit", 1)[0])
    run = steps.open_run()
    steps.intake(run, site / "inbox")
    with pytest.raises(KeyFileError, match=rf"{before}.*{Pseudonymizer(bytes(32)).fingerprint}"):
        steps.deidentify(run)
    assert len(list((site / "data" / "clean").rglob("*.dcm"))) == 1
