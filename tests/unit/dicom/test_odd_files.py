"""Files that are odd and yet valid, or nearly: none is refused, and what they are for stays."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from radia.dicom import container
from radia.dicom.deidentify import Engine
from radia.dicom.text import plain
from radia.settings import DeidentifySettings
from tests.spec.hard_files import HardFile, Person, _ordinary, _text, _written, leaked, pixels

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ENGINE = Engine(bytes(32), DeidentifySettings(clean_pixels=False))
PERSON = Person.invented(1)


def _set(**values: object) -> Callable[[Dataset], None]:
    def change(image: Dataset) -> None:
        for name, value in values.items():
            setattr(image, name, value)

    return change


def _raw(**values: str) -> Callable[[Dataset], None]:
    def change(image: Dataset) -> None:
        for name, value in values.items():
            _text(image, name, value)

    return change


def _table_of_shades(image: Dataset) -> None:
    item = Dataset()
    item.LUTDescriptor, item.LUTExplanation = [4096, 0, 12], "NORMAL"
    item.add_new(0x00283006, "OW", np.arange(4096, dtype="u2").tobytes())
    image.VOILUTSequence = Sequence([item])


def _large_private(image: Dataset) -> None:
    block = image.private_block(0x29, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", bytes(50_000))
    block.add_new(0x20, "SQ", Sequence([Dataset()]))


def _of_undefined_length(image: Dataset) -> None:
    image.ReferencedImageSequence = Sequence([Dataset()])
    image["ReferencedImageSequence"].is_undefined_length = True


def _without_a_character_set(image: Dataset) -> None:
    del image.SpecificCharacterSet
    image.PatientName, image.PatientAddress = plain(PERSON.last), plain(PERSON.address)
    image.InstitutionName = "Verdun"


def _without(*names: str) -> Callable[[Dataset], None]:
    def change(image: Dataset) -> None:
        for name in names:
            delattr(image, name)

    return change


ODD: dict[str, Callable[[Dataset], None]] = {
    "numbers as short as measures": _set(PatientID="1800", AccessionNumber="1390", ImagerPixelSpacing=[0.139, 0.139]),
    "numbers of one figure": _set(PatientID="7", AccessionNumber="12"),
    "a round number": _set(PatientID="100000", ExposureInuAs=100000),
    "a date as number": _set(PatientID=PERSON.date),
    "the number in the study's UID": _set(StudyInstanceUID=f"1.2.3.{PERSON.record}.1"),
    "a UID of full length": _set(StudyInstanceUID="1.2.840." + "1" * 56),
    "a station of the vendor's name": _set(StationName="FUJIFILM"),
    "a patient of a word's name": _set(PatientName="Main^Rose", StudyDescription="Main droite"),
    "a patient of the region's name": _set(PatientName="Chest^Pa"),
    "an operator of the view's name": _set(OperatorsName="PA^CR", ReferringPhysicianName="Chest^Lateral"),
    "an institution of ordinary words": _set(
        InstitutionName="Institut thorax", InstitutionalDepartmentName="RADIOLOGIE"
    ),
    "hardly any attribute": _without("StudyID", "SeriesNumber", "InstanceNumber", "Manufacturer", "PatientSex"),
    "one frame, said so": _set(NumberOfFrames=1),
    "two windows": _set(WindowCenter=["2048", "1024"], WindowWidth=["4096", "2048"]),
    "a table of shades": _table_of_shades,
    "bone dark": _set(PhotometricInterpretation="MONOCHROME1"),
    "no character set named": _set(SpecificCharacterSet=""),
    "no character set": _without_a_character_set,
    "a character set that does not exist": _set(SpecificCharacterSet="ISO_IR 999"),
    "an age of two figures": _raw(PatientAge="45Y"),
    "a year of birth": _raw(PatientBirthDate="1950"),
    "no study date": _set(StudyDate=""),
    "a time with colons": _raw(StudyTime="10:11:12"),
    "a sequence of undefined length": _of_undefined_length,
    "signed pixels": _set(PixelRepresentation=1),
    "a description too long": _raw(StudyDescription="x" * 300),
    "codes in lower case": _raw(Modality="cr", PatientSex="f"),
    "a number too long": _raw(ImagerPixelSpacing="0.13888888888888888"),
    "a signed smallest value": lambda image: image.add(DataElement(0x00280106, "SS", -5)),
    "large private attributes": _large_private,
    "an empty value first among character sets": _set(SpecificCharacterSet=["", "ISO 2022 IR 100"]),
    "a character set misspelt": _set(SpecificCharacterSet="ISO-IR 100"),
    "a character set of another name": _raw(SpecificCharacterSet="UTF-8"),
    "a number of letters and accents": _set(PatientID="HND-É12/4"),
    "a class for processing": _set(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1", Modality="CR"),
    "a secondary capture": _set(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="CR", ConversionType="WSD"),
    "a retired attribute": _raw(ImageFormat="RECT", CompressionCode="NONE"),
    "empty sequences": _set(ReferencedStudySequence=Sequence(), RequestAttributesSequence=Sequence()),
    "a hundred items": _set(ReferencedImageSequence=Sequence([Dataset() for _ in range(100)])),
    "no name": _set(PatientName=""),
    "a name of one letter": _set(PatientName="X^Y", PatientID="4118"),
    "a name of figures": _set(PatientName="123456^7"),
    "a name with a question mark alone": _set(PatientName="?^??"),
    "a name of dashes": _set(PatientName="---"),
    "a patient of a maker's name": _set(PatientName="Fuji^Canon"),
    "an unborn patient": _set(PatientBirthDate="", PatientAge=""),
    "a study of tomorrow": _set(StudyDate="20991231"),
    "a birth date after the study": _set(PatientBirthDate="20990101"),
    "values of spaces": _raw(StudyDescription="    ", Manufacturer="  "),
    "a great many values": _set(SoftwareVersions=[f"1.{number}" for number in range(40)]),
    "windows in exponents": _raw(WindowCenter="2.048E3", WindowWidth="4.096e+03"),
    "padding of the largest value": _set(PixelPaddingValue=4095),
}
CUT: dict[str, Callable[[bytes], bytes]] = {
    "no preamble": lambda raw: raw[132:],
    "no group 2": lambda raw: raw[144 + int.from_bytes(raw[140:144], "little") :],
    "zeros up to a block's end": lambda raw: raw + bytes(512),
    "a padding element": lambda raw: raw + struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 20) + bytes(20),
    "one zero too many": lambda raw: raw + b"\0",
    "group 2 counted wrongly": lambda raw: raw[:140] + b"\4\0\0\0" + raw[144:],
    "a preamble of words": lambda raw: b"EXPORTED BY A GATEWAY".ljust(128) + raw[128:],
    "a preamble of another format": lambda raw: b"II*\0" + bytes(124) + raw[128:],
}


def file_of(change: Callable[[Dataset], None], syntax: str = container.EXPLICIT) -> bytes:
    image = _ordinary(PERSON)
    change(image)
    return _written(HardFile(PERSON, image, FileMetaDataset(), syntax), 1)


def cleaned(raw: bytes) -> pydicom.Dataset:
    out = b"".join(map(bytes, ENGINE.deidentify_file(raw, "0" * 64).pieces))
    assert leaked(out, PERSON.secrets) == []
    return pydicom.dcmread(BytesIO(out))


@pytest.mark.parametrize("syntax", [container.EXPLICIT, container.IMPLICIT, container.JPEG_2000_LOSSLESS])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_is_cleaned(odd: str, syntax: str) -> None:
    after = cleaned(file_of(ODD[odd], syntax))
    assert after.Modality.upper() == "CR"
    assert after.pixel_array.shape == (40, 40)


@pytest.mark.parametrize("syntax", [container.EXPLICIT, container.IMPLICIT])
@pytest.mark.parametrize("cut", CUT)
def test_an_odd_container_is_opened(cut: str, syntax: str) -> None:
    after = cleaned(CUT[cut](file_of(lambda image: None, syntax)))
    assert np.array_equal(after.pixel_array, pixels(1))
    assert after.preamble == bytes(128)


def test_a_measure_that_looks_like_part_of_a_number_stays() -> None:
    after = cleaned(file_of(ODD["numbers as short as measures"]))
    assert list(after.ImagerPixelSpacing) == [0.139, 0.139]


def test_a_table_of_shades_stays() -> None:
    after = cleaned(file_of(_table_of_shades))
    assert after.VOILUTSequence[0].LUTDescriptor[0] == 4096
