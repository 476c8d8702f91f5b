"""Of one instance with different content in two batches neither file stays in use, and nothing of them is lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from radia import contradictions
from radia.contradictions import contradicted_images, settle
from radia.dicom.deidentify import deidentify_tree
from radia.dicom.pseudonyms import Pseudonymizer
from radia.errors import Reason
from radia.ledger import Action, Ledger, open_ledger
from radia.settings import DeidentifySettings
from radia.trace.nodes import uses_of
from radia.workspace import Workspace
from tests.spec.hard_files import Person, build, leaked

KEY = bytes(range(32))
FIRST, SECOND, THIRD = "HND-20260101-1", "HND-20260102-1", "HVD-20260103-1"
RAW = build(["plain"], "explicit", 0)[0]
OTHER = RAW.replace(b"045Y", b"046Y")
RESENT = b"EXPORTED BY A GATEWAY".ljust(128) + RAW[128:]
IMAGE = Pseudonymizer(KEY).image(Person.invented(0).instance)
Receive = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "data")


@pytest.fixture
def ledger(site: Workspace) -> Ledger:
    site.root.mkdir()
    return open_ledger(site)


@pytest.fixture
def receive(site: Workspace, ledger: Ledger) -> Receive:
    def receive(batch: str, *contents: bytes) -> None:
        files = site.landing / batch / "files"
        files.mkdir(parents=True)
        for content in contents:
            (files / sha256(content)).write_bytes(content)
        deidentify_tree(files, site.clean / batch, key=KEY, settings=DeidentifySettings(clean_pixels=False, workers=1))

    return receive


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def events(ledger: Ledger) -> int:
    return len(list(ledger.events(action=Action.CONTRADICTION)))


def quarantined(site: Workspace) -> dict[str, set[str]]:
    """The files in quarantine by batch; each stands among the reasons."""
    found = {}
    for reasons in site.quarantine.glob("*/contradictions/reasons.json"):
        said = json.loads(reasons.read_text())
        assert set(said.values()) == {Reason.DUPLICATE.value}
        files = {path.name for path in reasons.parent.iterdir()} - {reasons.name}
        assert files == set(said)
        found[reasons.parents[1].name] = files
    return found


def test_both_are_quarantined_and_the_ledger_says_so(site: Workspace, ledger: Ledger, receive: Receive) -> None:
    receive(FIRST, RAW, build(["plain"], "explicit", 1)[0])
    assert settle(site, ledger, actor="radia").images == ()
    receive(SECOND, OTHER)
    settled = settle(site, ledger, actor="radia")
    assert (settled.images, settled.files) == ((IMAGE,), 2)
    assert contradicted_images(ledger) == {IMAGE}
    assert quarantined(site) == {FIRST: {sha256(RAW)}, SECOND: {sha256(OTHER)}}
    event = next(iter(ledger.events(action=Action.CONTRADICTION)))
    assert set(event.inputs.values()) == {sha256(RAW), sha256(OTHER)}
    assert event.parameters["batches"] == [FIRST, SECOND]
    assert leaked(event.body.encode(), Person.invented(0).secrets) == []
    assert [tree.label for tree in uses_of(ledger, IMAGE)] == ["contradiction"]


def test_nothing_is_lost(site: Workspace, ledger: Ledger, receive: Receive) -> None:
    receive(FIRST, RAW)
    before = {path: path.read_bytes() for path in site.root.rglob("*") if path.is_file() and "ledger" not in path.name}
    receive(SECOND, OTHER)
    settle(site, ledger, actor="radia")
    assert {path: path.read_bytes() for path in before} == before


def test_what_was_only_sent_again_contradicts_nothing(site: Workspace, ledger: Ledger, receive: Receive) -> None:
    assert RESENT != RAW
    receive(FIRST, RAW)
    receive(SECOND, RESENT)
    assert settle(site, ledger, actor="radia").images == ()
    assert (events(ledger), quarantined(site)) == (0, {})


def test_a_second_time_adds_nothing_and_a_third_file_one_event(
    site: Workspace, ledger: Ledger, receive: Receive
) -> None:
    receive(FIRST, RAW)
    receive(SECOND, OTHER)
    for _ in range(2):
        settle(site, ledger, actor="radia")
    assert events(ledger) == 1
    third = RAW.replace(b"045Y", b"047Y")
    receive(THIRD, third)
    assert settle(site, ledger, actor="radia").files == 3
    assert events(ledger) == 2
    assert quarantined(site)[THIRD] == {sha256(third)}


@pytest.mark.parametrize("killed", ["_quarantine", "shutil.copyfile", "hashlib.sha256"])
def test_a_call_that_was_killed_is_finished_by_the_next(
    site: Workspace, ledger: Ledger, receive: Receive, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    receive(FIRST, RAW)
    receive(SECOND, OTHER)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"{contradictions.__name__}.{killed}", kill)
        with pytest.raises(KeyboardInterrupt):
            settle(site, ledger, actor="radia")
    settle(site, ledger, actor="radia")
    assert contradicted_images(ledger) == {IMAGE}
    assert quarantined(site) == {FIRST: {sha256(RAW)}, SECOND: {sha256(OTHER)}}
    assert events(ledger) == 1
    assert not list(site.root.rglob(".partial-*"))


def test_files_that_a_hospital_moved_to_its_archive_are_named_all_the_same(
    site: Workspace, ledger: Ledger, receive: Receive
) -> None:
    receive(FIRST, RAW)
    (site.landing / FIRST / "files" / sha256(RAW)).unlink()
    receive(SECOND, OTHER)
    settle(site, ledger, actor="radia")
    reasons = json.loads((site.quarantine / FIRST / "contradictions" / "reasons.json").read_text())
    assert list(reasons) == [sha256(RAW)]
    assert contradicted_images(ledger) == {IMAGE}
