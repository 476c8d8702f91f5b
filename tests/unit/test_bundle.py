"""An evidence bundle proves itself offline and names the first thing that does not fit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from radia import digests
from radia.bundle import verify_bundle, write_bundle
from radia.errors import ChainBroken, UnknownId
from radia.ledger import Ledger, open_ledger
from radia.trace import events_behind, trace_model
from radia.workspace import Workspace

METRICS = b'{"n": 3}'


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def ledger(site: Workspace) -> Ledger:
    ledger = open_ledger(site)
    evidence = {"snapshot": "5" * 64, "metrics": digests.hashlib.sha256(METRICS).hexdigest()}
    ledger.append("accessed", actor="Dr Roy", subjects=["P1"])
    ledger.append("snapshot", actor="radia", outputs={"snapshot": "5" * 64})
    ledger.append("accessed", actor="Dr Gagnon", subjects=["P2"])
    ledger.append("register", actor="radia", inputs=evidence, outputs={"cxr-candidate/3": "c" * 32})
    ledger.append("accessed", actor="Dr Roy", subjects=["P3"])
    ledger.append("promote", actor="Dr Côté", inputs={"cxr-candidate/3": "c" * 32}, outputs={"cxr/2": "c" * 32})
    ledger.append("accessed", actor="Dr Roy", subjects=["P4"])
    return ledger


@pytest.fixture
def bundle(site: Workspace, ledger: Ledger, tmp_path: Path) -> Path:
    files = {"metrics.json": METRICS, "model_card.md": b"# Card"}
    tree = trace_model(site, ledger, "3")
    return write_bundle(site, ledger, tree, tmp_path / "out.zip", files=files, actor="auditor")


def test_holds_the_events_behind_the_model_and_no_other(bundle: Path, ledger: Ledger) -> None:
    assert [event.sequence for event in events_behind(ledger, "cxr/2")] == [2, 4, 6]
    with zipfile.ZipFile(bundle) as archive:
        text = archive.read("events.txt").decode()
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert [line.split("\t")[0] for line in text.splitlines()] == ["2", "4", "6"]
    assert b"Dr Gagnon" not in everything


def test_proves_itself_against_the_head(bundle: Path, ledger: Ledger) -> None:
    checked = verify_bundle(bundle, ledger=ledger)
    assert (checked.model, checked.events) == ("cxr-candidate/3", 3)
    assert checked.head == str(ledger.event(6).anchor)


def test_is_recorded_in_the_ledger(bundle: Path, ledger: Ledger) -> None:
    assert ledger.last("bundle").outputs == {"bundle": digests.of_file(bundle)}


def test_is_checked_by_its_own_script_with_python_alone(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extract("verify.py", tmp_path)
    command = [sys.executable, "-I", "-S", str(tmp_path / "verify.py"), str(bundle)]
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["events"] == 3


def test_of_the_same_evidence_has_the_same_bytes(site: Workspace, ledger: Ledger, tmp_path: Path) -> None:
    tree = trace_model(site, ledger, "3")
    one, two = (
        write_bundle(site, ledger, tree, tmp_path / n, files={"a": b"b"}, actor="x") for n in ("1.zip", "2.zip")
    )
    assert one.read_bytes() == two.read_bytes()


def rewrite(bundle: Path, name: str, content: bytes, *, hide: bool) -> None:
    """Changes a file of the bundle; `hide` also mends the list of contents."""
    with zipfile.ZipFile(bundle) as archive:
        contents = {entry: archive.read(entry) for entry in archive.namelist()}
    contents[name] = content
    if hide:
        listed = json.loads(contents["contents.json"])
        listed[name] = digests.hashlib.sha256(content).hexdigest()
        contents["contents.json"] = json.dumps(listed).encode()
    with zipfile.ZipFile(bundle, "w") as archive:
        for entry, text in contents.items():
            archive.writestr(entry, text)


@pytest.mark.parametrize("name", ["events.txt", "proof.txt", "images.json", "files/model_card.md", "head.json"])
def test_names_the_file_that_was_changed(bundle: Path, name: str) -> None:
    rewrite(bundle, name, b"something else", hide=False)
    with pytest.raises(ChainBroken, match=f"{name} was changed"):
        verify_bundle(bundle)


def test_names_the_event_that_was_changed_though_the_list_was_mended(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        text = archive.read("events.txt")
    rewrite(bundle, "events.txt", text.replace("Dr Côté".encode(), b"Mallory"), hide=True)
    with pytest.raises(ChainBroken, match="event 6 was changed"):
        verify_bundle(bundle)


def test_names_metrics_that_are_not_those_that_were_registered(bundle: Path) -> None:
    rewrite(bundle, "files/metrics.json", b'{"n": 4}', hide=True)
    with pytest.raises(ChainBroken, match=r"files/metrics.json is not what event 4 recorded"):
        verify_bundle(bundle)


def test_of_another_ledger_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = open_ledger(Workspace(tmp_path / "other"))
    for _ in range(6):
        other.append("accessed", actor="x")
    with pytest.raises(ChainBroken, match="head is not event 6 of this ledger"):
        verify_bundle(bundle, ledger=other)


def test_cut_short_anywhere_is_refused(bundle: Path) -> None:
    content, chance = bundle.read_bytes(), random.Random(0)
    for _ in range(50):
        bundle.write_bytes(content[: chance.randrange(len(content))])
        with pytest.raises(ChainBroken):
            verify_bundle(bundle)


def test_of_an_unknown_model_is_refused(ledger: Ledger) -> None:
    with pytest.raises(UnknownId, match="the nearest: cxr/2, cxr-candidate/3"):
        events_behind(ledger, "9")
