"""Uploads as images: what is kept at full depth, and what is refused before it is decoded."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)

from radia.errors import Refusal
from radia.web.examples import example
from radia.web.imaging import read_film

RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def dicom(syntax: str = ExplicitVRLittleEndian, pixels: bytes = RAMP.tobytes(), **header: object) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    dataset.PatientName, dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = "Essai^Un", 64, 64, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME2", pixels
    dataset["PixelData"].VR = "OW" if syntax == ExplicitVRLittleEndian else "OB"
    dataset["PixelData"].is_undefined_length = syntax == JPEGBaseline8Bit
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class TestFullDepth:
    def test_every_stored_value_keeps_a_shade_of_its_own_and_the_window_is_the_files(self) -> None:
        film = read_film(dicom(WindowCenter=2000, WindowWidth=1000))
        shown = film.display()
        assert np.array_equal(shown.shades, RAMP)
        again = np.clip((shown.shades - shown.low) / (shown.high - shown.low), 0, 1)
        assert np.allclose(again, film.gray, atol=2e-3)

    def test_bone_is_bright_where_the_file_has_it_dark(self) -> None:
        shown = read_film(dicom(PhotometricInterpretation="MONOCHROME1")).display()
        assert np.array_equal(shown.shades, 4095 - RAMP)

    def test_a_curve_is_shown_by_its_gray(self) -> None:
        film = read_film(dicom(WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID"))
        assert np.allclose(film.display().shades / 65535, film.gray, atol=1e-4)

    def test_a_png_of_sixteen_bits_keeps_them(self) -> None:
        buffer = io.BytesIO()
        Image.fromarray(RAMP * 16).save(buffer, "PNG")
        assert np.array_equal(read_film(buffer.getvalue()).display().shades, RAMP * 16)


class TestShown:
    def test_a_name_in_the_pixels_is_blanked_and_nothing_else_is(self) -> None:
        film = example(1)
        x0, y0, x1, y1 = film.text or (0, 0, 0, 0)
        whole = read_film(film.content).display()
        shown = whole.without_text()
        assert np.ptp(whole.shades[y0:y1, x0:x1]) > 2000
        assert shown.shades[y0:y1, x0:x1].max() == 0
        assert (shown.shades == whole.shades).mean() > 0.95
        assert np.array_equal(shown.shades[200:], whole.shades[200:])

    def test_the_shades_travel_row_by_row_with_what_the_viewer_must_know(self) -> None:
        content, told = read_film(dicom(WindowCenter=2000, WindowWidth=1000)).display().as_bytes()
        assert np.array_equal(np.frombuffer(content, "<u2").reshape(64, 64), RAMP)
        assert (told["X-Film-Rows"], told["X-Film-Columns"], told["X-Film-Bits"]) == ("64", "64", "16")
        assert float(told["X-Film-High"]) - float(told["X-Film-Low"]) == pytest.approx(999, abs=1)


def png_of(width: int, height: int) -> bytes:
    chunk = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"IHDR" + chunk
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">L", 13)
        + body
        + struct.pack(">L", zlib.crc32(body))
        + b"\0\0\0\x08IDAT"
        + bytes(20)
    )


def jpeg_of(width: int, height: int) -> bytes:
    frame = b"\xff\xc0" + struct.pack(">HBHHBBBB", 11, 8, height, width, 1, 1, 0x11, 0)
    return b"\xff\xd8" + frame + b"\xff\xd9"


def encapsulated(stream: bytes) -> bytes:
    from pydicom.encaps import encapsulate

    return bytes(encapsulate([stream]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (png_of(60_000, 60_000), "pixels"),
        (dicom(Rows=65_000, Columns=65_000), "more than 40,000,000 pixels"),
        (dicom(NumberOfFrames=1000), "more than 100 frames"),
        (dicom(JPEGBaseline8Bit, encapsulated(jpeg_of(60_000, 60_000))), "more than 40,000,000 pixels"),
        (dicom(SamplesPerPixel=200), "a size that cannot be"),
        (dicom(Rows=1, Columns=4096), "a strip"),
        (dicom(pixels=RAMP.tobytes()[:4000]), "file cut short"),
    ],
)
def test_what_announces_more_than_an_image_has_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        read_film(content)


def test_a_deflated_bomb_is_not_inflated() -> None:
    head = dicom(DeflatedExplicitVRLittleEndian)
    meta = head[: 132 + 12 + struct.unpack_from("<L", head, 140)[0]]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(300)), packer.flush()])
    with pytest.raises(Refusal, match="deflated data set of more than 256 MB"):
        read_film(meta + zeros)


def test_a_header_of_too_many_elements_is_refused() -> None:
    plain = dicom()
    element = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0)
    with pytest.raises(Refusal, match="more than 200,000 elements"):
        read_film(plain[: 132 + 12 + struct.unpack_from("<L", plain, 140)[0]] + element * 250_000)
