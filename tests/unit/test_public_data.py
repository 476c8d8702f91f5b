from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radia.errors import LabelError, UnmatchedIds
from radia.findings import FINDINGS
from radia.public_data import PublicSet, pack, read_gray_file, read_public


def column(public: PublicSet, finding: str) -> list[float]:
    return public.labels[:, FINDINGS.index(finding)].tolist()


def picture(path: Path, value: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30), value, np.uint8)).save(path)


@pytest.fixture(params=["CheXpert-v1.0", "CheXpert-v1.0-small"])
def chexpert(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, folder = request.param, tmp_path / "anywhere"
    folder.mkdir()
    head = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS])
    blank = "," * 12
    rows = [
        f"{name}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,{blank}0.0",
        f"{name}/train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,1.0,{blank}0.0",
        f"{name}/train/patient00002/study1/view1_frontal.jpg,Male,40,Frontal,PA,,-1.0{blank}1.0",
    ]
    (folder / "train.csv").write_text("\n".join([head, *rows]))
    valid = f"{name}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP," + ",".join(["0.0"] * 14)
    (folder / "valid.csv").write_text(f"{head}\n{valid}\n")
    for where in ("train/patient00001", "train/patient00002", "valid/patient64541"):
        picture(folder / where / "study1" / "view1_frontal.jpg")
    return folder


class TestCheXpert:
    def test_frontal_images_with_their_labels_patients_and_sides(self, chexpert: Path) -> None:
        public = read_public(f"chexpert:{chexpert}")
        assert public.patients.tolist() == ["patient00001", "patient00002", "patient64541"]
        assert public.split.tolist() == ["train", "train", "validation"]
        assert np.array_equal(column(public, "No Finding"), [1.0, np.nan, 0.0], equal_nan=True)
        assert np.array_equal(column(public, "Enlarged Cardiomediastinum"), [np.nan, -1.0, 0.0], equal_nan=True)
        assert column(public, "Support Devices") == [0.0, 1.0, 0.0]
        assert all(path.is_file() for path in public.paths)

    def test_a_table_without_a_finding_is_an_error(self, chexpert: Path) -> None:
        path = chexpert / "train.csv"
        path.write_text(path.read_text().replace("Pneumothorax", "Pneumo"))
        with pytest.raises(LabelError, match="lacks the columns Pneumothorax"):
            read_public(f"chexpert:{chexpert}")


class TestNih:
    @pytest.fixture
    def nih(self, tmp_path: Path) -> Path:
        rows = ["Image Index,Finding Labels,Follow-up #,Patient ID"]
        rows += [
            "00000001_000.png,Cardiomegaly|Effusion,0,1",
            "00000001_001.png,Mass,1,1",
            "00000002_000.png,No Finding,0,2",
        ]
        rows += [f"{n:08d}_000.png,Hernia,0,{n}" for n in range(3, 60)]
        (tmp_path / "Data_Entry_2017.csv").write_text("\n".join(rows))
        (tmp_path / "test_list.txt").write_text("00000002_000.png\n")
        picture(tmp_path / "images_001" / "images" / "00000001_000.png")
        return tmp_path

    def test_its_labels_come_under_our_names(self, nih: Path) -> None:
        public = read_public(f"nih:{nih}")
        assert column(public, "Cardiomegaly")[:4] == [1.0, 0.0, 0.0, 0.0]
        assert column(public, "Pleural Effusion")[:4] == [1.0, 0.0, 0.0, 0.0]
        assert column(public, "Lung Lesion")[:4] == [0.0, 1.0, 0.0, 0.0]
        assert column(public, "No Finding")[:4] == [0.0, 0.0, 1.0, 0.0]

    def test_what_it_does_not_label_is_blank(self, nih: Path) -> None:
        assert np.isnan(column(read_public(f"nih:{nih}"), "Support Devices")).all()

    def test_the_official_test_list_holds_and_no_other_patient_is_tested_on(self, nih: Path) -> None:
        public = read_public(f"nih:{nih}")
        assert public.ids[public.split == "test"].tolist() == ["00000002_000.png"]
        assert 0 < np.mean(public.split == "validation") < 0.3

    def test_a_patient_is_on_one_side_only(self, nih: Path) -> None:
        public = read_public(f"nih:{nih}")
        assert len(set(public.split[public.patients == "1"])) == 1

    def test_images_are_found_in_the_numbered_folders(self, nih: Path) -> None:
        assert read_public(f"nih:{nih}").paths[0].is_file()


