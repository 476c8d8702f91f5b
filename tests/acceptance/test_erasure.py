"""A patient who withdrew is erased from a site that went through the whole job; everything else still stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from radia import steps
from radia.dicom.crosswalk import Crosswalk
from radia.dicom.pseudonyms import Pseudonymizer, load_key
from radia.errors import Reason, UnknownId, WithdrawalError
from radia.images import ImageStore, read_index
from radia.snapshot import restore
from radia.steps import open_run

from .conftest import EmbeddedSite, working_in

pytestmark = pytest.mark.xdist_group("main-job")


def test_nothing_of_an_erased_patient_is_left_but_digests(site: EmbeddedSite, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(site.data, data)
    with working_in(data):
        run = open_run(data=data)
        workspace, frozen = run.workspace, steps.current_snapshot(run)
        patient = str(frozen.images["patient"].iloc[0])
        mine, others = (frozen.images[frozen.images["patient"].eq(patient) == same] for same in (True, False))
        kept = ImageStore(workspace.images).read(list(others["image"]))
        pixels = [image.tobytes() for image in ImageStore(workspace.images).read(list(mine["image"]))]
        with pytest.raises(WithdrawalError, match="withdraw PATIENT --erase"):
            steps.erase(run, patient)

        steps.withdraw(run, patient, reason="asked by letter")
        erased = steps.erase(run, patient)
        assert set(mine["source_sha256"]) <= set(erased.tombstones)
        for digest in erased.tombstones:
            assert not [path for path in data.rglob(digest) if path.is_file()]
        everything = [path.read_bytes() for path in (data / "archive").rglob("*") if path.is_file()]
        assert not any(content in held for content in pixels for held in everything)
        with pytest.raises(UnknownId):
            Crosswalk(workspace.crosswalk, load_key(workspace.key_file)).origins(patient)
        assert not list((data / "clean").glob(f"*/{patient}"))
        names = Pseudonymizer(load_key(workspace.key_file))
        gone = set(
            pd.concat(map(pd.read_parquet, data.glob("clean/*/outcomes.parquet")))
            .query("patient == @patient")
            .accession
        )
        for table in (data / "landing" / "tables").glob("*.csv"):
            assert not gone & {names.accession(number) for number in pd.read_csv(table, dtype=str).iloc[:, 0]}

        assert (ImageStore(workspace.images).read(list(others["image"])) == kept).all()
        with pytest.raises(UnknownId):
            ImageStore(workspace.images).read([str(mine["image"].iloc[0])])
        index = read_index(workspace.images, str(mine["batch"].iloc[0])).set_index("image").loc[mine["image"]]
        assert set(index["reason"]) == {Reason.ERASED.value}
        assert list(index["pixel_sha256"]) == list(mine["pixel_sha256"])
        assert steps.verify(run).objects > 0
        restore(workspace.archive, frozen.digest)
        assert not any(content in path.read_bytes() for content in pixels for path in workspace.images.rglob("*.u8"))
        assert steps.erase(run, patient).files == 0
        steps.snapshot(run)
        assert patient not in set(steps.current_snapshot(run).images["patient"])
