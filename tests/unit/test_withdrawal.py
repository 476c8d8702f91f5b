"""A patient who withdraws leaves later snapshots, and every model that saw the patient says so."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from radia import registry, steps
from radia.dicom.pseudonyms import Pseudonymizer
from radia.errors import UnknownId
from radia.ledger import Ledger, file_digests, open_ledger, verify_artefacts
from radia.settings import Settings
from radia.steps.run import Run
from radia.trace import withdrawn_patients
from radia.withdrawal import withdraw
from radia.workspace import Workspace

KEY = bytes(32)
PATIENT = Pseudonymizer(KEY).patient("1234567", "HND")
SNAPSHOT = "5" * 64


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is noted on cards, with one candidate and its copy in use standing in for MLflow's."""
    noted: list[tuple[str, str]] = []
    tags = {"cxr-candidate": {}, "cxr": {"promoted": "cxr-candidate/3"}}

    def versions(_: Workspace, name: str) -> list[registry.Version]:
        return [registry.Version(name, "3", "run", tags[name], (), "", "", "")]

    monkeypatch.setattr(registry, "versions", versions)
    monkeypatch.setattr(registry, "note_on_card", lambda _site, name, version, _text: noted.append((name, version)))
    return noted


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    site = Workspace(tmp_path)
    rows = pd.DataFrame({"image": ["I1", "I2"], "study": ["S1", "S2"], "patient": [PATIENT, "P2"], "site": "HND"})
    rows = rows.assign(batch="HND-1", source_sha256=["a" * 64, "b" * 64], split="train")
    for path in (site.manifest / "HND-1.parquet", site.snapshots / SNAPSHOT / "images.parquet"):
        path.parent.mkdir(parents=True)
        rows.to_parquet(path)
    return site


@pytest.fixture
def ledger(site: Workspace) -> Ledger:
    ledger = open_ledger(site)
    ledger.append("register", actor="radia", inputs={"snapshot": SNAPSHOT}, outputs={"cxr-candidate/3": "c" * 32})
    return ledger


def test_by_pseudonym_lists_the_models_and_notes_it_on_their_cards(
    site: Workspace, ledger: Ledger, notes: list[tuple[str, str]]
) -> None:
    done = withdraw(site, ledger, PATIENT, actor="Dr Roy", reason="asked by letter")
    assert (done.patient, done.images, done.models, done.new) == (PATIENT, 1, ("cxr-candidate/3",), True)
    assert notes == [("cxr-candidate", "3"), ("cxr", "3")]
    assert withdrawn_patients(ledger) == {PATIENT}
    event = ledger.last("withdraw")
    assert (event.actor, event.subjects, event.parameters["models"]) == ("Dr Roy", (PATIENT,), ["cxr-candidate/3"])


def test_by_the_hospital_s_identifier_needs_the_key_and_never_writes_it_down(
    site: Workspace, ledger: Ledger, notes: list[tuple[str, str]]
) -> None:
    with pytest.raises(UnknownId):
        withdraw(site, ledger, "1234567", actor="Dr Roy")
    assert withdraw(site, ledger, "1234567", actor="Dr Roy", key=KEY, issuer="HND").patient == PATIENT
    assert all("1234567" not in event.body for event in ledger.events())


def test_twice_is_recorded_once(site: Workspace, ledger: Ledger, notes: list[tuple[str, str]]) -> None:
    withdraw(site, ledger, PATIENT, actor="Dr Roy")
    assert withdraw(site, ledger, PATIENT, actor="Dr Roy").new is False
    assert len(ledger.events(action="withdraw")) == 1


def test_of_nobody_known_is_refused_without_repeating_what_was_typed(site: Workspace, ledger: Ledger) -> None:
    with pytest.raises(UnknownId, match="knows no patient") as caught:
        withdraw(site, ledger, "TREMBLAY^MARIE", actor="Dr Roy", key=KEY)
    assert "TREMBLAY" not in str(caught.value)
    assert withdrawn_patients(ledger) == frozenset()


def test_takes_the_patient_s_studies_out_of_the_queue_of_reads(
    site: Workspace, ledger: Ledger, notes: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RADIA_KEY", raising=False)
    site.reads.mkdir()
    pd.DataFrame({"id": ["S1", "S2", "S1"], "queue": ["suspects", "evaluation", "repeat"]}).to_parquet(site.read_queue)
    ledger.append("queue", actor="radia", files=file_digests(site, [site.read_queue]))
    run = Run(site, Settings(), "Dr Roy")
    steps.withdraw(run, PATIENT, reason="asked by letter")
    assert list(pd.read_parquet(site.read_queue)["id"]) == ["S2"]
    event = ledger.last("queue")
    assert (event.subjects, event.parameters["summary"]) == (("S1",), {"withdrawn": 1})
    assert verify_artefacts(site, ledger) == 1
    steps.withdraw(run, PATIENT)
    assert ledger.last("queue") == event