def test_mimic_joins_its_three_tables(tmp_path: Path) -> None:
    labels = "subject_id,study_id," + ",".join(FINDINGS)
    (tmp_path / "mimic-cxr-2.0.0-chexpert.csv").write_text(f"{labels}\n10000032,50414267,1.0{',' * 13}\n")
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv").write_text(
        "dicom_id,subject_id,study_id,ViewPosition\nabc,10000032,50414267,PA\ndef,10000032,50414267,LATERAL\n"
    )
    (tmp_path / "mimic-cxr-2.0.0-split.csv").write_text(
        "dicom_id,study_id,subject_id,split\nabc,50414267,10000032,validate\ndef,50414267,10000032,train\n"
    )
    public = read_public(f"mimic:{tmp_path}")
    assert public.ids.tolist() == ["abc"]
    assert public.split.tolist() == ["validation"]
    assert column(public, "No Finding") == [1.0]
    assert public.paths == (tmp_path / "files" / "p10" / "p10000032" / "s50414267" / "abc.jpg",)


def test_padchest_lists_become_labels(tmp_path: Path) -> None:
    rows = [
        "ImageID,ImageDir,PatientID,Projection,Labels",
        "a.png,0,7,PA,\"['pleural effusion', ' cardiomegaly']\"",
        "b.png,0,8,L,\"['normal']\"",
        "c.png,1,9,AP_horizontal,\"['normal']\"",
    ]
    (tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text("\n".join(rows))
    picture(tmp_path / "0" / "a.png")
    public = read_public(f"padchest:{tmp_path}")
    assert public.ids.tolist() == ["a.png", "c.png"]
    assert column(public, "Pleural Effusion") == [1.0, 0.0]
    assert column(public, "Cardiomegaly") == [1.0, 0.0]
    assert column(public, "No Finding") == [0.0, 1.0]
    assert public.paths[0] == tmp_path / "0" / "a.png"


@pytest.mark.parametrize("where", ["openi:somewhere", "chexpert", "chexpert:"])
def test_an_unknown_collection_is_an_error_that_lists_the_known_ones(where: str) -> None:
    with pytest.raises(LabelError, match="chexpert:DIR, nih:DIR"):
        read_public(where)


def test_an_empty_folder_names_the_table_that_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"holds none of: train\.csv"):
        read_public(f"chexpert:{tmp_path}")


class TestPacking:
    def test_images_come_back_by_id_letterboxed(self, chexpert: Path, tmp_path: Path) -> None:
        public = read_public(f"chexpert:{chexpert}")
        packed = pack(public, tmp_path / "packed", side=24)
        images = packed.read(public.ids[[2, 0]].tolist())
        assert images.shape == (2, 24, 24)
        assert abs(int(images[0, 12, 12]) - 100) <= 1
        assert images[0, 0, 0] == 0

    def test_what_is_packed_is_not_packed_again(self, chexpert: Path, tmp_path: Path) -> None:
        public = read_public(f"chexpert:{chexpert}")
        pack(public, tmp_path / "packed", side=24)
        for path in public.paths:
            path.unlink()
        assert pack(public, tmp_path / "packed", side=24).side == 24

    def test_missing_images_are_counted_before_any_is_read(self, chexpert: Path, tmp_path: Path) -> None:
        public = read_public(f"chexpert:{chexpert}")
        public.paths[1].unlink()
        with pytest.raises(LabelError, match="1 of 3 images are missing"):
            pack(public, tmp_path / "packed", side=24)
        assert not (tmp_path / "packed").exists()

    def test_an_id_that_is_not_there_is_an_error(self, chexpert: Path, tmp_path: Path) -> None:
        packed = pack(read_public(f"chexpert:{chexpert}"), tmp_path / "packed", side=24)
        with pytest.raises(UnmatchedIds):
            packed.read(["nobody"])

    def test_sixteen_bits_span_their_own_range(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[1000, 3000], [2000, 1000]], np.uint16)).save(tmp_path / "deep.png")
        assert read_gray_file(tmp_path / "deep.png").tolist() == [[0.0, 1.0], [0.5, 0.0]]
