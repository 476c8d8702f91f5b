"""The embedded hospital: two sites, their patients, DICOM as they send it, reports, given labels, and the truth.

`write_hospital` lays down
    inbox/<site>/…      DICOM (and what else lies in a real inbox)
    reports.csv         AccessionNumber, Report
    labels.csv          AccessionNumber + 14 findings: the given labels, with known errors
    truth.json          true labels, boxes, the injected errors, the unusable files
    planted.json        per file: the identifiers planted in it and the boxes of burned-in text
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from radia.findings import FINDINGS
from radia.synthetic.anatomy import Body, Box, Pose, sample_body, sample_pose
from radia.synthetic.detector import knee
from radia.synthetic.headers import SYNTAXES, TRAPS, Exam, Person, burn_in, exam_dataset
from radia.synthetic.jpeg_lossless import encode_frame
from radia.synthetic.labelling import GivenLabels, given_labels
from radia.synthetic.pathology import Sign
from radia.synthetic.phantom import Progress, in_parallel, radiograph
from radia.synthetic.population import populations, progress_signs, sample_age, sample_signs, truth_of
from radia.synthetic.reporting import Letterhead, write_report

SIDE = 320
"""Rows of every radiograph; columns where the detector is not upright."""
LAST_DAY = date(2026, 9, 30)
RETURNING = 0.25
"""Share of the studies that are a later visit of a patient seen before."""


@dataclass(frozen=True)
class Study:
    """Everything about one study, decided before a pixel is drawn."""

    exam: Exam
    body: Body
    pose: Pose
    signs: tuple[Sign, ...]
    given: GivenLabels
    report: str
    language: str
    columns: int
    file: str  # relative to the hospital's folder
    seed: int

    @property
    def truth(self) -> NDArray[np.float64]:
        """[14] of 1 and 0."""
        return truth_of(self.signs)


@dataclass(frozen=True)
class Written:
    """What came of writing one study. Boxes: findings as fractions of the stored image, text in its pixels."""

    boxes: tuple[tuple[str, Box], ...]
    text_boxes: tuple[tuple[int, int, int, int], ...]


def write_hospital(
    out: Path, *, studies: int = 600, seed: int = 0, workers: int = 0, progress: Progress | None = None
) -> None:
    """Writes an invented hospital; the same bytes for the same studies and seed, whatever the number of workers.

    out: a folder that does not exist yet or is empty. workers: processes; 0: one per core. Raises FileExistsError
    where out holds something, ValueError below 10 studies.
    """
    if studies < 10:
        raise ValueError(f"{studies} studies: a hospital needs at least 10")
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty")
    plan = plan_hospital(studies, seed)
    for folder in sorted({(out / study.file).parent for study in plan}):
        folder.mkdir(parents=True, exist_ok=True)
    written: list[Written] = []
    for result in in_parallel(_write_task, [(study, out) for study in plan], workers=workers):
        written.append(result)
        if progress is not None:
            progress(len(written), studies)
    unusable = _plant_unusable(out, plan, seed)
    _write_tables(out, plan, seed)
    _write_json(out / "truth.json", _truth(plan, written, unusable))
    _write_json(
        out / "planted.json", {study.file: _planted(study, done) for study, done in zip(plan, written, strict=True)}
    )


def plan_hospital(studies: int, seed: int) -> list[Study]:
    """Who comes, when and with what; patients who return keep their body and, mostly, their findings."""
    patients = max(1, round(studies * (1 - RETURNING)))
    visits = _rng(seed, 0).integers(0, patients, studies - patients)
    order = [(patient, 0) for patient in range(patients)]
    seen = dict.fromkeys(range(patients), 0)
    for patient in visits.tolist():
        seen[patient] += 1
        order.append((patient, seen[patient]))
    histories = {patient: _history(seed, patient, count + 1) for patient, count in seen.items()}
    return [_study(seed, index, *histories[patient], visit) for index, (patient, visit) in enumerate(order)]


@dataclass(frozen=True)
class _Patient:
    person: Person
    body: Body
    site: str


def _history(seed: int, index: int, visits: int) -> tuple[_Patient, list[tuple[date, tuple[Sign, ...]]]]:
    """A patient and the day and findings of each visit."""
    rng = _rng(seed, 1, index)
    names = _people()
    site = "HSH" if rng.random() < 0.55 else "CGC"
    population = populations()[site]
    age = sample_age(rng, population)
    sex = "F" if rng.random() < 0.49 else "M"
    first_day = LAST_DAY - timedelta(days=int(rng.integers(200, 1400)))
    born = first_day - timedelta(days=int(age * 365.25 + rng.integers(1, 364)))
    last, first = _pick(rng, names["last"]), _pick(rng, names["women" if sex == "F" else "men"])
    person = Person(
        last=last,
        first=first,
        sex=sex,
        born=f"{born:%Y%m%d}",
        record=f"{2_000_000 + 37 * index + int(rng.integers(37))}",
        insurance=_insurance(last, first, sex, born, rng),
        phone=f"{_pick(rng, ['418', '450', '819', '873'])}-555-{int(rng.integers(10_000)):04d}",
        address=f"{int(rng.integers(10, 9800))} {_pick(rng, names['streets'])}, {_pick(rng, names['towns'])}",
    )
    body = sample_body(rng, sex=sex, age=age)
    course, day, signs = [], first_day, sample_signs(rng, population)
    for _ in range(visits):
        course.append((day, signs))
        day += timedelta(days=int(rng.integers(3, 190 // visits)))
        signs = progress_signs(rng, signs) if rng.random() < 0.5 else sample_signs(rng, population)
    return _Patient(person, body, site), course


def _study(
    seed: int, index: int, patient: _Patient, course: Sequence[tuple[date, tuple[Sign, ...]]], visit: int
) -> Study:
    rng = _rng(seed, 2, index)
    day, signs = course[visit]
    pose = sample_pose(rng, bedside=populations()[patient.site].bedside)
    exam = _exam(rng, index, patient, day, pose)
    truth = truth_of(signs)
    given = given_labels(truth, {sign.finding: sign.severity for sign in signs}, rng)
    language = "fr" if rng.random() < 0.8 else "en"
    head = Letterhead(
        hospital=exam.hospital,
        patient=f"{patient.person.first} {patient.person.last}",
        insurance=patient.person.insurance,
        record=patient.person.record,
        date=f"{day:%Y-%m-%d}",
        referrer=exam.referrer,
        reader=exam.reader,
    )
    report = write_report(given.values, head, rng, language=language, view=pose.view)
    return Study(
        exam=exam,
        body=patient.body,
        pose=pose,
        signs=signs,
        given=given,
        report=report,
        language=language,
        columns=270 if patient.site == "CGC" and rng.random() < 0.5 else SIDE,
        file=_file_name(exam, index),
        seed=int(rng.integers(2**31)),
    )


def _exam(rng: np.random.Generator, index: int, patient: _Patient, day: date, pose: Pose) -> Exam:
    names = _people()
    site = names["sites"][patient.site]
    device = site["devices"][int(rng.integers(len(site["devices"])))]
    born = patient.person.born
    years = day.year - int(born[:4]) - (f"{day:%m%d}" < born[4:])
    time = f"{int(rng.integers(7, 22)):02d}{int(rng.integers(60)):02d}{int(rng.integers(60)):02d}"
    stem = f"{site['root']}.{day:%Y%m%d}.{index + 1}"
    doctors = [f"{_pick(rng, ['Dr', 'Dre'])} {name}" for name in rng.choice(names["doctors"], 2, replace=False)]
    return Exam(
        person=patient.person,
        site=patient.site,
        hospital=site["name"],
        hospital_address=site["address"],
        department=site["department"],
        station=_pick(rng, site["stations"]),
        modality=device["modality"],
        manufacturer=device["manufacturer"],
        model=device["model"],
        serial=f"SN{int(rng.integers(100_000, 999_999))}",
        accession=f"{patient.site}{day:%y}{100_000 + 7 * index + int(rng.integers(7))}",
        date=f"{day:%Y%m%d}",
        time=time,
        age=years,
        view=pose.view,
        study_uid=f"{stem}.{int(rng.integers(10**9))}",
        series_uid=f"{stem}.1.{int(rng.integers(10**9))}",
        sop_uid=f"{stem}.1.1.{int(rng.integers(10**9))}",
        referrer=doctors[0],
        reader=doctors[1],
        technologist=_pick(rng, names["technologists"]),
        syntax=str(rng.choice(list(SYNTAXES), p=[0.15, 0.25, 0.15, 0.15, 0.15, 0.15])),
        bits=int(rng.choice([8, 10, 12], p=[0.25, 0.2, 0.55])),
        inverted=bool(rng.random() < (0.35 if patient.site == "CGC" else 0.15)),
        traps=tuple(trap for trap in TRAPS if rng.random() < (0.1 if trap in ("burned in", "overlay text") else 0.14)),
    )


def _file_name(exam: Exam, index: int) -> str:
    if "file name" in exam.traps:
        name = f"{exam.person.last}_{exam.person.first}_{exam.date}_{index:05d}.dcm".upper().replace(" ", "_")
    else:
        name = f"IM{index:06d}.dcm" if exam.site == "HSH" else f"{exam.date}/{exam.sop_uid}"
    return f"inbox/{exam.site}/{name}"


def _insurance(last: str, first: str, sex: str, born: date, rng: np.random.Generator) -> str:
    """Three letters of the last name, one of the first, the birth date (month + 50 for women), two digits."""
    letters = "".join(letter for letter in _plain(last) if letter.isalpha())[:3].ljust(3, "X") + _plain(first)[0]
    month = born.month + (50 if sex == "F" else 0)
    digits = f"{born:%y}{month:02d}{born:%d}{int(rng.integers(100)):02d}"
    return f"{letters} {digits[:4]} {digits[4:]}"


def _plain(name: str) -> str:
    return (
        unicodedata.normalize("NFKD", name.replace("Đ", "D").replace("đ", "d"))
        .encode("ascii", "ignore")
        .decode()
        .upper()
    )


# --- pixels and files -----------------------------------------------------------------------------------------------


def _write_task(task: tuple[Study, Path]) -> Written:
    study, out = task
    content, written = render_study(study)
    path = out / study.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return written


def render_study(study: Study) -> tuple[bytes, Written]:
    """The bytes of a study's DICOM file."""
    drawn = radiograph(
        study.body, study.pose, study.signs, populations()[study.exam.site].look, side=SIDE, seed=study.seed
    )
    cut = (SIDE - study.columns) // 2
    picture = np.ascontiguousarray(drawn.pixels[:, cut : cut + study.columns])
    text: list[tuple[int, int, int, int]] = []
    if "burned in" in study.exam.traps:
        text.append(burn_in(picture, study.exam, _rng(study.seed, 5)))
    boxes = tuple((finding, _cropped(box, cut, study.columns)) for finding, box in drawn.boxes)
    return encode_exam(study.exam, picture), Written(boxes, tuple(text))


