"""Who used which information: the log that is drawn from the ledger."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from radia.access import KINDS, to_csv, uses
from radia.cli import main
from radia.dicom.pseudonyms import Pseudonymizer
from radia.errors import UnknownId
from radia.ledger import Action, Ledger, open_ledger
from radia.trace import names_of_patient
from radia.workspace import Workspace

KEY = bytes(range(32))


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    site = Workspace(tmp_path)
    rows = pd.DataFrame({"image": ["I1", "I2", "I3"], "study": ["S1", "S1", "S2"], "patient": ["P1", "P1", "P2"]})
    site.manifest.mkdir()
    rows.assign(site="HND", batch="HND-1", source_sha256="a" * 64).to_parquet(site.manifest / "HND-1.parquet")
    return site


@pytest.fixture
def ledger(site: Workspace) -> Ledger:
    ledger = open_ledger(site)
    ledger.append("intake", actor="radia", outputs={"HND-1": "1" * 64})
    ledger.append("exported", actor="radia", subjects=["S1"], parameters={"what": "reading sheet", "reader": "Dr Roy"})
    ledger.append("accessed", actor="Dre Côté", subjects=["I3"], parameters={"screen": "review"})
    ledger.append("reidentify", actor="radia", subjects=["P1"], parameters={"person": "Dr Roy", "reason": "recall"})
    ledger.append("snapshot", actor="radia", outputs={"snapshot": "5" * 64})
    ledger.append("accessed", actor="Dr Roy", subjects=["P2"])
    return ledger


def test_says_who_when_and_what_in_dicom_s_words(ledger: Ledger) -> None:
    found = list(uses(ledger))
    assert [(use.event, use.person, use.account, use.code, use.kind) for use in found] == [
        (1, "radia", "radia", "110104", "DICOM Instances Transferred"),
        (2, "Dr Roy", "radia", "110106", "Export"),
        (3, "Dre Côté", "Dre Côté", "110103", "DICOM Instances Accessed"),
        (4, "Dr Roy", "radia", "110110", "Patient Record"),
        (6, "Dr Roy", "Dr Roy", "110103", "DICOM Instances Accessed"),
    ]
    assert [use.about for use in found] == [("HND-1",), ("S1",), ("I3",), ("P1",), ("P2",)]
    assert [use.purpose for use in found] == ["", "reading sheet", "review", "recall", ""]


def test_of_a_patient_holds_what_was_done_with_studies_images_and_batches(site: Workspace, ledger: Ledger) -> None:
    names = names_of_patient(site, ledger, "P1")
    assert names[0] == "P1"
    assert sorted(names) == ["HND-1", "I1", "I2", "P1", "S1"]
    assert [use.event for use in uses(ledger, about=names)] == [1, 2, 4]


def test_of_a_person_holds_what_was_done_on_their_word(ledger: Ledger) -> None:
    assert [use.event for use in uses(ledger, person="Dr Roy")] == [2, 4, 6]
    assert [use.event for use in uses(ledger, person="radia")] == [1, 2, 4]


def test_of_some_days_holds_both_ends(ledger: Ledger) -> None:
    today = datetime.now(UTC).date()
    assert len(list(uses(ledger, since=today, until=today))) == 5
    assert list(uses(ledger, until=today - timedelta(days=1))) == []
    assert list(uses(ledger, since=date(2999, 1, 1))) == []


def test_of_an_unknown_patient_names_the_nearest(site: Workspace, ledger: Ledger) -> None:
    with pytest.raises(UnknownId, match="nearest: P1, P2"):
        names_of_patient(site, ledger, "P7")


def test_as_csv_is_read_by_a_spreadsheet_and_runs_nothing_in_it(ledger: Ledger) -> None:
    ledger.append("accessed", actor="=cmd()", subjects=["I1", "I2"], parameters={"what": 'a "film", seen'})
    rows = list(csv.DictReader(io.StringIO("".join(to_csv(uses(ledger))))))
    assert list(rows[0]) == ["at", "person", "account", "code", "kind", "action", "purpose", "about", "event"]
    assert (rows[-1]["person"], rows[-1]["about"], rows[-1]["purpose"]) == ("'=cmd()", "I1 I2", 'a "film", seen')


def test_every_use_that_dicom_names_is_a_kind() -> None:
    assert {Action.IMPORTED, Action.EXPORTED, Action.ACCESSED, Action.QUERIED} <= KINDS.keys()


class TestCommands:
    @pytest.fixture(autouse=True)
    def here(self, site: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RADIA_DATA", str(site.root))
        monkeypatch.setenv("RADIA_KEY", KEY.hex())

    def test_access_prints_one_line_a_use_and_writes_nothing(self, ledger: Ledger) -> None:
        before = ledger.head()
        done = CliRunner().invoke(main, ["audit", "access", "--person", "Dr Roy"])
        assert done.exit_code == 0, done.output
        assert [line.split(": ", 1)[1] for line in done.output.splitlines()] == [
            "Export (exported, event 2) S1 reading sheet",
            "Patient Record (reidentify, event 4) P1 recall",
            "DICOM Instances Accessed (accessed, event 6) P2",
        ]
        assert ledger.head() == before

    def test_access_of_a_patient_as_json_and_as_csv(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(main, ["audit", "access", "--patient", "P2", "--json"])
        assert [use["event"] for use in json.loads(done.output)["uses"]] == [1, 3, 6]
        out = tmp_path / "log.csv"
        done = CliRunner().invoke(main, ["audit", "access", "--csv", str(out), "--json"])
        assert json.loads(done.output) == {"csv": str(out), "uses": 5}
        assert len(out.read_text().splitlines()) == 6

    def test_withdraw_takes_the_hospital_s_identifier_with_its_issuer_and_says_on_whose_word(
        self, site: Workspace, ledger: Ledger
    ) -> None:
        pseudonym = Pseudonymizer(KEY).patient("1234567", "HND")
        rows = pd.read_parquet(site.manifest / "HND-1.parquet")
        rows.assign(patient=rows["patient"].replace("P2", pseudonym)).to_parquet(site.manifest / "HND-1.parquet")
        without = CliRunner().invoke(main, ["withdraw", "1234567"])
        assert without.exit_code == 1
        assert "1234567" not in without.output
        told = ["withdraw", "1234567", "--issuer", "HND", "--person", "Me Gagnon", "--reason", "letter", "--json"]
        done = CliRunner().invoke(main, told)
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["patient"] == pseudonym
        event = ledger.last("withdraw")
        assert (event.people, event.subjects) == (["Me Gagnon"], (pseudonym,))
        assert [use.event for use in uses(ledger, person="Me Gagnon")] == [event.sequence]
        assert "1234567" not in event.body
