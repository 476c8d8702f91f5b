"""Pixel data frame by frame: several frames, colour, bits that are not image, what stands in compressed streams."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from radia.dicom import container
from radia.dicom.codestream import precision, without_comments
from radia.dicom.deidentify import CleanFile, Engine
from radia.dicom.pixels import encode_lossless
from radia.errors import Reason, Refusal
from radia.settings import DeidentifySettings
from tests.spec.hard_files import SYNTAXES, HardFile, Person, _ordinary, _written, leaked, pixels
from tests.unit.test_dicom_burned_in import body, written

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HEADERS = Engine(bytes(32), DeidentifySettings(clean_pixels=False))
ALL = Engine(bytes(32), DeidentifySettings())


def file_of(image: Dataset, syntax: str) -> bytes:
    return _written(HardFile(Person.invented(1), image, FileMetaDataset(), syntax), 1)


def image_of(frames: list[np.ndarray], syntax: str, *, bits: int = 12) -> Dataset:
    """A CR image of one frame or a multi-frame one, in the syntax."""
    image = _ordinary(Person.invented(1))
    image.Rows, image.Columns = frames[0].shape
    image.BitsStored, image.HighBit = bits, bits - 1
    if len(frames) > 1:
        image.NumberOfFrames = len(frames)
    pieces = [encode_lossless(frame, syntax, bits=bits, allocated=16)[1] for frame in frames]
    if isinstance(pieces[0], list):
        image.PixelData = encapsulate([bytes(piece[0]) for piece in pieces])
        image["PixelData"].VR = "OB"
    else:
        image.PixelData = b"".join(bytes(piece) for piece in pieces)  # type: ignore[arg-type]
        image["PixelData"].VR = "OW"
    return image


def cleaned(raw: bytes, engine: Engine = HEADERS) -> tuple[pydicom.Dataset, CleanFile]:
    clean = engine.deidentify_file(raw, "0" * 64)
    return pydicom.dcmread(BytesIO(b"".join(map(bytes, clean.pieces)))), clean


class TestSeveralFrames:
    @pytest.mark.parametrize("syntax", SYNTAXES)
    def test_stay_as_they_are(self, syntax: str) -> None:
        frames = [pixels(seed) for seed in range(3)]
        after, _ = cleaned(file_of(image_of(frames, SYNTAXES[syntax]), SYNTAXES[syntax]))
        assert after.NumberOfFrames == 3
        assert np.array_equal(after.pixel_array, np.stack(frames))

    @pytest.mark.parametrize("syntax", [container.EXPLICIT, container.JPEG_LS])
    def test_lose_the_text_of_any(self, syntax: str) -> None:
        marked, box = written("TREMBLAY Luc 1951", height=24)
        after, clean = cleaned(file_of(image_of([body(), marked, body()], syntax), syntax), ALL)
        changed = after.pixel_array != np.stack([body(), marked, body()])
        assert changed[1, box.y0 : box.y1, box.x0 : box.x1].mean() > 0.9
        assert not changed[[0, 2]].any()
        assert len(clean.outcome.boxes) >= 1

    def test_in_several_fragments_each_are_told_apart(self) -> None:
        frames = [pixels(seed) for seed in range(2)]
        image = image_of(frames, container.JPEG_LS)
        streams = [bytes(encode_lossless(frame, container.JPEG_LS, bits=12, allocated=16)[1][0]) for frame in frames]
        image.PixelData = encapsulate(streams, fragments_per_frame=2)
        after, _ = cleaned(file_of(image, container.JPEG_LS))
        assert np.array_equal(after.pixel_array, np.stack(frames))

    def test_that_cannot_be_told_apart_are_refused(self) -> None:
        image = image_of([pixels(0), pixels(1)], container.JPEG_LS)
        image.NumberOfFrames = 3
        with pytest.raises(Refusal, match="told apart"):
            cleaned(file_of(image, container.JPEG_LS))

    def test_that_are_not_all_there_are_refused(self) -> None:
        image = image_of([pixels(0), pixels(1)], container.EXPLICIT)
        image.NumberOfFrames = 3
        with pytest.raises(Refusal) as refused:
            cleaned(file_of(image, container.EXPLICIT))
        assert refused.value.reason is Reason.TRUNCATED

    def test_with_functional_groups_are_refused(self) -> None:
        image = image_of([pixels(0), pixels(1)], container.EXPLICIT)
        image.SharedFunctionalGroupsSequence = pydicom.Sequence([Dataset()])
        with pytest.raises(Refusal, match="functional groups"):
            cleaned(file_of(image, container.EXPLICIT))


def colour(text: str, ink: tuple[int, int, int]) -> tuple[np.ndarray, object]:
    """A gray body as RGB with a line of text in one colour."""
    gray = (body() >> 4).astype("u1")
    channels, box = [], None
    for shade in ink:
        drawn, box = written(text, height=24, ink=shade, base=gray)
        channels.append(drawn.astype("u1"))
    return np.stack(channels, axis=-1), box


def colour_file(stored: np.ndarray, *, planes: bool = False) -> bytes:
    image = _ordinary(Person.invented(1))
    image.Rows, image.Columns = stored.shape[:2]
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", int(planes)
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelData = (np.moveaxis(stored, -1, 0) if planes else stored).tobytes()
    image["PixelData"].VR = "OB"
    return file_of(image, container.EXPLICIT)


class TestColour:
    @pytest.mark.parametrize(("ink", "planes"), [((255, 0, 0), False), ((255, 255, 0), True)])
    def test_loses_its_text(self, ink: tuple[int, int, int], planes: bool) -> None:
        stored, box = colour("TREMBLAY Luc 1951", ink)
        after, clean = cleaned(colour_file(stored, planes=planes), ALL)
        changed = (after.pixel_array != stored).any(axis=-1)
        assert changed[box.y0 : box.y1, box.x0 : box.x1].mean() > 0.9  # type: ignore[attr-defined]
        for x0, y0, x1, y1 in clean.outcome.boxes:
            changed[y0:y1, x0:x1] = False
        assert not changed.any()

    def test_without_text_stays_as_it_is(self) -> None:
        stored = np.stack([(body() >> 4).astype("u1")] * 3, axis=-1)
        after, clean = cleaned(colour_file(stored), ALL)
        assert np.array_equal(after.pixel_array, stored)
        assert clean.outcome.boxes == []

    def test_in_a_space_that_is_not_known_is_refused(self) -> None:
        raw = colour_file(np.zeros((64, 64, 3), "u1")).replace(b"RGB ", b"HSV ")
        with pytest.raises(Refusal, match="colour space"):
            cleaned(raw)


class TestPalette:
    @staticmethod
    def file(order: np.ndarray) -> tuple[bytes, np.ndarray, object]:
        """A body with a name, in shades of gray that a palette gives to numbers in another order."""
        drawn, box = written("TREMBLAY Luc 1951", height=24, ink=255, base=(body() >> 4).astype("u1"))
        image = _ordinary(Person.invented(1))
        stored = np.argsort(order).astype("u1")[drawn.astype("u1")]
        image.Rows, image.Columns = stored.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "PALETTE COLOR"
        image.BitsAllocated = image.BitsStored = 8
        image.HighBit = 7
        for colour in ("Red", "Green", "Blue"):
            setattr(image, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(image, f"{colour}PaletteColorLookupTableData", (order.astype("<u2") * 257).tobytes())
        image.PixelData = stored.tobytes()
        image["PixelData"].VR = "OB"
        return file_of(image, container.EXPLICIT), stored, box

    def test_text_is_found_in_its_colours_and_not_in_the_order_of_its_numbers(self) -> None:
        raw, stored, box = self.file(np.random.default_rng(0).permutation(256))
        after, _ = cleaned(raw, ALL)
        changed = np.frombuffer(after.PixelData, "u1").reshape(stored.shape) != stored
        assert changed[box.y0 : box.y1, box.x0 : box.x1].mean() > 0.9  # type: ignore[attr-defined]


class TestBitsThatAreNotImage:
    @pytest.mark.parametrize("syntax", ["jpeg lossless", "jpeg-ls", "jpeg 2000", "rle"])
    def test_go_from_compressed_streams_too(self, syntax: str) -> None:
        stored = pixels(1)
        marked = stored | (np.eye(40, dtype="u2") << 14)
        image = image_of([marked], SYNTAXES[syntax], bits=16)
        image.BitsStored, image.HighBit = 12, 11
        raw = file_of(image, SYNTAXES[syntax])
        clean = HEADERS.deidentify_file(raw, "0" * 64)
        after = pydicom.dcmread(BytesIO(b"".join(map(bytes, clean.pieces))))
        assert np.array_equal(after.pixel_array, stored)
        after.BitsStored, after.HighBit = 16, 15
        assert np.array_equal(after.pixel_array, stored)

    @pytest.mark.parametrize("syntax", ["jpeg lossless", "jpeg 2000"])
    def test_that_are_empty_leave_the_stream_as_it_came(self, syntax: str) -> None:
        image = image_of([pixels(1)], SYNTAXES[syntax], bits=16)
        image.BitsStored, image.HighBit = 12, 11
        raw = file_of(image, SYNTAXES[syntax])
        before = next(pydicom.encaps.generate_frames(pydicom.dcmread(BytesIO(raw)).PixelData, number_of_frames=1))
        after, _ = cleaned(raw)
        kept = next(pydicom.encaps.generate_frames(after.PixelData, number_of_frames=1))
        assert kept.rstrip(b"\0") == without_comments(before, jpeg_2000=syntax == "jpeg 2000")


@pytest.mark.parametrize("syntax", ["jpeg lossless", "jpeg-ls", "jpeg 2000"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_stream_says_how_deep_it_is(syntax: str, bits: int) -> None:
    stored = (pixels(1) & ((1 << bits) - 1)).astype("u2" if bits > 8 else "u1")
    content = encode_lossless(stored, SYNTAXES[syntax], bits=bits, allocated=16 if bits > 8 else 8)[1]
    stream = without_comments(bytes(content[0]), jpeg_2000=syntax == "jpeg 2000")
    assert precision(stream, jpeg_2000=syntax == "jpeg 2000") == bits


def test_nothing_of_the_header_stays_in_a_colour_file() -> None:
    raw = colour_file(np.zeros((64, 64, 3), "u1"))
    out = b"".join(map(bytes, HEADERS.deidentify_file(raw, "0" * 64).pieces))
    assert leaked(out, Person.invented(1).secrets) == []


class TestOverlays:
    """Planes of their own stay under Clean Graphics where nothing is written in them, by drawing or by bytes."""

    @staticmethod
    def with_overlay(plane: np.ndarray) -> bytes:
        image = image_of([body()], container.EXPLICIT)
        rows, cols = plane.shape
        image.add_new(0x60000010, "US", rows)
        image.add_new(0x60000011, "US", cols)
        image.add_new(0x60000040, "CS", "G")
        image.add_new(0x60000050, "SS", [1, 1])
        image.add_new(0x60000100, "US", 1)
        image.add_new(0x60000102, "US", 0)
        image.add_new(0x60000022, "LO", Person.invented(1).last)
        image.add_new(0x60003000, "OW", np.packbits(plane.ravel(), bitorder="little").tobytes())
        return file_of(image, container.EXPLICIT)

    @staticmethod
    def kept(raw: bytes, *, graphics: bool = True) -> bool:
        engine = Engine(bytes(32), DeidentifySettings(clean_pixels=False, clean_graphics=graphics))
        after, _ = cleaned(raw, engine)
        assert 0x60000022 not in after
        return 0x60003000 in after

    def test_of_a_shape_stay_under_the_option_alone(self) -> None:
        plane = (np.hypot(*np.mgrid[-256:256, -256:256]) < 100).astype("u1")
        assert self.kept(self.with_overlay(plane))
        assert not self.kept(self.with_overlay(plane), graphics=False)

    def test_of_writing_go(self) -> None:
        drawn, _ = written("TREMBLAY Luc", height=40, base=np.zeros((512, 512), "u2"))
        assert not self.kept(self.with_overlay((drawn > 2000).astype("u1")))

    def test_of_bytes_that_spell_the_patient_go(self) -> None:
        plane = np.zeros((512, 512), "u1")
        spelt = np.unpackbits(np.frombuffer(Person.invented(1).last.encode(), "u1"), bitorder="little")
        plane.ravel()[: len(spelt)] = spelt
        assert not self.kept(self.with_overlay(plane))


class TestWhatAnnouncesMoreThanItHas:
    """Decoders believe the stream: of a few hundred bytes libjpeg makes room for eight gigabytes, and fills it."""

    JPEG = b"\xff\xd8\xff\xc3\0\x0b\x10\xff\xff\xff\xff\x01\x01\x11\0"
    JPEG_2000 = b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">8LH", *[65535, 65535, 0, 0] * 2, 1)

    @pytest.mark.parametrize(
        ("stream", "syntax"), [(JPEG, container.JPEG_LOSSLESS_SV1), (JPEG_2000, container.JPEG_2000_LOSSLESS)]
    )
    def test_is_refused_before_it_is_decoded(self, stream: bytes, syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
        image = image_of([pixels(1)], container.EXPLICIT)
        image.PixelData = encapsulate([stream + bytes(64)])
        image["PixelData"].VR = "OB"
        monkeypatch.setattr("radia.dicom.frames.stored_pixels", lambda _: pytest.fail("it was decoded"))
        with pytest.raises(Refusal, match="more than 40,000,000 pixels"):
            cleaned(file_of(image, syntax), ALL)

    def test_is_refused_where_all_frames_together_are_too_much(self) -> None:
        image = image_of([pixels(1)] * 2, container.JPEG_2000_LOSSLESS)
        image.Rows = image.Columns = 6000
        image.NumberOfFrames = 20
        with pytest.raises(Refusal, match="too deep"):
            cleaned(file_of(image, container.JPEG_2000_LOSSLESS))