def encode_exam(exam: Exam, picture: NDArray[np.float32]) -> bytes:
    """A DICOM file of a picture [rows, columns] in 0..1, bone white."""
    top = 2**exam.bits - 1
    shown = 1 - picture if exam.inverted else picture
    stored = np.rint(shown * top).astype(np.uint8 if exam.bits <= 8 else np.uint16)
    dataset = exam_dataset(exam, stored)
    _attach(dataset, exam, stored)
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _attach(dataset: Any, exam: Exam, stored: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    syntax = SYNTAXES[exam.syntax]
    if exam.syntax in ("implicit", "explicit"):
        raw = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        dataset.PixelData = raw + b"\0" * (len(raw) % 2)
        dataset["PixelData"].VR = "OB" if stored.itemsize == 1 and exam.syntax == "explicit" else "OW"
    elif exam.syntax == "jpeg-lossless":
        dataset.PixelData = encapsulate([encode_frame(stored, exam.bits)])
        dataset["PixelData"].VR = "OB"
    else:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, stored, generate_instance_uid=False)


def _cropped(box: Box, cut: int, columns: int) -> Box:
    x0, x1 = (min(max((edge * SIDE - cut) / columns, 0.0), 1.0) for edge in (box[0], box[2]))
    return x0, box[1], x1, box[3]


