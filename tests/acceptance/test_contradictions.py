"""A film that comes again with other content, in a later batch, leaves the snapshots that are made from then on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest

from radia import steps
from radia.contradictions import contradicted_images
from radia.images import ImageStore
from radia.snapshot import load
from radia.steps import open_run

from .conftest import EmbeddedSite, working_in

pytestmark = pytest.mark.xdist_group("main-job")


def test_a_contradicted_film_leaves_later_snapshots_and_no_earlier_one(site: EmbeddedSite, tmp_path: Path) -> None:
    data, inbox = tmp_path / "data", tmp_path / "inbox" / "HND"
    shutil.copytree(site.data, data)
    inbox.mkdir(parents=True)
    with working_in(data):
        run = open_run(data=data)
        before = steps.current_snapshot(run)
        film = before.images.iloc[0]
        dataset = pydicom.dcmread(run.workspace.landing / film["batch"] / "files" / film["source_sha256"])
        dataset.PatientSex = "O"
        dataset.save_as(inbox / "again.dcm")

        steps.intake(run, tmp_path / "inbox")
        steps.deidentify(run)
        steps.images(run)
        assert contradicted_images(run.ledger) == {film["image"]}
        steps.snapshot(run)
        after = steps.current_snapshot(run)
        assert set(before.images["image"]) - set(after.images["image"]) == {film["image"]}
        assert film["image"] in set(load(run.workspace.snapshots, before.digest).images["image"])
        assert ImageStore(run.workspace.images).read([film["image"]]).shape[0] == 1
        assert steps.verify(run).objects > 0
        assert steps.snapshot(run).reused
