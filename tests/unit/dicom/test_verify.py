"""The look at what would be written: each way in which a cleaner could fail ends in a refusal."""

from __future__ import annotations

import struct

import pytest

from radia.dicom import container
from radia.dicom.container import PIXEL_DATA, Dataset, Element
from radia.dicom.identifiers import Identifiers
from radia.dicom.profile import Profile
from radia.dicom.verify import verify
from radia.errors import Reason, Refusal
from radia.settings import DeidentifySettings

PROFILE = Profile(DeidentifySettings(clean_pixels=False))
METHODS = [code for code, _ in PROFILE.methods()]
PATIENT = Identifiers(["Archambault", "4118592"], names=["Archambault"])
PIXELS = Element(PIXEL_DATA, "OW", bytes(8192))


def dataset(*more: Element, methods: list[str] | None = None) -> Dataset:
    """What a cleaner might have left."""
    made = Dataset()
    for element in (Element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.1"), Element(0x00080060, "CS", b"CR"), *more):
        made.add(element)
    codes = []
    for code in METHODS if methods is None else methods:
        item = Dataset()
        item.add(Element(0x00080100, "SH", code.encode()))
        codes.append(item)
    made.add(Element(0x00120064, "SQ", items=codes))
    return made


def file_of(made: Dataset, pixels: Element = PIXELS) -> list[container.Buffer]:
    header = container.encode_header("1.2.840.10008.5.1.4.1.1.1", "2.25.7", container.EXPLICIT)
    return [header, container.encode(made), *container.encode_element(pixels)]


def objection(pieces: list[container.Buffer], pixels: Element = PIXELS, made: tuple[bytes, ...] = ()) -> str:
    """What is said against a file; empty where it passes."""
    try:
        verify(pieces, pixels, PATIENT, PROFILE, made=made, methods=METHODS)
    except Refusal as refusal:
        return str(refusal).removeprefix(f"{Reason.RESIDUAL_IDENTIFIER.value}: ")
    return ""


def test_a_clean_file_passes() -> None:
    assert objection(file_of(dataset())) == ""


@pytest.mark.parametrize("text", [b"ARCHAMBAULT", b"x4118592 ", "Archambault".encode("utf-16-be")])
def test_an_identifier_in_a_kept_attribute_is_found(text: bytes) -> None:
    assert objection(file_of(dataset(Element(0x00080070, "LO", text)))) == "in the header"


def test_an_identifier_is_found_in_an_item() -> None:
    item = Dataset()
    item.add(Element(0x00080104, "LO", b"Archambault"))
    assert objection(file_of(dataset(Element(0x00082218, "SQ", items=[item])))) == "in the header"


def test_an_identifier_at_the_start_of_the_pixels_is_found() -> None:
    pixels = Element(PIXEL_DATA, "OW", b"\x01\x02Archambault".ljust(8192, b"\0"))
    assert objection(file_of(dataset(), pixels), pixels) == "in the pixel data"


def test_what_we_made_ourselves_may_look_like_an_identifier() -> None:
    made = b"2.25.77411859200"
    pieces = file_of(dataset(Element(0x00080018, "UI", made)))
    assert objection(pieces, made=(made,)) == ""
    assert objection(pieces) == "in the header"


@pytest.mark.parametrize("tag", [0x00100010 + 0x50, 0x00104000, 0x00189FFE, 0x00091001, 0x60003000, 0x50003000])
def test_an_attribute_that_no_rule_keeps_is_found(tag: int) -> None:
    assert "may not stand" in objection(file_of(dataset(Element(tag, "LO", b"text"))))


def test_an_attribute_that_no_rule_keeps_is_found_in_an_item() -> None:
    item = Dataset()
    item.add(Element(0x00104000, "LT", b"text"))
    assert "may not stand" in objection(file_of(dataset(Element(0x00082218, "SQ", items=[item]))))


@pytest.mark.parametrize("methods", [[], METHODS[:-1], [*METHODS, "113101"]])
def test_methods_that_were_not_applied_may_not_be_stated(methods: list[str]) -> None:
    assert "methods" in objection(file_of(dataset(methods=methods)))


def test_a_preamble_and_a_foreign_group_2_are_found() -> None:
    pieces = file_of(dataset())
    assert "preamble" in objection([b"x" * 128 + bytes(pieces[0])[128:], *pieces[1:]])
    source = struct.pack("<HH2sH", 2, 0x16, b"AE", 4) + b"PACS"
    assert "form" in objection([bytes(pieces[0]) + source, *pieces[1:]])


def test_bytes_that_belong_to_no_element_are_found() -> None:
    pieces = file_of(dataset())
    assert "form" in objection([pieces[0], bytes(pieces[1]) + b"\0" * 6, *pieces[2:]])
    assert "form" in objection([pieces[0], bytes(pieces[1])[:-1], *pieces[2:]])


def test_a_file_without_its_pixels_is_found() -> None:
    assert "form" in objection(file_of(dataset())[:2])
