"""Text burned into pixels is found and blanked; markers and anatomy stay."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont

from radia.dicom import burned_in, burned_in_networks, container
from radia.dicom.burned_in import Box, blank, find_text
from radia.dicom.burned_in_convolutions import Convolution, Convolutions
from radia.dicom.deidentify import Engine
from radia.dicom.pixels import encode_lossless
from radia.errors import Reason, Refusal
from radia.settings import DeidentifySettings
from tests.spec.hard_files import HardFile, Person, _ordinary, _written

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def body(rows: int = 512, cols: int = 512) -> np.ndarray:
    """Twelve-bit shades as of a chest: soft shapes, ribs, noise. Nothing in it is text."""
    y, x = np.mgrid[0:rows, 0:cols] / max(rows, cols)
    shade = 1800 + 900 * np.sin(3 * x) * np.cos(2.5 * y) + 260 * np.sin(38 * y + 6 * (x - 0.5) ** 2)
    return np.clip(shade + np.random.default_rng(0).normal(0, 12, shade.shape), 0, 4095).astype("u2")


def written(
    text: str, *, height: int = 20, at: tuple[int, int] = (40, 30), ink: int = 4095, paper: int | None = None,
    turned: int = 0, base: np.ndarray | None = None,
) -> tuple[np.ndarray, Box]:  # fmt: skip
    """The body with a line of text at (x, y), and its box."""
    font = ImageFont.truetype(str(FONT), int(height * 0.8))
    left, top, right, bottom = font.getbbox(text)
    drawn = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(drawn).text((2 - left, 2 - top), text, fill=255, font=font)
    share = np.rot90(np.asarray(drawn, float) / 255, turned)
    stored = (body() if base is None else base).astype(float)
    (x, y), (high, wide) = at, share.shape
    place = stored[y : y + high, x : x + wide]
    if paper is not None:
        place[:] = paper
    place[:] = place * (1 - share) + ink * share
    return np.round(stored).astype("u2"), Box(x, y, x + wide, y + high)


def covered(box: Box, found: list[Box]) -> float:
    mask = np.zeros((4096, 4096), bool)
    for other in found:
        mask[other.y0 : other.y1, other.x0 : other.x1] = True
    return float(mask[box.y0 : box.y1, box.x0 : box.x1].mean())


def sternal_wires(rows: int) -> np.ndarray:
    """A body with a chain of loops of wire, one below the other, each twisted in its middle."""
    drawn = Image.new("L", (rows, rows))
    brush = ImageDraw.Draw(drawn)
    for number in range(5):
        x, y = 230 + 2 * (number % 2), 120 + 24 * number
        brush.ellipse([x, y, x + 44, y + 12], outline=255, width=2)
        brush.line([x + 24, y - 4, x + 22, y + 15], fill=255, width=2)
    ink = np.asarray(drawn, float) / 255
    return np.round(body(rows, rows) * (1 - ink) + 4000 * ink).astype("u2")


class TestFindText:
    @pytest.mark.parametrize(
        "how",
        [
            {}, {"height": 14}, {"height": 32}, {"height": 60}, {"at": (250, 250)}, {"at": (300, 470)}, {"ink": 0},
            {"ink": 0, "paper": 4095}, {"ink": 4095, "paper": 0}, {"turned": 1}, {"turned": 3},
            {"ink": 410, "paper": 0},
        ],
        ids=str,
    )  # fmt: skip
    def test_finds_a_line(self, how: dict[str, object]) -> None:
        stored, box = written("TREMBLAY Luc", **how)  # type: ignore[arg-type]
        assert covered(box, find_text(stored)) > 0.9

    def test_finds_text_that_only_another_window_shows(self) -> None:
        base = body().copy()
        base[:80] = 3000  # a flat strip, where text differs by three shades
        stored, box = written("BOUCHARD 1951-03-02", height=22, at=(60, 30), ink=3003, base=base)
        assert covered(box, find_text(stored)) > 0.9

    def test_finds_text_of_sixteen_and_of_eight_bits_and_of_signed_values(self) -> None:
        stored, box = written("Gagnon Marie")
        for typed in ((stored.astype("u4") * 16).astype("u2"), (stored >> 4).astype("u1"), stored.astype("i2") - 2048):
            assert covered(box, find_text(typed)) > 0.9

    def test_finds_large_letters(self) -> None:
        base = body(1536, 1536)
        stored, box = written("ROY 1951", height=190, at=(200, 600), base=base)
        assert covered(box, find_text(stored)) > 0.8

    @pytest.mark.parametrize(
        "marker", ["L", "R", "G", "D", "AP", "PA", "DEBOUT", "PORTABLE", "COUCHÉ", "SUPINE", "ERECT"]
    )
    def test_leaves_markers(self, marker: str) -> None:
        stored, _ = written(marker, height=34)
        assert find_text(stored) == []

    def test_finds_fourteen_pixels_in_a_large_image(self) -> None:
        base = body(2048, 2048)
        stored, box = written("LAVOIE Anne 12345678", height=18, at=(1700, 1990), base=base)
        assert covered(box, find_text(stored)) > 0.9

    @pytest.mark.parametrize("contrast", [25, -25])
    def test_finds_a_tenth_of_the_range_over_anatomy(self, contrast: int) -> None:
        base = body()
        shade = float(np.percentile(base[200:222, 60:300], 98 if contrast > 0 else 2))
        stored, box = written("PELLETIER 19510302", height=26, at=(60, 200), ink=int(shade + contrast * 16), base=base)
        assert covered(box, find_text(stored)) > 0.9

    def test_keeps_to_the_line(self) -> None:
        stored, box = written("TREMBLAY Luc 1951-03-02", height=24, at=(100, 240))
        assert sum(found.area for found in find_text(stored)) < 2.5 * box.area

    def test_leaves_a_marker_beside_a_name(self) -> None:
        stored, name = written("TREMBLAY Luc", height=24, at=(60, 60))
        stored, marker = written("DEBOUT", height=34, at=(300, 420), base=stored)
        found = find_text(stored)
        assert covered(name, found) > 0.9
        assert covered(marker, found) == 0

    def test_finds_each_line_of_a_block(self) -> None:
        stored, boxes = body(1024, 1024), []
        for number, text in enumerate(("Nom: Tremblay Luc", "RAMQ TREL 5103 0212", "DDN 1951-03-02")):
            stored, box = written(text, height=24, at=(40, 700 + 24 * number), base=stored)
            boxes.append(box)
        found = find_text(stored)
        assert min(covered(box, found) for box in boxes) > 0.9

    def test_finds_the_whole_of_a_long_faint_line(self) -> None:
        base = body(1024, 1024)
        stored, box = written("HOPITAL DE VERDUN 514-555-0199 PELLETIER", height=26, at=(100, 500), ink=3900, base=base)
        found = find_text(stored)
        assert covered(Box(box.x0, box.y0, box.x0 + 30, box.y1), found) > 0.9
        assert covered(Box(box.x1 - 30, box.y0, box.x1, box.y1), found) > 0.9

    def test_a_name_that_begins_as_a_marker_is_a_name(self) -> None:
        stored, box = written("GAUCHER", height=34, at=(100, 100))
        assert covered(box, find_text(stored)) > 0.9

    @pytest.mark.parametrize(("name", "turned"), [("Roy", 0), ("Dre", 0), ("Roy", 1), ("Luc", 0)])
    def test_a_short_name_that_begins_as_a_side_goes_whole(self, name: str, turned: int) -> None:
        stored, box = written(name, height=60, at=(200, 200), turned=turned)
        assert covered(box, find_text(stored)) > 0.9

    def test_a_word_of_position_beside_an_arrow_is_known_at_the_finer_scale(self) -> None:
        stored, word = written("PORTABLE", height=16, at=(440, 18))
        arrow = stored[10:35, 424:434]
        arrow[8:, 3:7] = arrow[:8] = 4095
        assert covered(word, find_text(stored)) == 0

    @pytest.mark.parametrize("turned", [False, True])
    def test_leaves_a_chain_of_wire_loops(self, turned: bool) -> None:
        stored = sternal_wires(512)
        assert find_text(np.rot90(stored).copy() if turned else stored) == []

    @pytest.mark.parametrize("turned", [0, 1])
    @pytest.mark.parametrize("text", ["0000", "OOOO", "8080"])
    def test_finds_a_line_of_closed_loops(self, text: str, turned: int) -> None:
        stored, box = written(text, height=30, at=(200, 300), turned=turned)
        assert covered(box, find_text(stored)) > 0.9

    @pytest.mark.parametrize("step", [10, 14])
    def test_leaves_a_scale(self, step: int) -> None:
        stored = body(1024, 1024).copy()
        for number in range(60):
            y = 100 + step * number
            stored[y : y + 2, 300 : 300 + (24 if number % 5 == 0 else 12)] = 3600
        assert find_text(stored) == []

    def test_finds_what_the_first_look_left_of_a_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stored, box = written("HOPITAL TREMBLAY Luc 12345678", height=24, at=(60, 200))
        look, looks = burned_in._look, list[int]()

        def half(*known: object) -> burned_in._Seen:
            seen = look(*known)  # type: ignore[arg-type]
            looks.append(len(seen.boxes))
            if len(looks) > 1:
                return seen
            return replace(seen, boxes=[Box(box.x0, box.y0, (box.x0 + box.x1) // 2, box.y1) for _ in seen.boxes])

        monkeypatch.setattr(burned_in, "_look", half)
        assert covered(box, find_text(stored)) > 0.9
        assert len(looks) > 2, "and looks again at what is left then"

    def test_refuses_text_that_comes_to_no_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def further(part: np.ndarray, *known: object) -> burned_in._Seen:
            x = 8 if part.shape == (512, 512) else part.shape[1] - 24
            return burned_in._Seen([Box(x, 8, x + 20, 20)], [], [])

        monkeypatch.setattr(burned_in, "_look", further)
        with pytest.raises(Refusal) as refused:
            find_text(body(512, 512))
        assert refused.value.reason is Reason.RESIDUAL_IDENTIFIER

    def test_a_marker_near_text_is_not_cut_where_the_second_look_ends(self) -> None:
        stored, name = written("TREMBLAY Luc", height=24, at=(60, 60))
        stored, marker = written("PORTABLE", height=26, at=(60, 132), base=stored)
        found = find_text(stored)
        assert covered(name, found) > 0.9
        assert covered(marker, found) == 0

    def test_leaves_a_body_alone(self) -> None:
        assert find_text(body()) == []
        assert find_text(np.zeros((512, 512), "u2")) == []
        assert find_text(body()[:20, :20]) == []

    def test_refuses_to_go_without_its_detector(self, monkeypatch: pytest.MonkeyPatch) -> None:
        burned_in_networks.network.cache_clear()
        monkeypatch.setattr(burned_in_networks, "find_spec", lambda name: None)
        with pytest.raises(Refusal) as refused:
            find_text(body())
        assert refused.value.reason is Reason.TEXT_DETECTOR_MISSING
        burned_in_networks.network.cache_clear()


class TestConvolutions:
    def test_gives_what_the_sums_give(self) -> None:
        rng = np.random.default_rng(3)
        first = Convolution(rng.normal(size=(4, 2, 3, 5)).astype("f4"), rng.normal(size=4).astype("f4"), step=2)
        last = Convolution(rng.normal(size=(1, 4, 1, 1)).astype("f4"), rng.normal(size=1).astype("f4"))
        values = rng.normal(size=(2, 9, 11)).astype("f4")
        framed = np.pad(values, ((0, 0), (2, 2), (4, 4)))
        middle = np.zeros((4, 9, 11))
        for y in range(3):
            for x in range(5):
                middle += np.einsum(
                    "oc,crk->ork", first.kernel[:, :, y, x], framed[:, 2 * y : 2 * y + 9, 2 * x : 2 * x + 11]
                )
        middle = np.maximum(middle + first.bias[:, None, None], 0)
        expected = np.einsum("oc,crk->ork", last.kernel[:, :, 0, 0], middle) + last.bias[:, None, None]
        assert np.allclose(Convolutions([first, last])(values), expected, atol=1e-4)


class TestBlank:
    def test_leaves_no_pixel_of_a_box_and_every_pixel_outside(self) -> None:
        stored, box = written("TREMBLAY")
        cleaned = blank(stored, [box], lowest=0, highest=4095, black_is_high=False)
        inside = (slice(box.y0, box.y1), slice(box.x0, box.x1))
        assert (cleaned[inside] != stored[inside]).all()
        assert len(np.unique(cleaned[inside])) == 1
        cleaned[inside] = stored[inside]
        assert np.array_equal(cleaned, stored)

    def test_is_dark_in_either_sense(self) -> None:
        stored = np.full((32, 32), 2000, "u2")
        assert blank(stored, [Box(0, 0, 8, 8)], lowest=0, highest=4095, black_is_high=True)[0, 0] == 4095


@pytest.mark.parametrize(
    "syntax",
    [container.EXPLICIT, container.RLE, container.JPEG_LOSSLESS_SV1, container.JPEG_LS, container.JPEG_2000_LOSSLESS],
)
@pytest.mark.parametrize("sense", ["MONOCHROME1", "MONOCHROME2"])
def test_a_file_says_no_text_and_has_it_all_the_same(syntax: str, sense: str) -> None:
    stored, box = written("TREMBLAY Luc 1951-03-02", height=24)
    person = Person.invented(1)
    image = _ordinary(person)
    image.Rows, image.Columns = stored.shape
    image.PhotometricInterpretation, image.BurnedInAnnotation = sense, "NO"
    _, content = encode_lossless(stored, syntax, bits=12, allocated=16)
    from pydicom.encaps import encapsulate

    image.PixelData = encapsulate([bytes(content[0])]) if isinstance(content, list) else bytes(content)
    image["PixelData"].VR = "OB" if isinstance(content, list) else "OW"
    raw = _written(HardFile(person, image, pydicom.dataset.FileMetaDataset(), syntax), 1)
    clean = Engine(bytes(32), DeidentifySettings()).deidentify_file(raw, "0" * 64)
    after = pydicom.dcmread(BytesIO(b"".join(map(bytes, clean.pieces))))
    assert after.file_meta.TransferSyntaxUID == syntax
    changed = after.pixel_array != stored
    assert changed[box.y0 : box.y1, box.x0 : box.x1].mean() > 0.9
    for x0, y0, x1, y1 in clean.outcome.boxes:
        changed[y0:y1, x0:x1] = False
    assert not changed.any()
    assert "113101" in [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