# --- what cannot be used --------------------------------------------------------------------------------------------


def _plant_unusable(out: Path, plan: Sequence[Study], seed: int) -> dict[str, str]:
    """A handful of files as every real inbox has them; their paths and why they cannot be used."""
    usual = [study for study in plan if study.exam.syntax == "explicit"] or list(plan)
    first, second, third = plan[0], plan[1], usual[0]
    folder = f"inbox/{first.exam.site}"
    content = (out / third.file).read_bytes()
    strange: dict[str, tuple[bytes, str]] = {
        "vide.dcm": (b"", "empty file"),
        "coupe.dcm": (_other_exam(third, 1, seed)[: len(content) // 2], "file cut short"),
        "lisez-moi.txt": (b"Liste d'envoi du lundi. Rappeler la salle 3.\n", "not a DICOM file"),
        "sans_image.dcm": (_without_pixels(second), "no pixel data"),
        "genou.dcm": (_knee(first, seed), "not a frontal chest radiograph"),
        "copie.dcm": ((out / second.file).read_bytes(), "the same bytes as another file"),
        "revise.dcm": (_other_exam(third, 0, seed), "SOP instance already there with other content"),
    }
    for name, (data, _) in strange.items():
        (out / folder / name).write_bytes(data)
    return {f"{folder}/{name}": why for name, (_, why) in strange.items()}


def _other_exam(study: Study, number: int, seed: int) -> bytes:
    """The same study drawn anew: number 0 keeps the SOP instance, others have their own."""
    exam = replace(study.exam, syntax="explicit", traps=())
    if number:
        exam = replace(exam, sop_uid=f"{exam.sop_uid}{number}", series_uid=f"{exam.series_uid}{number}")
    return render_study(replace(study, exam=exam, seed=study.seed ^ 0x5EED))[0]


def _without_pixels(study: Study) -> bytes:
    exam = replace(study.exam, syntax="explicit", sop_uid=f"{study.exam.sop_uid}7")
    dataset = exam_dataset(exam, np.zeros((SIDE, SIDE), np.uint16))
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _knee(study: Study, seed: int) -> bytes:
    exam = replace(
        study.exam,
        syntax="explicit",
        body_part="KNEE",
        view="AP",
        traps=(),
        bits=12,
        inverted=False,
        accession=f"{study.exam.accession}9",
        study_uid=f"{study.exam.study_uid}9",
        series_uid=f"{study.exam.series_uid}9",
        sop_uid=f"{study.exam.sop_uid}9",
    )
    return encode_exam(exam, knee(_rng(seed, 6), SIDE))


# --- tables ---------------------------------------------------------------------------------------------------------


def _write_tables(out: Path, plan: Sequence[Study], seed: int) -> None:
    """Reports and labels, in another order than the images, with one report whose images never came."""
    rng = _rng(seed, 7)
    order = rng.permutation(len(plan))
    with (out / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["AccessionNumber", "Report"])
        rows.writerows([plan[i].exam.accession, plan[i].report] for i in order)
        rows.writerow([f"{plan[0].exam.site}19{999_999}", plan[0].report])
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["AccessionNumber", *FINDINGS])
        for i in order:
            rows.writerow([plan[i].exam.accession, *(_cell(value) for value in plan[i].given.values)])


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1f}"


