"""What a header says of an image, for the manifest: how it was taken and of whom in general, never who it is of.

Reads cleaned files. Values that are missing, empty or not of the standard's form are None: nothing is guessed here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from radia.errors import Reason, Refusal

OLDEST = 90
"""Ages above are given as this one: fewer people than that could be told apart (HIPAA, 45 CFR 164.514(b)(2)(i)(C))."""


@dataclass(frozen=True)
class Facts:
    """The header's facts. `age` in whole years; `view` as the header has it, in upper case."""

    modality: str | None
    body_part: str | None
    view: str | None
    sex: str | None
    age: int | None
    manufacturer: str | None
    model: str | None
    study_date: date | None
    rows: int | None
    columns: int | None
    bits: int | None
    photometric: str | None
    transfer_syntax: str | None


def open_image(path: Path) -> Dataset:
    """The dataset of one DICOM file, pixel data included. Raises Refusal."""
    return _read(path, header_only=False)


def read_facts(path: Path) -> Facts:
    """The facts of one DICOM file; its pixels are not read. Raises Refusal."""
    return facts_of(_read(path, header_only=True))


def facts_of(dataset: Dataset) -> Facts:
    """The facts of a dataset that is already read. Raises Refusal: pydicom converts a value when it is asked for."""
    try:
        return _facts(dataset)
    except Exception as error:  # pydicom has no root of its errors; the message may quote the file
        raise Refusal(Reason.UNREADABLE, type(error).__name__) from error


def _facts(dataset: Dataset) -> Facts:
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    return Facts(
        modality=_code(dataset, "Modality"),
        body_part=_code(dataset, "BodyPartExamined"),
        view=_code(dataset, "ViewPosition"),
        sex=_sex(_code(dataset, "PatientSex")),
        age=_age(_code(dataset, "PatientAge")),
        manufacturer=_text(dataset, "Manufacturer"),
        model=_text(dataset, "ManufacturerModelName"),
        study_date=_date(_text(dataset, "StudyDate")),
        rows=_count(dataset, "Rows"),
        columns=_count(dataset, "Columns"),
        bits=_count(dataset, "BitsStored"),
        photometric=_code(dataset, "PhotometricInterpretation"),
        transfer_syntax=str(syntax) if syntax else None,
    )


def _read(path: Path, *, header_only: bool) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=header_only)
    except pydicom.errors.InvalidDicomError as error:
        raise Refusal(Reason.NOT_DICOM) from error
    except Exception as error:  # as above
        raise Refusal(Reason.UNREADABLE, type(error).__name__) from error


def _text(dataset: Dataset, keyword: str) -> str | None:
    value = dataset.get(keyword)
    if value is None or isinstance(value, Dataset):
        return None
    return " ".join(str(value).split()) or None


def _code(dataset: Dataset, keyword: str) -> str | None:
    text = _text(dataset, keyword)
    return text.upper() if text else None


def _count(dataset: Dataset, keyword: str) -> int | None:
    value = dataset.get(keyword)
    return value if isinstance(value, int) else None


def _sex(code: str | None) -> str | None:
    return code if code in {"M", "F", "O"} else None


def _age(text: str | None) -> int | None:
    """Whole years from an Age String (PS3.5 section 6.2): three digits and D, W, M or Y."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text or "")
    if match is None:
        return None
    number, unit = int(match[1]), match[2]
    return min(OLDEST, {"D": number // 365, "W": number // 52, "M": number // 12, "Y": number}[unit])


def _date(text: str | None) -> date | None:
    match = re.fullmatch(r"(\d{4})(\d{2})(\d{2})", text or "")
    if match is None:
        return None
    try:
        return date(*map(int, match.groups()))
    except ValueError:
        return None
