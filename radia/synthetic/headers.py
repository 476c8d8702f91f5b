"""DICOM files as hospitals send them: complete headers full of invented identifiers, where real ones hide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from radia.synthetic.detector import font

IMPLEMENTATION = UID("2.999.1055.1")
"""Fixed, so that the same study has the same bytes whatever library wrote it."""

SYNTAXES: dict[str, UID] = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-lossless": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
}


@dataclass(frozen=True)
class Person:
    """An invented patient."""

    last: str
    first: str
    sex: str
    born: str  # yyyymmdd
    record: str  # the hospital's number
    insurance: str  # in the style of Quebec's: TREM 6554 1219
    phone: str
    address: str


@dataclass(frozen=True)
class Exam:
    """What a header says of one study, and how its file is written."""

    person: Person
    site: str
    hospital: str
    hospital_address: str
    department: str
    station: str
    modality: str
    manufacturer: str
    model: str
    serial: str
    accession: str
    date: str
    time: str
    age: int
    view: str
    study_uid: str
    series_uid: str
    sop_uid: str
    referrer: str
    reader: str
    technologist: str
    syntax: str
    bits: int
    inverted: bool  # MONOCHROME1
    traps: tuple[str, ...]  # where more identifiers hide: see `TRAPS`
    body_part: str = "CHEST"


TRAPS = (
    "name in description",
    "comments",
    "original attributes",
    "private sequence",
    "overlay text",
    "padded patient id",
    "file name",
    "burned in",
)


def exam_dataset(exam: Exam, stored: NDArray[np.uint8] | NDArray[np.uint16]) -> Dataset:
    """The dataset of an exam without its pixel data; `stored` gives rows and columns."""
    dataset = Dataset()
    dataset.file_meta = _file_meta(exam)
    _identify(dataset, exam)
    _describe(dataset, exam)
    _measure(dataset, exam, stored)
    for trap in exam.traps:
        if trap in _TRAPS:
            _TRAPS[trap](dataset, exam)
    return dataset


def sop_class(exam: Exam) -> UID:
    """Computed or digital radiography."""
    return ComputedRadiographyImageStorage if exam.modality == "CR" else DigitalXRayImageStorageForPresentation


def burn_in(picture: NDArray[np.float32], exam: Exam, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Writes name, number and date into a corner of [rows, columns] in 0..1, in place; returns its box in pixels."""
    rows, columns = picture.shape
    date = f"{exam.date[:4]}-{exam.date[4:6]}-{exam.date[6:]}"
    lines = [f"{exam.person.last.upper()} {exam.person.first}", exam.person.record, f"{exam.hospital}", date]
    shown = lines[: int(rng.integers(2, 5))]
    face = font(int(rng.integers(12, 19)))
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = probe.multiline_textbbox((0, 0), "\n".join(shown), font=face)
    wide, high = int(right - left) + 2, int(bottom - top) + 2
    x0 = 6 if rng.random() < 0.5 else max(columns - wide - 6, 0)
    y0 = rows - high - 6 if rng.random() < 0.6 else 6
    tile = Image.new("L", (wide, high), 0)
    ImageDraw.Draw(tile).multiline_text((1 - left, 1 - top), "\n".join(shown), fill=255, font=face)
    ink = np.asarray(tile, np.float32)[: rows - y0, : columns - x0] / 255
    part = picture[y0 : y0 + ink.shape[0], x0 : x0 + ink.shape[1]]
    boxed = rng.random() < 0.35  # some vendors write on a plate of their own
    part[...] = 0.95 * ink if boxed else part * (1 - ink) + ink
    return x0, y0, x0 + ink.shape[1], y0 + ink.shape[0]


def _file_meta(exam: Exam) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class(exam)
    meta.MediaStorageSOPInstanceUID = UID(exam.sop_uid)
    meta.TransferSyntaxUID = SYNTAXES[exam.syntax]
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "RADIA_PHANTOM"
    meta.SourceApplicationEntityTitle = exam.station[:16]
    return meta


def _identify(dataset: Dataset, exam: Exam) -> None:
    person = exam.person
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class(exam)
    dataset.SOPInstanceUID = exam.sop_uid
    dataset.StudyInstanceUID = exam.study_uid
    dataset.SeriesInstanceUID = exam.series_uid
    dataset.ReferencedStudySequence = Sequence(
        [_item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID=exam.study_uid)]
    )
    dataset.AccessionNumber = exam.accession
    dataset.StudyID = exam.accession[-6:]
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.PatientName = f"{person.last}^{person.first}"
    dataset.PatientID = person.record
    dataset.IssuerOfPatientID = exam.site
    dataset.PatientBirthDate = person.born
    dataset.PatientSex = person.sex
    dataset.PatientAge = f"{exam.age:03d}Y"
    dataset.PatientAddress = person.address
    dataset.PatientTelephoneNumbers = person.phone
    dataset.OtherPatientIDsSequence = Sequence(
        [_item(PatientID=person.insurance, IssuerOfPatientID="RAMQ", TypeOfPatientID="TEXT")]
    )
    for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PerformedProcedureStepStartDate"):
        setattr(dataset, name, exam.date)
    for name in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "PerformedProcedureStepStartTime"):
        setattr(dataset, name, exam.time)
    dataset.AcquisitionDateTime = f"{exam.date}{exam.time}-0500"