def _truth(plan: Sequence[Study], written: Sequence[Written], unusable: dict[str, str]) -> dict[str, Any]:
    studies: dict[str, dict[str, Any]] = {
        study.exam.accession: {
            "site": study.exam.site,
            "patient": study.exam.person.record,
            "file": study.file,
            "language": study.language,
            "true": {finding: int(value) for finding, value in zip(FINDINGS, study.truth, strict=True)},
            "given": {
                finding: None if np.isnan(value) else int(value)
                for finding, value in zip(FINDINGS, study.given.values, strict=True)
            },
            "severity": {sign.finding: round(sign.severity, 3) for sign in study.signs},
            "appearance": {sign.finding: sign.variant for sign in study.signs},
            "boxes": [{"finding": finding, "box": [round(edge, 4) for edge in box]} for finding, box in done.boxes],
        }
        for study, done in zip(plan, written, strict=True)
    }
    errors = [
        {
            "accession": study.exam.accession,
            "finding": finding,
            "given": studies[study.exam.accession]["given"][finding],
            "true": studies[study.exam.accession]["true"][finding],
            "kind": kind,
        }
        for study in plan
        for finding, kind in study.given.errors.items()
    ]
    return {"studies": studies, "errors": errors, "unusable": unusable}


def _planted(study: Study, written: Written) -> dict[str, Any]:
    exam, person = study.exam, study.exam.person
    return {
        "site": exam.site,
        "patient": person.record,
        "last": person.last,
        "first": person.first,
        "mrn": person.record,
        "ramq": person.insurance,
        "phone": person.phone,
        "address": person.address,
        "birth": person.born,
        "accession": exam.accession,
        "date": exam.date,
        "doctors": [exam.referrer, exam.reader],
        "study_uid": exam.study_uid,
        "series_uid": exam.series_uid,
        "sop_uid": exam.sop_uid,
        "serial": exam.serial,
        "kinds": list(exam.traps),
        "boxes": [list(box) for box in written.text_boxes],
        "bits": exam.bits,
        "mono1": exam.inverted,
        "syntax": exam.syntax,
        "view": exam.view,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


@cache
def _people() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("people.yaml").read_text(encoding="utf-8"))
    return loaded


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
