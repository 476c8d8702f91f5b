"""The embedded hospital: what it sends, what it says of it, and what is truly there."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from radia.findings import FINDINGS, position
from radia.settings import load_settings
from radia.synthetic import hospital
from radia.synthetic.headers import SYNTAXES, TRAPS
from radia.synthetic.hospital import encode_exam, plan_hospital, write_hospital
from radia.synthetic.jpeg_lossless import encode_frame
from radia.synthetic.labelling import given_labels

STUDIES = 20


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hospital") / "out"
    write_hospital(out, studies=STUDIES, seed=3, workers=1)
    return out


@pytest.fixture(scope="module")
def truth(written: Path) -> dict[str, Any]:
    return json.loads((written / "truth.json").read_text())


@pytest.fixture(scope="module")
def planted(written: Path) -> dict[str, Any]:
    return json.loads((written / "planted.json").read_text())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestFiles:
    def test_every_study_has_one_file_that_can_be_read(self, written, truth, planted):
        assert len(truth["studies"]) == len(planted) == STUDIES
        for accession, study in truth["studies"].items():
            dataset = pydicom.dcmread(written / study["file"])
            assert dataset.AccessionNumber == accession
            assert dataset.pixel_array.shape == (dataset.Rows, dataset.Columns)
            assert dataset.pixel_array.max() < 2**dataset.BitsStored
            assert (
                planted[study["file"]]["sop_uid"]
                == dataset.SOPInstanceUID
                == dataset.file_meta.MediaStorageSOPInstanceUID
            )

    def test_the_planted_identifiers_are_in_the_file(self, written, planted):
        for path, who in planted.items():
            dataset = pydicom.dcmread(written / path, stop_before_pixels=True)
            assert str(dataset.PatientName) == f"{who['last']}^{who['first']}"
            assert dataset.PatientID.strip() == who["mrn"]
            assert dataset.PatientBirthDate == who["birth"]
            assert who["ramq"] in str(dataset)
            assert who["phone"] in str(dataset)

    def test_burned_in_text_is_brighter_than_what_lies_behind_it_and_inside_the_picture(self, written, planted):
        boxes = [(path, box) for path, who in planted.items() for box in who["boxes"]]
        assert boxes
        for path, (x0, y0, x1, y1) in boxes:
            dataset = pydicom.dcmread(written / path)
            gray = dataset.pixel_array / (2**dataset.BitsStored - 1)
            gray = 1 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray
            assert 0 <= x0 < x1 <= dataset.Columns
            assert 0 <= y0 < y1 <= dataset.Rows
            assert gray[y0:y1, x0:x1].max() > 0.9

    def test_what_cannot_be_used_is_listed_with_its_reason(self, written, truth):
        unusable = {Path(path).name: why for path, why in truth["unusable"].items()}
        assert len(unusable) == 7
        for path in truth["unusable"]:
            assert (written / path).is_file()
        files = {str(path.relative_to(written)) for path in (written / "inbox").rglob("*") if path.is_file()}
        assert files == {study["file"] for study in truth["studies"].values()} | set(truth["unusable"])

    def test_the_planted_copy_and_the_revised_instance_clash_with_real_files(self, written, truth):
        digests = Counter(digest(written / "inbox").values())
        assert sorted(digests.values())[-2:] == [1, 2]
        revised = next(path for path in truth["unusable"] if path.endswith("revise.dcm"))
        uids = Counter(
            pydicom.dcmread(written / study["file"], stop_before_pixels=True).SOPInstanceUID
            for study in truth["studies"].values()
        )
        assert uids[pydicom.dcmread(written / revised).SOPInstanceUID] == 1

    def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(self, written, tmp_path):
        write_hospital(tmp_path / "again", studies=STUDIES, seed=3, workers=2)
        assert digest(tmp_path / "again") == digest(written)

    def test_another_seed_gives_another_hospital(self, written):
        first, other = plan_hospital(STUDIES, 3)[0], plan_hospital(STUDIES, 4)[0]
        assert first.exam.person != other.exam.person

    def test_refuses_to_write_among_other_files(self, tmp_path):
        (tmp_path / "kept.txt").write_text("mine")
        with pytest.raises(FileExistsError, match="not empty"):
            write_hospital(tmp_path, studies=12, seed=0)
        with pytest.raises(ValueError, match="at least 10"):
            write_hospital(tmp_path / "new", studies=2)


class TestPlan:
    @pytest.fixture(scope="class")
    def plan(self):
        return plan_hospital(400, 0)

    def test_a_quarter_of_the_studies_are_later_visits_of_the_same_patients(self, plan):
        visits = Counter(study.exam.person.record for study in plan)
        assert len(visits) == 300
        assert max(visits.values()) >= 3

    def test_who_returns_has_the_same_body_and_grows_no_younger(self, plan):
        first: dict[str, Any] = {}
        for study in plan:
            earlier = first.setdefault(study.exam.person.record, study)
            assert earlier.body == study.body
            assert earlier.exam.person == study.exam.person
            assert earlier.exam.date <= study.exam.date
            assert earlier.exam.age <= study.exam.age

    def test_numbers_and_files_are_unique(self, plan):
        for values in (
            [s.exam.accession for s in plan],
            [s.exam.sop_uid for s in plan],
            [s.exam.study_uid for s in plan],
            [s.file for s in plan],
        ):
            assert len(set(values)) == len(values)
        assert max(len(s.exam.sop_uid) for s in plan) <= 62
        assert all(len(s.exam.accession) <= 16 for s in plan)

    def test_every_way_of_sending_occurs(self, plan):
        assert {s.exam.syntax for s in plan} == set(SYNTAXES)
        assert {s.exam.bits for s in plan} == {8, 10, 12}
        assert {s.exam.inverted for s in plan} == {True, False}
        assert {trap for s in plan for trap in s.exam.traps} == set(TRAPS)
        assert {s.exam.site for s in plan} == {"HSH", "CGC"}
        assert {s.exam.modality for s in plan} == {"DX", "CR"}

    def test_insurance_numbers_hold_name_and_birth_date_as_quebecs_do(self, plan):
        for study in plan[:50]:
            person = study.exam.person
            letters, first, second = person.insurance.split(" ")
            assert letters.isascii()
            assert letters.isalpha()
            assert len(letters) == 4
            assert first[:2] == person.born[2:4]
            assert int(first[2:]) == int(person.born[4:6]) + (50 if person.sex == "F" else 0)
            assert second[:2] == person.born[6:8]


class TestPixels:
    @pytest.mark.parametrize("syntax", SYNTAXES)
    @pytest.mark.parametrize(("bits", "inverted"), [(8, False), (10, True), (12, False)])
    def test_every_syntax_gives_the_same_picture_back(self, syntax, bits, inverted):
        rng = np.random.default_rng(0)
        picture = np.clip(np.linspace(0, 1, 60 * 44).reshape(60, 44) + rng.normal(0, 0.05, (60, 44)), 0, 1)
        exam = replace(plan_hospital(10, 0)[0].exam, syntax=syntax, bits=bits, inverted=inverted, traps=())
        dataset = pydicom.dcmread(io.BytesIO(encode_exam(exam, picture.astype(np.float32))))
        gray = dataset.pixel_array / (2**bits - 1)
        np.testing.assert_allclose(1 - gray if inverted else gray, picture, atol=0.5 / (2**bits - 1) + 1e-6)
        assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[syntax]


class TestJpegLossless:
    @pytest.mark.parametrize("bits", [8, 10, 12, 14])
    @pytest.mark.parametrize("kind", ["noise", "flat", "ramp", "edges"])
    def test_is_read_back_without_loss_by_another_decoder(self, bits, kind):
        top, rng = 2**bits, np.random.default_rng(1)
        frame = {
            "noise": rng.integers(0, top, (37, 53)),
            "flat": np.full((37, 53), top - 1),
            "ramp": np.arange(37 * 53).reshape(37, 53) % top,
            "edges": np.where(rng.random((37, 53)) < 0.5, 0, top // 2 - 1),
        }[kind].astype(np.uint8 if bits == 8 else np.uint16)
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.Rows, dataset.Columns = frame.shape
        dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * frame.itemsize, bits, bits - 1
        dataset.PixelData = encapsulate([encode_frame(frame, bits)])
        np.testing.assert_array_equal(dataset.pixel_array, frame)

    def test_refuses_more_bits_than_it_has_codes_for(self):
        with pytest.raises(ValueError, match="at most 14"):
            encode_frame(np.zeros((4, 4), np.uint16), 16)


class TestLabels:
    def test_labels_and_reports_cover_every_study(self, written, truth):
        labels, reports = rows_of(written / "labels.csv"), rows_of(written / "reports.csv")
        assert list(labels[0]) == ["AccessionNumber", *FINDINGS]
        assert {row["AccessionNumber"] for row in labels} == set(truth["studies"])
        assert len({row["AccessionNumber"] for row in reports} - set(truth["studies"])) == 1
        for row in labels:
            given = truth["studies"][row["AccessionNumber"]]["given"]
            assert [row[finding] for finding in FINDINGS] == [
                "" if given[finding] is None else f"{given[finding]:.1f}" for finding in FINDINGS
            ]

    def test_the_listed_errors_are_exactly_the_cells_that_are_wrong(self):
        for study in plan_hospital(300, 5):
            wrong = {
                finding
                for finding, given, true in zip(FINDINGS, study.given.values, study.truth, strict=True)
                if given != -1 and (given == 1) != (true == 1)
            }
            assert set(study.given.errors) == wrong

    def test_four_to_six_cells_in_a_hundred_are_wrong_in_every_way(self):
        plan = plan_hospital(600, 0)
        kinds = Counter(kind for study in plan for kind in study.given.errors.values())
        assert 0.035 < kinds.total() / (600 * len(FINDINGS)) < 0.065
        assert set(kinds) == {"missed", "swapped", "swapped for", "overcalled", "follows"}

    def test_no_finding_is_stated_or_blank_and_never_beside_another(self):
        others = [position(name) for name in FINDINGS if name not in ("No Finding", "Support Devices")]
        for study in plan_hospital(200, 1):
            values = study.given.values
            said = np.isin(values[others], (1.0, -1.0)).any()
            assert (values[position("No Finding")] == 1) == (not said)
            assert values[position("No Finding")] != 0

    def test_a_subtle_finding_is_hedged_more_often_than_a_plain_one(self):
        truth = np.zeros(len(FINDINGS))
        truth[position("Consolidation")] = 1
        rng = np.random.default_rng(0)
        share = [
            np.mean(
                [
                    given_labels(truth, {"Consolidation": s}, rng).values[position("Consolidation")] == -1
                    for _ in range(3000)
                ]
            )
            for s in (0.0, 1.0)
        ]
        assert share[0] > 1.8 * share[1]


class TestReports:
    def test_hold_identifiers_and_follow_the_given_labels(self, written, truth, planted):
        texts = {row["AccessionNumber"]: row["Report"] for row in rows_of(written / "reports.csv")}
        for accession, study in truth["studies"].items():
            who, text = planted[study["file"]], texts[accession]
            assert who["last"] in text
            assert who["ramq"] in text
            heading = "CONSTATATIONS:" if study["language"] == "fr" else "FINDINGS:"
            assert heading in text

    def test_are_written_in_both_languages(self):
        languages = Counter(study.language for study in plan_hospital(200, 0))
        assert languages["fr"] > 2 * languages["en"] > 10

    def test_the_labeler_reads_from_each_report_what_was_given(self):
        reports = pytest.importorskip("radia.reports", reason="the labeler of reports is not there yet")
        if not hasattr(reports, "label_report"):
            pytest.skip("the labeler of reports is not there yet")
        for study in plan_hospital(150, 2):
            read = reports.label_report(study.report).values
            given = {f: None if np.isnan(v) else int(v) for f, v in zip(FINDINGS, study.given.values, strict=True)}
            assert {f: read[f] for f in FINDINGS} == given, study.report


def test_the_demos_settings_are_valid(tmp_path):
    assert load_settings(Path(hospital.__file__).parent / "params.yaml").finetune.backbone == "densenet-slim"


def test_an_uncompressed_file_says_so(written, planted):
    path = next(path for path, who in planted.items() if who["syntax"] == "explicit")
    assert pydicom.dcmread(written / path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
