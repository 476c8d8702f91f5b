"""Defects seeded into drawn radiographs, found by their pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from radia.image_quality import (
    DEFECTS,
    SIDES,
    close_pairs,
    coefficients,
    features,
    measure,
    near_duplicates,
    noise,
    orientations,
    survey,
)
from radia.images import perceptual_hash
from radia.settings import QualitySettings
from radia.synthetic.defects import SEEDED, cropped, fit, near_duplicate, noisy, text
from radia.synthetic.phantom import sample_radiograph
from radia.synthetic.population import populations

Images = NDArray[np.uint8]


def drawn(count: int, *, side: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    kinds = list(populations().values())
    pictures = [sample_radiograph(rng, kinds[n % len(kinds)], side=side).pixels for n in range(count)]
    return np.array([(picture * 255).astype(np.uint8) for picture in pictures])


@pytest.fixture(scope="module")
def sound() -> Images:
    return drawn(48, side=144, seed=77)


def seeded(images: Images, defect: str) -> Images:
    rng = np.random.default_rng(1)
    return np.array([SEEDED[defect](image, rng) for image in images])


class TestDefects:
    def test_none_is_found_in_sound_images(self, sound: Images) -> None:
        assert measure(sound)[list(DEFECTS)].to_numpy().mean() <= 0.01

    @pytest.mark.parametrize("defect", DEFECTS)
    def test_it_is_found_where_it_was_seeded(self, defect: str, sound: Images) -> None:
        assert measure(seeded(sound, defect))[defect].mean() >= 0.9

    @pytest.mark.parametrize("side", SIDES)
    def test_the_cut_side_is_named(self, side: str, sound: Images) -> None:
        rng = np.random.default_rng(2)
        table = measure(np.array([cropped(image, rng, side) for image in sound]))
        straight = table[(table["turned"] == 0) & (table["inverted"] == 0)]
        assert (straight[f"cut_{side}"] > 0).mean() >= 0.9

    def test_the_turn_that_puts_it_right_is_named(self, sound: Images) -> None:
        for quarter in range(4):
            table = measure(np.ascontiguousarray(np.rot90(sound, -quarter, axes=(1, 2))))
            assert (table["turn"] == 90 * quarter).mean() >= 0.95

    def test_a_line_of_print_is_text_and_side_markers_are_not(self, sound: Images) -> None:
        rng = np.random.default_rng(6)
        assert measure(np.array([text(image, rng) for image in sound]))["text"].mean() >= 0.95
        assert measure(sound)["text"].mean() <= 0.01

    def test_a_blank_image_is_only_blank(self, sound: Images) -> None:
        table = measure(seeded(sound, "blank"))
        assert not table[["inverted", "turned", "cropped", "lateral"]].to_numpy().any()

    def test_neither_size_nor_exposure_nor_letterbox_matters(self, sound: Images) -> None:
        letterboxed = np.zeros((len(sound), 200, 200), np.uint8)
        letterboxed[:, 28:172, 28:172] = (255 * (sound / 255.0) ** 1.5).astype(np.uint8)
        assert not measure(letterboxed)[["blank", "inverted", "turned", "lateral"]].to_numpy().any()

    def test_no_image_gives_no_row_and_all_columns(self, sound: Images) -> None:
        assert list(measure(sound[:0]).columns) == list(measure(sound[:1]).columns)
        assert len(measure(sound[:0])) == 0

    def test_blocks_change_nothing(self, sound: Images) -> None:
        many = np.concatenate([sound] * 6)
        pd.testing.assert_frame_equal(measure(many).iloc[-48:].reset_index(drop=True), measure(sound))


class TestMeasures:
    def test_noise_is_its_standard_deviation(self) -> None:
        rng = np.random.default_rng(0)
        images = np.clip(128 + rng.normal(0, 8, (3, 200, 200)), 0, 255).astype(np.uint8)
        assert noise(images) == pytest.approx(np.full(3, 8 / 255), rel=0.05)

    def test_noise_of_too_small_a_dose_is_beyond_the_rules_limit_and_sound_images_are_not(self, sound: Images) -> None:
        rng, most = np.random.default_rng(4), QualitySettings().max_noise
        assert (noise(sound) <= most).all()
        assert (noise(np.array([noisy(image, rng) for image in sound])) > most).mean() >= 0.95

    def test_features_of_an_inverted_image_are_the_negative(self, sound: Images) -> None:
        np.testing.assert_allclose(features(255 - sound), -features(sound), atol=0.03)

    def test_features_of_a_turned_image_are_turned(self, sound: Images) -> None:
        turned = features(np.ascontiguousarray(np.rot90(sound, axes=(1, 2))))
        difference = np.abs(turned.reshape(len(sound), -1) - orientations(features(sound))[:, 1])
        assert difference.mean() < 0.02


class TestNearDuplicates:
    def test_the_same_picture_sent_twice_is_found_and_no_other(self, sound: Images) -> None:
        rng = np.random.default_rng(3)
        images = np.concatenate([sound[:12], np.array([near_duplicate(image, rng) for image in sound[:12]])])
        hashes = [perceptual_hash(image) for image in images]
        pairs = {(pair.first, pair.second) for pair in near_duplicates(images.__getitem__, hashes)}
        expected = {(n, n + 12) for n in range(12)}
        assert pairs == expected


def test_a_survey_has_a_row_an_image_in_the_order_of_the_manifest(sound: Images) -> None:
    images = np.concatenate([sound[:5], sound[:1]])
    ids = [f"I{n}" for n in range(6)]
    manifest = pd.DataFrame({"image": ids, "batch": "b", "perceptual_hash": [perceptual_hash(i) for i in images]})
    steps: list[tuple[int, int]] = []
    table = survey(
        lambda wanted: images[[ids.index(one) for one in wanted]],
        manifest,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert table["image"].to_list() == ids
    assert table["same_picture"].iloc[[0, 5]].to_list() == [1, 1]
    assert steps == [(6, 6)]


class TestKept:
    """What was found of a batch is found again without a look at its pixels."""

    @pytest.fixture
    def archive(self, sound: Images) -> Archive:
        rng = np.random.default_rng(8)
        again = np.array([near_duplicate(image, rng) for image in sound[:2]])
        return Archive({"a": sound[:6], "b": np.concatenate([sound[6:10], again])})

    def test_a_second_survey_reads_nothing_and_says_the_same(self, archive: Archive, tmp_path: Path) -> None:
        first = survey(archive.read, archive.manifest, kept=tmp_path)
        archive.seen.clear()
        pd.testing.assert_frame_equal(survey(archive.read, archive.manifest, kept=tmp_path), first)
        assert archive.seen == []
        assert first["same_picture"].to_list() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
        pd.testing.assert_frame_equal(survey(archive.read, archive.manifest), first)

    def test_a_new_batch_is_compared_with_those_before_it(self, archive: Archive, tmp_path: Path) -> None:
        rows = archive.manifest
        survey(archive.read, rows[rows["batch"] == "a"], kept=tmp_path)
        archive.seen.clear()
        both = survey(archive.read, rows, kept=tmp_path)
        assert set(archive.seen) - set(rows.loc[rows["batch"] == "b", "image"]) == {"a0", "a1"}
        pd.testing.assert_frame_equal(both, survey(archive.read, rows))

    def test_a_batch_with_other_pixels_is_looked_at_again(self, archive: Archive, tmp_path: Path) -> None:
        survey(archive.read, archive.manifest, kept=tmp_path)
        archive.seen.clear()
        archive.manifest.loc[3, "pixel_sha256"] = "other"
        survey(archive.read, archive.manifest, kept=tmp_path)
        assert set(archive.seen) >= set(archive.manifest["image"][:6])

    def test_a_batch_that_is_gone_leaves_nothing(self, archive: Archive, tmp_path: Path) -> None:
        survey(archive.read, archive.manifest, kept=tmp_path)
        left = archive.manifest[archive.manifest["batch"] == "b"]
        assert survey(archive.read, left, kept=tmp_path)["same_picture"].sum() == 0
        assert [path.name[:2] for path in tmp_path.iterdir()] == ["b."]


class Archive:
    """Images by id, and a manifest of them; remembers which ids were read."""

    def __init__(self, batches: dict[str, Images]) -> None:
        self.images = {f"{name}{n}": image for name, images in batches.items() for n, image in enumerate(images)}
        rows = [(image, image[0], image, perceptual_hash(pixels)) for image, pixels in self.images.items()]
        self.manifest = pd.DataFrame(rows, columns=["image", "batch", "pixel_sha256", "perceptual_hash"])
        self.seen: list[str] = []

    def read(self, ids: Sequence[str]) -> Images:
        self.seen += ids
        return np.array([self.images[image] for image in ids])


class TestClosePairs:
    def test_are_all_there_are(self) -> None:
        rng = np.random.default_rng(4)
        hashes = rng.integers(0, 2**63, 700, dtype=np.uint64) & np.uint64(0xFFFFFF)
        distances = np.bitwise_count(hashes[:, None] ^ hashes[None])
        for since in (0, 300, 699):
            expected = {(i, j) for i, j in zip(*np.nonzero(distances <= 6), strict=True) if i < j and j >= since}
            parts = list(close_pairs(hashes, since=since, bits=6))
            found = [(int(i), int(j)) for first, second, _ in parts for i, j in zip(first, second, strict=True)]
            assert set(found) == expected
            assert len(found) == len(expected)

    def test_come_with_the_bits_that_differ(self) -> None:
        ((first, second, bits),) = close_pairs(np.array([0, 7, 2**63], np.uint64))
        assert list(zip(first.tolist(), second.tolist(), bits.tolist(), strict=True)) == [
            (0, 1, 3),
            (0, 2, 1),
            (1, 2, 4),
        ]


def test_the_coefficients_of_the_file_come_from_drawn_radiographs() -> None:
    """A small fit, made anew, points the same way."""
    made = fit(60, seed=5)
    line, kept = np.array(made["upright"]), coefficients().upright
    assert float(line @ kept / np.linalg.norm(line) / np.linalg.norm(kept)) > 0.7
    assert list(made["answers"]) == [*SIDES, "lateral"]  # type: ignore[call-overload]


SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "hospital-sample" / "inbox"


@pytest.mark.shared
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the development data is not beside the checkout")
def test_real_radiographs_are_seldom_called_defective_and_their_defects_are_found() -> None:
    from radia.dicom.pixels import read_gray
    from radia.errors import Refusal
    from radia.images import letterbox

    pictures = []
    for path in sorted(SAMPLE.rglob("*.dcm"))[::3]:
        try:
            pictures.append(letterbox(read_gray(path), 192))
        except Refusal:
            continue
    images = np.array(pictures)
    alarms = measure(images)[list(DEFECTS)].mean()
    assert alarms.drop(["text", "cropped"]).max() <= 0.02  # text is burned into many of these
    assert alarms["cropped"] <= 0.03  # those called have lung at the edge of the film
    rng = np.random.default_rng(1)
    assert np.mean([measure(np.array([cropped(i, rng, side) for i in images]))["cropped"] for side in SIDES]) >= 0.95
    assert (noise(images) <= QualitySettings().max_noise).all()
    for defect in ("blank", "inverted", "turned", "lateral"):
        assert measure(seeded(images, defect))[defect].mean() >= 0.95
    rng = np.random.default_rng(1)
    for side in ("left", "right"):
        assert measure(np.array([cropped(image, rng, side) for image in images]))["cropped"].mean() >= 0.95


@pytest.mark.shared
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the development data is not beside the checkout")
def test_names_burned_into_real_radiographs_are_text() -> None:
    from radia.dicom.pixels import read_gray
    from radia.images import letterbox

    truth = json.loads((SAMPLE.parent / "truth.json").read_text())
    written = [SAMPLE.parent / name for name, planted in truth.items() if planted["boxes"]]
    images = np.array([letterbox(read_gray(path), 384) for path in written])
    assert len(images) >= 10
    assert measure(images)["text"].mean() >= 0.95
