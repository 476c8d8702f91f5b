"""A study that grows after it was taken: a later batch, and one study again from the manifest on."""

from pathlib import Path

import pandas as pd
from test_intake_killed import run_through, write_radiograph

from radia import manifest
from radia.dicom.pseudonyms import Pseudonymizer
from radia.findings import FINDINGS
from radia.intake import receipts
from radia.labels import link_tables
from radia.settings import SnapshotSettings
from radia.snapshot import freeze

KEY = bytes(range(32))


def test_a_study_that_grows_is_one_study_with_one_row_of_labels_on_one_side(tmp_path: Path) -> None:
    inbox, data = tmp_path / "inbox", tmp_path / "data"
    for number in range(12):
        write_radiograph(inbox / "HND" / f"{number}.dcm", number)
    run_through(inbox, data)
    before = manifest.load(data / "manifest")
    write_radiograph(inbox / "HND" / "late.dcm", 99, study=3)
    run_through(inbox, data)

    assert [len(receipt.files) for receipt in receipts(data / "landing")] == [12, 1]
    images = manifest.load(data / "manifest")
    late = images[~images["image"].isin(before["image"])]
    assert len(late) == 1
    earlier = before[before["study"] == late["study"].item()]
    assert earlier["patient"].tolist() == late["patient"].tolist()
    assert earlier["batch"].tolist() != late["batch"].tolist()

    table = pd.DataFrame({"AccessionNumber": [f"V{n}" for n in range(12)]} | {f: [1.0, 0.0] * 6 for f in FINDINGS})
    table.to_csv(tmp_path / "site.labels.csv", index=False)
    labels = link_tables([tmp_path / "site.labels.csv"], Pseudonymizer(KEY), images).frame
    frozen = freeze(images, labels, settings=SnapshotSettings(), folder=tmp_path / "snapshots")
    assert len(frozen.images) == 13
    assert frozen.table.groupby("study")["image"].count().value_counts().to_dict() == {1: 11, 2: 1}
    assert frozen.images.groupby("study")["split"].nunique().eq(1).all()
