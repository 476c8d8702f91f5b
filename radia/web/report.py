"""A reading as DICOM: a Structured Report (TID 1500), and a Secondary Capture of the film with a heat map burned in.

What belongs here: the two objects, and whom they speak of. What does not: sending them (pacs.py). Both belong to the
study of the film that was read and refer to it. By default that is the study as RADIA's archive has it: pseudonyms,
moved dates, no burned-in text, made by the same de-identification. Only who asks for it by name gets the objects under
the identifiers of the uploaded file, which are held for as long as the request and no longer.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from radia import __version__
from radia.dicom.deidentify import Engine
from radia.errors import RadiaError, Reason, Refusal
from radia.images import content_of_square
from radia.web.imaging import read_film
from radia.web.reading import FindingRead, Reading, coloured

if TYPE_CHECKING:
    from highdicom.sc import SCImage
    from highdicom.sr import ComprehensiveSR, MeasurementsAndQualitativeEvaluations
    from pydicom.dataset import Dataset

Identifiers = Literal["pseudonymous", "original"]
SCHEME = "99RADIA"
MAKER = "RADIA"
NOTICE = "Assistance, not diagnosis"
LARGEST = 2048
"""Rows or columns of the Secondary Capture; a finer film is shrunk to that."""

_STANDARD = {
    "Cardiomegaly": ("SCT", "8186001"), "Edema": ("SCT", "19242006"), "Consolidation": ("SCT", "95436008"),
    "Pneumonia": ("SCT", "233604007"), "Atelectasis": ("SCT", "46621007"), "Pneumothorax": ("SCT", "36118008"),
    "Pleural Effusion": ("SCT", "60046008"),
}  # fmt: skip
"""SNOMED CT concepts that mean what CheXpert's labels mean; the other findings have codes of our own."""
_MEANINGS = {"Edema": "Pulmonary edema", "Consolidation": "Lung consolidation"}
_CALLS = {
    "above": "Above the operating point",
    "unsure": "Too near to the operating point to say",
    "below": "Below the operating point",
}


@dataclass(frozen=True)
class Source:
    """The film that a reading is of, as the objects refer to it. content: its file. header: its attributes."""

    content: bytes
    header: Dataset


def source_of(content: bytes, engine: Engine, identifiers: Identifiers = "pseudonymous") -> Source:
    """The uploaded DICOM file, cleaned, or as it came where its own identifiers are asked for.

    Raises Refusal for what is no DICOM image, and for what cannot be cleaned.
    """
    if content.startswith((b"\x89PNG", b"\xff\xd8")):
        raise Refusal(Reason.NOT_DICOM, "a report refers to a DICOM file")
    read_film(content)  # bounded: what follows believes the file's sizes
    cleaned = b"".join(bytes(piece) for piece in engine.deidentify_file(content, _sha256(content)).pieces)
    return Source(cleaned, _header(content if identifiers == "original" else cleaned))


def structured_report(reading: Reading, source: Source, *, now: datetime) -> ComprehensiveSR:
    """All findings with probability, operating point and verdict, as TID 1500 (PS3.16), unverified and preliminary."""
    from highdicom import UID
    from highdicom.sr import (
        CodedConcept,
        ComprehensiveSR,
        DeviceObserverIdentifyingAttributes,
        LanguageOfContentItemAndDescendants,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=_device_uid(reading), name=MAKER, manufacturer_name=MAKER, model_name=reading.model
    )
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(codes.DCM.Device, observer_identifying_attributes=device)
        ),
        procedure_reported=CodedConcept("399208008", "SCT", "Plain chest X-ray"),
        imaging_measurements=[_group(item, reading, source) for item in reading.findings],
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept("en", "RFC5646", "English")
        ),
        referenced_images=[source.header],
    )
    made = ComprehensiveSR(
        evidence=[source.header],
        content=report,
        series_instance_uid=UID(),
        series_number=9001,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=MAKER,
        is_complete=False,
        is_final=False,
    )
    _sign(made, reading, source, now, f"{MAKER} structured report")
    return made


