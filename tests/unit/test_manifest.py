from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import JPEGLSLossless, generate_uid

from radia.errors import ManifestError, UnknownId
from radia.manifest import SCHEMA, age_band, build, load, query, write

BATCH = "HND-20261123-1"
COLUMNS = ["image", "shard", "row", "pixel_sha256", "perceptual_hash"]


def write_header(path: Path, **header: object) -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    dataset.Rows, dataset.Columns = 300, 200
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def outcomes(*images: str) -> pd.DataFrame:
    clean = [
        {
            "image": image,
            "study": f"S-{image}",
            "patient": "P1",
            "accession": "",
            "source_sha256": 64 * "a",
            "output": f"P1/S/{image}.dcm",
            "outcome": "clean",
        }
        for image in images
    ]
    refused = {"source_sha256": 64 * "b", "outcome": "refused", "reason": "empty file"}
    return pd.DataFrame([*clean, refused])


def index(*images: str) -> pd.DataFrame:
    rows = [
        {"image": image, "shard": "shard-00000.u8", "row": row, "pixel_sha256": 64 * "c", "perceptual_hash": 16 * "0"}
        for row, image in enumerate(images)
    ]
    frame = pd.DataFrame([*rows, {"image": "I9", "shard": None, "row": None}], columns=COLUMNS)
    return frame.assign(exposure=0.5, contrast=0.6, saturation=0.0).astype({"row": "Int64"})


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    write_header(
        tmp_path / "P1" / "S" / "I1.dcm",
        **{"PatientSex": "F", "PatientAge": "067Y", "ViewPosition": "PA", "StudyDate": "20260131"},
        **{"Manufacturer": "Acme", "ManufacturerModelName": "X1", "BitsStored": 12},
        PhotometricInterpretation="MONOCHROME1",
    )
    write_header(tmp_path / "P1" / "S" / "I0.dcm")
    return tmp_path


class TestBuild:
    def test_joins_header_outcome_and_index_by_image(self, clean: Path) -> None:
        rows = build(clean, outcomes("I1", "I0"), index("I1", "I0"), batch=BATCH, site="HND")
        assert list(rows.columns) == SCHEMA.names
        assert rows["image"].tolist() == ["I0", "I1"]
        full = rows.iloc[1]
        assert (full["study"], full["sex"], full["age"], full["age_band"]) == ("S-I1", "F", 67, "60-79")
        assert (full["view"], full["manufacturer"], full["model"], full["bits"]) == ("PA", "Acme", "X1", 12)
        assert (full["rows"], full["columns"], full["photometric"]) == (300, 200, "MONOCHROME1")
        assert (full["study_date"], full["transfer_syntax"]) == (date(2026, 1, 31), JPEGLSLossless)
        assert (full["batch"], full["site"], full["shard"], full["row"]) == (BATCH, "HND", "shard-00000.u8", 0)

    def test_leaves_blank_what_the_header_does_not_say(self, clean: Path) -> None:
        bare = build(clean, outcomes("I0"), index("I0"), batch=BATCH, site="HND").iloc[0]
        blank = ["view", "sex", "age", "age_band", "manufacturer", "model", "study_date", "bits", "photometric"]
        assert bare[blank].isna().all()

    def test_leaves_out_what_was_refused_for_its_pixels(self, clean: Path) -> None:
        rows = build(clean, outcomes("I0", "I1", "I9"), index("I0", "I1"), batch=BATCH, site="HND")
        assert rows["image"].tolist() == ["I0", "I1"]

    def test_refuses_an_index_of_other_files(self, clean: Path) -> None:
        with pytest.raises(UnknownId, match="1 images have no clean file"):
            build(clean, outcomes("I0"), index("I0", "I1"), batch=BATCH, site="HND")

    def test_of_a_batch_without_an_image_is_empty_and_typed(self, clean: Path) -> None:
        rows = build(clean, outcomes("I0"), index(), batch=BATCH, site="HND")
        assert rows.empty
        assert list(rows.columns) == SCHEMA.names


class TestFiles:
    def test_bring_back_what_was_written_sorted_by_image(self, clean: Path, tmp_path: Path) -> None:
        folder = tmp_path / "manifest"
        first = build(clean, outcomes("I1"), index("I1"), batch="Z-20261123-1", site="Z")
        second = build(clean, outcomes("I0"), index("I0"), batch="A-20261123-1", site="A")
        write(first, folder, batch="Z-20261123-1")
        write(second, folder, batch="A-20261123-1")
        loaded = load(folder)
        assert loaded["image"].tolist() == ["I0", "I1"]
        assert loaded["age"].tolist() == [pd.NA, 67]
        assert loaded["study_date"].tolist() == [None, date(2026, 1, 31)]
        pd.testing.assert_frame_equal(loaded.iloc[[1]].reset_index(drop=True), first)

    def test_say_what_every_column_means(self, clean: Path, tmp_path: Path) -> None:
        path = write(build(clean, outcomes("I0"), index("I0"), batch=BATCH, site="H"), tmp_path / "m", batch=BATCH)
        schema = pq.read_schema(path)
        assert schema.names == SCHEMA.names
        assert all(field.metadata[b"description"] for field in schema)

    def test_may_be_written_by_plain_pandas_too(self, clean: Path, tmp_path: Path) -> None:
        rows = build(clean, outcomes("I0"), index("I0"), batch=BATCH, site="HND")
        (tmp_path / "manifest").mkdir()
        rows.to_parquet(tmp_path / "manifest" / f"{BATCH}.parquet", index=False)
        pd.testing.assert_frame_equal(load(tmp_path / "manifest"), rows)

    def test_that_are_none_give_an_empty_manifest(self, tmp_path: Path) -> None:
        assert load(tmp_path / "nowhere").empty
        assert list(load(tmp_path / "nowhere").columns) == SCHEMA.names


@pytest.mark.parametrize(
    ("age", "band"), [(0, "0-17"), (17, "0-17"), (18, "18-39"), (59, "40-59"), (79, "60-79"), (90, "80+"), (None, None)]
)
def test_ages_fall_into_bands(age: int | None, band: str | None) -> None:
    assert age_band(age) == band


class TestQuery:
    @pytest.fixture
    def folder(self, clean: Path, tmp_path: Path) -> Path:
        for site, image in (("A", "I0"), ("B", "I1")):
            rows = build(clean, outcomes(image), index(image), batch=f"{site}-20261123-1", site=site)
            write(rows, tmp_path / "manifest", batch=f"{site}-20261123-1")
        return tmp_path / "manifest"

    def test_asks_all_batches_at_once(self, folder: Path) -> None:
        answer = query(folder, "SELECT site, count(*) AS images FROM manifest GROUP BY site ORDER BY site")
        assert answer.to_dict("list") == {"site": ["A", "B"], "images": [1, 1]}

    def test_takes_parameters(self, folder: Path) -> None:
        assert query(folder, "SELECT image FROM manifest WHERE age > ?", [60])["image"].tolist() == ["I1"]

    def test_joins_other_tables(self, folder: Path, tmp_path: Path) -> None:
        pd.DataFrame({"study": ["S-I1"], "Edema": [1.0]}).to_parquet(tmp_path / "given.parquet")
        sql = "SELECT image, Edema FROM manifest JOIN labels USING (study)"
        answer = query(folder, sql, tables={"labels": tmp_path / "given.parquet"})
        assert answer.to_dict("list") == {"image": ["I1"], "Edema": [1.0]}

    def test_names_what_it_cannot_answer(self, folder: Path) -> None:
        with pytest.raises(ManifestError, match="nonsense"):
            query(folder, "SELECT nonsense FROM manifest")