def _describe(dataset: Dataset, exam: Exam) -> None:
    dataset.Modality = exam.modality
    dataset.Manufacturer = exam.manufacturer
    dataset.ManufacturerModelName = exam.model
    dataset.DeviceSerialNumber = exam.serial
    dataset.StationName = exam.station[:16]
    dataset.InstitutionName = exam.hospital
    dataset.InstitutionAddress = exam.hospital_address
    dataset.InstitutionalDepartmentName = exam.department
    dataset.ReferringPhysicianName = _physician(exam.referrer)
    dataset.NameOfPhysiciansReadingStudy = _physician(exam.reader)
    dataset.PerformingPhysicianName = _physician(exam.reader)
    dataset.OperatorsName = "^".join(reversed(exam.technologist.split(" ", 1)))
    dataset.StudyDescription = "RX POUMONS" if exam.body_part == "CHEST" else f"RX {exam.body_part}"
    dataset.SeriesDescription = f"THORAX {exam.view}" if exam.body_part == "CHEST" else exam.body_part
    dataset.ProtocolName = dataset.SeriesDescription
    dataset.BodyPartExamined = exam.body_part
    dataset.ViewPosition = exam.view
    dataset.PatientOrientation = ["L", "F"]
    dataset.KVP = 120 if exam.view == "PA" else 90
    dataset.Exposure = 2 if exam.view == "PA" else 4
    dataset.DistanceSourceToDetector = 1800 if exam.view == "PA" else 1100
    dataset.RequestAttributesSequence = Sequence(
        [
            _item(
                RequestedProcedureID=exam.accession,
                ScheduledProcedureStepID=exam.accession,
                RequestedProcedureDescription="Radiographie pulmonaire",
            )
        ]
    )


def _measure(dataset: Dataset, exam: Exam, stored: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    rows, columns = stored.shape
    top = 2**exam.bits
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if exam.inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = 8 * stored.itemsize
    dataset.BitsStored, dataset.HighBit = exam.bits, exam.bits - 1
    dataset.PixelRepresentation = 0
    spacing = round(430 / rows, 4)
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.WindowCenter, dataset.WindowWidth = top // 2, top
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.BurnedInAnnotation = "NO"  # also where it is not so
    if exam.modality == "DX":
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.PresentationLUTShape = "INVERSE" if exam.inverted else "IDENTITY"
        dataset.PixelIntensityRelationship = "LOG"
        dataset.PixelIntensityRelationshipSign = 1 if exam.inverted else -1
        dataset.LossyImageCompression = "00"


def _name_in_description(dataset: Dataset, exam: Exam) -> None:
    dataset.StudyDescription = f"RX POUMONS {exam.person.last.upper()} {exam.person.first}"
    dataset.RequestAttributesSequence[
        0
    ].ScheduledProcedureStepDescription = f"RX POUMONS pour {exam.person.first} {exam.person.last}"


def _comments(dataset: Dataset, exam: Exam) -> None:
    person = exam.person
    dataset.PatientComments = f"Joindre {person.first} {person.last} au {person.phone}, {person.address}"
    dataset.ImageComments = f"Vu avec {exam.reader}. RAMQ {person.insurance}"
    dataset.AdditionalPatientHistory = (
        f"M./Mme {person.last}, né(e) le {person.born[:4]}-{person.born[4:6]}-{person.born[6:]}"
    )


def _original_attributes(dataset: Dataset, exam: Exam) -> None:
    former = _item(
        PatientName=f"{exam.person.last.upper()}^{exam.person.first.upper()}", PatientID=exam.person.insurance
    )
    dataset.OriginalAttributesSequence = Sequence(
        [
            _item(
                ModifiedAttributesSequence=Sequence([former]),
                AttributeModificationDateTime=f"{exam.date}{exam.time}",
                ModifyingSystem=exam.station,
                SourceOfPreviousValues=exam.hospital,
                ReasonForTheAttributeModification="CORRECT",
            )
        ]
    )


def _private_sequence(dataset: Dataset, exam: Exam) -> None:
    block = dataset.private_block(0x0029, "RADIA PHANTOM VENDOR", create=True)
    block.add_new(0x10, "LO", f"{exam.person.last}, {exam.person.first} ({exam.person.record})")
    block.add_new(0x11, "DS", "0.168")
    inner = Dataset()
    inside = inner.private_block(0x0031, "RADIA PHANTOM NESTED", create=True)
    inside.add_new(0x01, "LT", f"{exam.person.insurance} / {exam.person.phone} / {exam.reader}")
    block.add_new(0x20, "SQ", Sequence([inner]))


def _overlay(dataset: Dataset, exam: Exam) -> None:
    """A bit plane with the name drawn in it, and the name again in its description."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    plane = Image.new("1", (columns, rows), 0)
    text = f"{exam.person.last.upper()} {exam.person.record}"
    ImageDraw.Draw(plane).text((10, rows - 30), text, fill=1, font=font(16))
    bits = np.packbits(np.asarray(plane, np.uint8).ravel(), bitorder="little").tobytes()
    for element, vr, value in (
        (0x0010, "US", rows),
        (0x0011, "US", columns),
        (0x0022, "LO", f"{exam.person.first} {exam.person.last}"),
        (0x0040, "CS", "G"),
        (0x0050, "SS", [1, 1]),
        (0x0100, "US", 1),
        (0x0102, "US", 0),
        (0x1500, "LO", exam.person.record),
        (0x3000, "OW", bits + b"\0" * (len(bits) % 2)),
    ):
        dataset.add_new((0x6000, element), vr, value)


def _padded_id(dataset: Dataset, exam: Exam) -> None:
    """The same number as another system writes it: leading zeros would make another patient of them."""
    dataset.PatientID = f" {exam.person.record} "


_TRAPS = {
    "name in description": _name_in_description,
    "comments": _comments,
    "original attributes": _original_attributes,
    "private sequence": _private_sequence,
    "overlay text": _overlay,
    "padded patient id": _padded_id,
}


def _physician(written: str) -> str:
    """'Dre Auclair' as a person's name of DICOM."""
    title, _, last = written.partition(" ")
    return f"{last}^^^{title}"


def _item(**elements: object) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
