"""The one reader of pixels, and the lossless writers."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array
from pydicom.sequence import Sequence

from radia.dicom import container
from radia.dicom.codestream import without_comments
from radia.dicom.pixels import encode_lossless, read_gray, stored_pixels
from radia.errors import Reason, Refusal

RAMP = np.arange(0, 4096, 4, dtype="u2").reshape(32, 32)


def image(
    stored: np.ndarray = RAMP, *, bits: int = 12, syntax: str = container.EXPLICIT, **attributes: object
) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.Rows, made.Columns = stored.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = stored.dtype.itemsize * 8, bits, bits - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    written, content = encode_lossless(stored, syntax, bits=bits, allocated=made.BitsAllocated)
    made.file_meta.TransferSyntaxUID = written
    made.PixelData = encapsulate([bytes(c) for c in content]) if isinstance(content, list) else bytes(content)
    made["PixelData"].VR = "OB" if isinstance(content, list) else "OW"
    return made


class TestReadGray:
    def test_spans_zero_to_one_with_bone_white(self) -> None:
        gray = read_gray(image(WindowCenter=2048, WindowWidth=4096))
        assert gray.dtype == np.float32
        assert gray[0, 0] == 0.0
        assert gray[-1, -1] == pytest.approx(4092 / 4095, abs=1e-3)

    def test_turns_monochrome1_over(self) -> None:
        plain = read_gray(image(WindowCenter=2048, WindowWidth=4096))
        turned = read_gray(image(WindowCenter=2048, WindowWidth=4096, PhotometricInterpretation="MONOCHROME1"))
        assert turned == pytest.approx(1 - plain, abs=1e-6)

    def test_turns_raw_images_over_by_the_sign_of_their_intensity(self) -> None:
        raw = {"PresentationIntentType": "FOR PROCESSING", "WindowCenter": 2048, "WindowWidth": 4096}
        assert read_gray(image(PixelIntensityRelationshipSign=1, **raw))[0, 0] == 1.0
        assert read_gray(image(PixelIntensityRelationshipSign=-1, **raw))[0, 0] == 0.0

    def test_windows_as_the_standard_says(self) -> None:
        gray = read_gray(image(WindowCenter=1000, WindowWidth=200))
        assert gray.ravel()[225] == 0.0  # 900 <= c - 0.5 - (w - 1) / 2
        assert gray.ravel()[250] == pytest.approx((1000 - 999.5) / 199 + 0.5)
        assert gray.ravel()[275] == 1.0

    def test_takes_the_first_of_several_windows(self) -> None:
        first = read_gray(image(WindowCenter=[1000, 3000], WindowWidth=[200, 400]))
        assert np.array_equal(first, read_gray(image(WindowCenter=1000, WindowWidth=200)))

    def test_applies_a_sigmoid(self) -> None:
        gray = read_gray(image(WindowCenter=2000, WindowWidth=400, VOILUTFunction="SIGMOID"))
        assert gray.ravel()[500] == pytest.approx(0.5)
        assert 0 < gray.ravel()[400] < 0.5

    def test_rescales_before_it_windows(self) -> None:
        gray = read_gray(image(RescaleSlope=2, RescaleIntercept=-100, WindowCenter=1900, WindowWidth=200))
        assert np.array_equal(
            gray, read_gray(image((RAMP * 2 - 100).astype("i2"), bits=14, WindowCenter=1900, WindowWidth=200))
        )

    def test_looks_up_voi_values(self) -> None:
        item = Dataset()
        item.add_new(0x00283002, "US", [4096, 0, 12])
        item.add_new(0x00283006, "OW", np.arange(4095, -1, -1, dtype="<u2").tobytes())
        gray = read_gray(image(VOILUTSequence=Sequence([item])))
        assert gray[0, 0] == 1.0
        assert gray[-1, -1] == pytest.approx(3 / 4095)

    def test_finds_a_window_where_there_is_none(self) -> None:
        low = RAMP.copy()
        low[0, 0] = 65000
        gray = read_gray(image(low, bits=16))
        assert gray[0, 1] < 0.02
        assert gray[-1, -1] > 0.98

    def test_shows_padding_black_in_either_sense(self) -> None:
        padded = RAMP.copy()
        padded[:4] = 4095
        for sense in ("MONOCHROME1", "MONOCHROME2"):
            gray = read_gray(image(padded, PixelPaddingValue=4095, PhotometricInterpretation=sense))
            assert not gray[:4].any()

    def test_ignores_an_overlay_in_unused_bits(self) -> None:
        marked = RAMP | np.uint16(1 << 13)
        assert np.array_equal(read_gray(image(marked)), read_gray(image(RAMP)))

    def test_reads_signed_values(self) -> None:
        signed = image((RAMP.astype("i2") - 2048), WindowCenter=0, WindowWidth=4096)
        assert read_gray(signed)[0, 0] == 0.0

    def test_is_flat_where_the_image_is(self) -> None:
        assert np.isfinite(read_gray(image(np.full((32, 32), 7, "u2")))).all()

    @pytest.mark.parametrize("value", ["seven", ["7", "8"], "200"])
    def test_refuses_a_layout_of_something_else_than_numbers(self, value: object) -> None:
        odd = image()
        odd[0x00280102] = DataElement(0x00280102, "LO", value)  # HighBit, under a VR that it never has
        with pytest.raises(Refusal) as refused:
            read_gray(odd)
        assert refused.value.reason is Reason.UNREADABLE_PIXELS

    def test_takes_an_empty_high_bit_for_a_missing_one(self) -> None:
        empty = image()
        empty[0x00280102] = DataElement(0x00280102, "IS", "")
        assert np.array_equal(read_gray(empty), read_gray(image()))

    @pytest.mark.parametrize("descriptor", [[2, 0], [2, 1 << 40, 16], ["", "", ""]])
    def test_leaves_a_table_out_that_cannot_be_one(self, descriptor: list[object]) -> None:
        table = Dataset()
        table[0x00283002] = DataElement(0x00283002, "LO", [str(number) for number in descriptor])  # LUTDescriptor
        table.LUTData = b"\x00\x00\xff\xff"
        assert np.array_equal(read_gray(image(VOILUTSequence=Sequence([table]))), read_gray(image()))

    def test_names_what_it_cannot_read(self, tmp_path: Path) -> None:
        none = image()
        del none.PixelData
        for dataset, reason in ((none, Reason.NO_PIXEL_DATA), (image(Rows=4000), Reason.UNREADABLE_PIXELS)):
            with pytest.raises(Refusal) as refused:
                read_gray(dataset)
            assert refused.value.reason is reason
        (tmp_path / "notes.txt").write_text("rien" * 100)
        with pytest.raises(Refusal, match=Reason.NOT_DICOM):
            read_gray(tmp_path / "notes.txt")


class TestEncodeLossless:
    @pytest.mark.parametrize("bits", [8, 10, 12, 16])
    @pytest.mark.parametrize(
        "syntax",
        [
            container.EXPLICIT,
            container.RLE,
            container.JPEG_LOSSLESS_SV1,
            container.JPEG_LS,
            container.JPEG_2000_LOSSLESS,
        ],
    )
    def test_gives_every_value_back(self, syntax: str, bits: int) -> None:
        chance = np.random.default_rng(bits)
        for stored in (
            chance.integers(0, 1 << bits, (41, 57)),
            np.add.outer(np.arange(41), np.arange(57)) % (1 << bits),
        ):
            typed = stored.astype("u1" if bits == 8 else "u2")
            assert np.array_equal(stored_pixels(image(typed, bits=bits, syntax=syntax)), typed)

    def test_stays_in_the_family_of_a_lossy_syntax(self) -> None:
        written = {
            syntax: encode_lossless(RAMP, syntax, bits=12, allocated=16)[0]
            for syntax in (container.JPEG_EXTENDED, container.JPEG_LS_NEAR, container.JPEG_2000, container.IMPLICIT)
        }
        assert list(written.values()) == [
            container.JPEG_LOSSLESS_SV1, container.JPEG_LS, container.JPEG_2000_LOSSLESS, container.EXPLICIT,
        ]  # fmt: skip


class TestWithoutComments:
    @pytest.mark.parametrize("syntax", [container.JPEG_LOSSLESS_SV1, container.JPEG_LS, container.JPEG_2000_LOSSLESS])
    def test_leaves_the_image_and_nothing_else(self, syntax: str) -> None:
        from tests.spec.hard_files import _with_comment

        _, content = encode_lossless(RAMP, syntax, bits=12, allocated=16)
        frame = bytes(content[0])  # type: ignore[index]
        jpeg_2000 = syntax == container.JPEG_2000_LOSSLESS
        plain = without_comments(frame, jpeg_2000=jpeg_2000)
        assert without_comments(_with_comment(frame, b"TREMBLAY") + b"TREMBLAY", jpeg_2000=jpeg_2000) == plain

    def test_refuses_a_stream_that_is_cut(self) -> None:
        _, content = encode_lossless(RAMP, container.JPEG_LS, bits=12, allocated=16)
        frame = bytes(content[0])  # type: ignore[index]
        with pytest.raises(Refusal, match=Reason.TRUNCATED):
            without_comments(frame[: len(frame) // 2], jpeg_2000=False)


class TestGrayJpegOfEightBits:
    """Read by the faster decoder, and by the other where that one cannot."""

    @staticmethod
    def film(side: int = 64) -> Dataset:
        from PIL import Image

        y, x = np.mgrid[:side, :side]
        shades = (120 + 60 * np.sin(x / 9) + 40 * np.cos(y / 7)).astype(np.uint8)
        held = BytesIO()
        Image.fromarray(shades).save(held, "JPEG", quality=95)
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = container.JPEG_BASELINE
        dataset.Rows = dataset.Columns = side
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        dataset.PixelData = encapsulate([held.getvalue()])
        dataset["PixelData"].VR = "OB"
        return dataset

    def test_both_decoders_give_the_same_picture(self) -> None:
        film = self.film()
        other = pixel_array(film, decoding_plugin="pylibjpeg").astype(int)
        assert np.abs(stored_pixels(film).astype(int) - other).max() <= 2

    def test_what_the_faster_one_refuses_is_read_by_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from radia.dicom import pixels

        tried: list[str] = []

        def reader(dataset: Dataset, *, index: int, decoding_plugin: str = "") -> np.ndarray:
            tried.append(decoding_plugin)
            if decoding_plugin:
                raise OSError("cannot read")
            return pixel_array(dataset, index=index)

        monkeypatch.setattr(pixels, "pixel_array", reader)
        assert stored_pixels(self.film()).shape == (64, 64)
        assert tried == ["pillow", ""]