def secondary_capture(reading: Reading, source: Source, finding: str | None, *, now: datetime) -> SCImage:
    """The film, without burned-in text, under the heat map of a finding and a line that says what it is.

    finding: None takes the one that is most probable by its own operating point. Raises RadiaError for another name.
    """
    from highdicom import UID
    from highdicom.sc import SCImage

    item = reading.of(finding) if finding else max(reading.findings, key=lambda item: item.probability - item.threshold)
    if item is None:
        raise RadiaError("no such finding: expected one of the model's")
    header = source.header
    made = SCImage.from_ref_dataset(
        ref_dataset=header,
        pixel_array=_drawn(source.content, item, reading),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=UID(),
        series_number=9002,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=MAKER,
        patient_orientation=_orientation(header) or ("L", "F"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    _state_what_is_known(made, header)
    made.BurnedInAnnotation = "NO"  # what is written into it identifies nobody
    made.ConversionType = "WSD"
    made.DerivationDescription = f"{MAKER} {reading.model}: heat map of {item.finding}. {NOTICE}."
    made.SourceImageSequence = [_reference(header)]
    _sign(made, reading, source, now, f"{MAKER} heat map: {item.finding}")
    return made


def as_bytes(made: Dataset) -> bytes:
    """A DICOM file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


# --- the report -------------------------------------------------------------------------------------------------------


def _group(item: FindingRead, reading: Reading, source: Source) -> MeasurementsAndQualitativeEvaluations:
    from highdicom import UID
    from highdicom.sr import (
        AlgorithmIdentification,
        CodedConcept,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    percent = codes.UCUM.Percent
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(UID(), item.finding),
        finding_type=CodedConcept(*code_of(item.finding)),
        algorithm_id=AlgorithmIdentification(MAKER, reading.model, parameters=[NOTICE]),
        source_images=[SourceImageForMeasurementGroup.from_source_image(source.header)],
        measurements=[
            Measurement(codes.DCM.Probability, round(100 * item.probability, 2), percent),
            Measurement(codes.DCM.ThresholdValue, round(100 * item.threshold, 2), percent),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(
                CodedConcept("verdict", SCHEME, "Verdict of the model"),
                CodedConcept(item.call, SCHEME, _CALLS[item.call]),
            )
        ],
    )


def code_of(finding: str) -> tuple[str, str, str]:
    """Value, scheme and meaning of a finding's code."""
    scheme, value = _STANDARD.get(finding, (SCHEME, finding.lower().replace(" ", "-")[:16]))
    return value, scheme, _MEANINGS.get(finding, finding)


def _device_uid(reading: Reading) -> str:
    """The same for the same model everywhere."""
    from pydicom.uid import generate_uid

    return str(generate_uid(prefix="2.25.", entropy_srcs=[MAKER, reading.model]))


# --- the image --------------------------------------------------------------------------------------------------------


def _drawn(content: bytes, item: FindingRead, reading: Reading) -> NDArray[np.uint8]:
    """The film with its heat map and its line, [rows, columns, 3]."""
    from PIL import Image, ImageDraw, ImageFont

    gray = read_film(content).gray
    rows, columns = _fitted(*gray.shape)
    film = Image.fromarray(np.rint(gray * 255).astype(np.uint8)).resize((columns, rows), Image.Resampling.LANCZOS)
    heat = Image.fromarray(np.rint(item.map * 255).astype(np.uint8)).resize((columns, rows), Image.Resampling.BICUBIC)
    glow = Image.fromarray(coloured(np.asarray(heat, np.float32) / np.float32(255)), "RGBA")
    picture = Image.alpha_composite(film.convert("RGBA"), glow).convert("RGB")
    size = max(11, columns // 48)
    font = ImageFont.load_default(size)
    lines = (
        f"{item.finding} {item.probability:.2f} (operating point {item.threshold:.2f})",
        f"{MAKER} {__version__}, {reading.model}. {NOTICE}.",
    )
    strip = Image.new("RGB", (columns, round(2.9 * size)), "black")
    for number, line in enumerate(lines):
        ImageDraw.Draw(strip).text((size // 2, round((0.25 + 1.25 * number) * size)), line, "#ffb454", font)
    whole = Image.new("RGB", (columns, rows + strip.height))
    whole.paste(picture, (0, 0))
    whole.paste(strip, (0, rows))
    return np.asarray(whole)


def _fitted(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns within the largest side."""
    if max(rows, columns) <= LARGEST:
        return rows, columns
    down, across = content_of_square(rows, columns, LARGEST)
    return down.stop - down.start, across.stop - across.start


def _orientation(header: Dataset) -> tuple[str, str] | None:
    """As the film has it; None where it does not say."""
    stated = tuple(str(part) for part in header.get("PatientOrientation") or ())
    return (stated[0], stated[1]) if len(stated) == 2 and all(stated) else None


def _state_what_is_known(made: Dataset, header: Dataset) -> None:
    """Empties what highdicom wants said and the film does not say (both of type 2C)."""
    if _orientation(header) is None:
        made.PatientOrientation = None
    if "Laterality" not in made:
        made.Laterality = None


# --- both -------------------------------------------------------------------------------------------------------------


def _header(content: bytes) -> Dataset:
    import pydicom

    header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not header.get(keyword):
            raise Refusal(Reason.UNREADABLE, "no study, series, class or instance UID")
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                    "StudyDate", "StudyTime", "ReferringPhysicianName"):  # fmt: skip
        if keyword not in header:
            setattr(header, keyword, None)  # of type 2: there, if empty
    name = str(header.PatientName or "")
    if name and "^" not in name:
        header.PatientName = f"{name}^"  # a family name alone, as PS3.5 6.2.1 writes it: the same name
    return header


def _reference(header: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item


def _sign(made: Dataset, reading: Reading, source: Source, now: datetime, description: str) -> None:
    """What both objects say of who made them, of whom and when."""
    made.SeriesDescription = description
    made.ManufacturerModelName = reading.model
    made.SoftwareVersions = __version__
    for keyword in ("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
                    "LongitudinalTemporalInformationModified"):  # fmt: skip
        if keyword in source.header:
            made[keyword] = source.header[keyword]
    made.SeriesDate = made.ContentDate = made.InstanceCreationDate = now.date()
    made.SeriesTime = made.ContentTime = made.InstanceCreationTime = now.time().replace(microsecond=0)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
