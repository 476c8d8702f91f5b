from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from radia.frontal import frontal_view, look, objection

SHARED = Path(__file__).resolve().parents[3] / "shared" / "hospital-sample"
CHEST_HEADER = {"modality": "DX", "body_part": "CHEST", "view": "PA"}
SILENT_HEADER = {"modality": None, "body_part": None, "view": None}


def thorax(side: int = 256) -> NDArray[np.uint8]:
    """Two dark lungs beside a bright spine in a gray trunk."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    gray = np.where(np.abs(x - 0.5) < 0.42, 0.6, 0.15) + 0.15 * y
    for middle in (0.3, 0.7):
        gray[((x - middle) / 0.13) ** 2 + ((y - 0.45) / 0.3) ** 2 < 1] -= 0.4
    gray[np.abs(x - 0.5) < 0.05] += 0.2
    return (np.clip(gray, 0, 1) * 255).astype(np.uint8)


def hand(side: int = 256) -> NDArray[np.uint8]:
    """Five bright fingers on a palm, on black."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    gray = np.where(((x - 0.5) / 0.25) ** 2 + ((y - 0.75) / 0.2) ** 2 < 1, 0.8, 0.02)
    for middle, top in ((0.26, 0.45), (0.38, 0.15), (0.5, 0.08), (0.62, 0.14), (0.76, 0.3)):
        gray[(np.abs(x - middle) < 0.04) & (y > top) & (y < 0.75)] = 0.9
    return (gray * 255).astype(np.uint8)


def noise(side: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)


def blank(side: int = 256) -> NDArray[np.uint8]:
    return np.full((side, side), 90, dtype=np.uint8)


def text_page(side: int = 256) -> NDArray[np.uint8]:
    page = np.full((side, side), 255, dtype=np.uint8)
    page[20:240:12, 20:200:2] = 0
    return page


class TestPixels:
    @pytest.mark.parametrize("picture", [hand, noise, blank, text_page], ids=lambda picture: picture.__name__)
    def test_that_have_nothing_of_a_chest_are_refused_whatever_the_header_says(self, picture) -> None:  # type: ignore[no-untyped-def]
        assert "pixels" in objection(**CHEST_HEADER, pixels=picture())

    def test_of_a_chest_need_no_header(self) -> None:
        assert objection(**SILENT_HEADER, pixels=thorax()) == ""

    @pytest.mark.parametrize("gamma", [0.3, 1.0, 3.0])
    def test_of_a_chest_are_known_at_any_exposure(self, gamma: float) -> None:
        exposed = ((thorax() / 255) ** gamma * 255).astype(np.uint8)
        assert objection(**SILENT_HEADER, pixels=exposed) == ""

    def test_of_a_chest_are_known_in_a_pale_film_that_is_dark_on_its_edges(self) -> None:
        y, x = (np.mgrid[:256, :256] + 0.5) / 256
        pale = thorax() * 0.12 + 200 * (1 - 3 * (x - 0.5) ** 2) * (0.6 + 0.4 * y)
        assert look(pale.astype(np.uint8)).could_be_chest

    def test_of_a_chest_are_known_with_a_lung_half_white_and_a_corner_blanked(self) -> None:
        uneven = thorax().astype(float)
        y, x = (np.mgrid[:256, :256] + 0.5) / 256
        patchy = 140 * (np.sin(40 * x) * np.sin(40 * y) > 0.1) * (((x - 0.3) / 0.13) ** 2 + ((y - 0.5) / 0.25) ** 2 < 1)
        uneven = np.clip(uneven + patchy, 0, 255)
        uneven[185:, 130:] = 0
        assert look(uneven.astype(np.uint8)).symmetry < 0.3
        assert objection(**CHEST_HEADER, pixels=uneven.astype(np.uint8)) == ""

    def test_of_a_chest_are_known_within_a_wide_white_frame(self) -> None:
        framed = np.full((600, 600), 255, dtype=np.uint8)
        framed[200:456, 150:406] = thorax()
        assert objection(**SILENT_HEADER, pixels=framed) == ""

    def test_of_a_chest_are_known_at_any_size_and_shape(self) -> None:
        for pixels in (thorax(48), thorax(1000)[:, 100:900], thorax(1000)[50:800]):
            assert look(pixels).is_clearly_chest


class TestHeader:
    def test_of_another_modality_is_believed(self) -> None:
        assert "modality" in objection(modality="CT", body_part="CHEST", view=None, pixels=thorax())

    @pytest.mark.parametrize("view", ["LL", "RL", "LATERAL", "LLO", "AP LLD", "PA OBLIQUE"])
    def test_of_a_view_that_is_not_frontal_is_believed(self, view: str) -> None:
        assert "view" in objection(modality="CR", body_part="CHEST", view=view, pixels=thorax())

    @pytest.mark.parametrize("view", ["AP", "PA", "AP SUPINE", "POSTERO-ANTERIOR", "", None])
    def test_of_a_frontal_view_or_of_none_is_no_objection(self, view: str | None) -> None:
        assert objection(modality="CR", body_part="CHEST", view=view, pixels=thorax()) == ""

    def test_that_names_another_part_of_the_body_is_overruled_by_a_clear_chest(self) -> None:
        assert objection(modality="DX", body_part="SHOULDER", view="AP", pixels=thorax()) == ""

    def test_that_names_another_part_of_the_body_is_believed_in_doubt(self) -> None:
        rng = np.random.default_rng(1)
        doubtful = np.clip(thorax() * 0.25 + rng.normal(90, 30, (256, 256)).cumsum(1) / 256, 0, 255).astype(np.uint8)
        assert not look(doubtful).is_clearly_chest
        assert objection(modality="DX", body_part="ABDOMEN", view="AP", pixels=doubtful) != ""

    def test_is_never_quoted(self) -> None:
        text = objection(modality="DX", body_part="DURAND", view=None, pixels=hand())
        assert text
        assert "DURAND" not in text


def test_the_view_is_ap_pa_or_unknown() -> None:
    assert [frontal_view(v) for v in ("PA", "AP SUPINE", "POSTERO-ANTERIOR", "FRONTAL", None)] == [
        *("PA", "AP", "PA"),
        *(None, None),
    ]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data is not beside the project")
def test_at_most_one_in_a_hundred_real_radiographs_is_refused() -> None:
    from radia.dicom.pixels import read_gray
    from radia.errors import Refusal
    from radia.images import letterbox

    refused = total = 0
    for path in sorted(SHARED.glob("inbox/*/*.dcm")):
        try:
            pixels = letterbox(read_gray(path), 384)
        except Refusal:
            continue
        total += 1
        refused += objection(**SILENT_HEADER, pixels=pixels) != ""
    assert total == 200
    assert refused <= 2
