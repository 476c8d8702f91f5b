"""The phantom radiographs: the same anatomy at any side, findings where anatomy puts them, the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from radia.findings import FINDINGS, position
from radia.synthetic.anatomy import LEFT, RIGHT, Body, Pose
from radia.synthetic.detector import Look, attenuation
from radia.synthetic.grids import averaging, deposit, interpolating, resample, shrink, spreading
from radia.synthetic.pathology import VARIANTS, Sign, draw_chest
from radia.synthetic.phantom import examples, public_set, radiograph, sample_radiograph
from radia.synthetic.population import populations, sample_signs, truth_of

BODY = Body(
    sex="M",
    age=55,
    width=0.37,
    apex=0.125,
    base_right=0.725,
    base_left=0.75,
    depth=21.0,
    fat=0.04,
    rib_spacing=0.068,
    rib_slope=1.0,
    heart=1.0,
    knob=0.9,
    scoliosis=0.0,
    breast=0.0,
    clavicle=0.0,
    seed=5,
)
POSE = Pose(view="PA", scale=1.0, across=0.0, down=0.0, tilt=0.0, breath=0.7, arms=0.02)
STILL = Look(noise=(0.0, 0.0), collimated=0.0)
CASES = [(finding, variant) for finding, variants in VARIANTS.items() for variant in variants]


def sign(finding: str, variant: str = "", *, side: int = RIGHT, severity: float = 0.8, seed: int = 11) -> Sign:
    return Sign(finding, side, severity, variant or VARIANTS[finding][0], seed)


def drawn(*signs: Sign, side: int = 128, look: Look = STILL):
    return radiograph(BODY, POSE, signs, look, side=side, seed=3)


class TestGrids:
    @pytest.mark.parametrize("weights", [spreading(8, 21), interpolating(8, 16), averaging(30, 8), averaging(8, 30)])
    def test_resampling_keeps_a_flat_field_flat(self, weights):
        flat = np.full((weights.shape[1],) * 2, 0.7, np.float32)
        np.testing.assert_allclose(resample(weights, flat), 0.7, rtol=1e-5)

    def test_shrinking_takes_means(self):
        field = np.arange(16, dtype=np.float32).reshape(4, 4)
        np.testing.assert_allclose(shrink(field, 2), [[2.5, 4.5], [10.5, 12.5]])

    def test_deposits_keep_their_mass_and_leave_out_what_lies_outside(self):
        grid = deposit(np.array([0.31, 0.5, 1.4]), np.array([0.62, 0.5, 0.5]), np.array([2.0, 1.0, 9.0]), 10)
        assert grid.sum() / 10**2 == pytest.approx(3.0, rel=1e-5)


class TestRadiograph:
    def test_is_a_gray_picture_with_bone_white_and_lungs_dark(self):
        pixels = drawn().pixels
        assert pixels.dtype == np.float32
        assert pixels.shape == (128, 128)
        assert 0 <= pixels.min() <= pixels.max() <= 1
        lung, heart, abdomen, outside = pixels[60, 30], pixels[82, 70], pixels[118, 64], pixels[4, 8]
        assert outside < lung < heart <= abdomen

    def test_the_heart_lies_on_the_patients_left_which_is_right_in_the_image(self):
        row = drawn().pixels[84]
        assert row[82] > row[127 - 82] + 0.2

    @pytest.mark.parametrize("side", [96, 128, 256])
    def test_shows_the_same_anatomy_at_every_side(self, side):
        signs = (sign("Pleural Effusion", "meniscus"), sign("Support Devices", "pacemaker"))
        native, small = drawn(*signs, side=512), drawn(*signs, side=side)
        assert np.corrcoef(shrink(native.pixels, side).ravel(), small.pixels.ravel())[0, 1] > 0.985
        assert [name for name, _ in native.boxes] == [name for name, _ in small.boxes]
        for (_, large), (_, little) in zip(native.boxes, small.boxes, strict=True):
            np.testing.assert_allclose(large, little, atol=0.035)

    def test_the_same_seed_gives_the_same_pixels(self):
        look = Look()
        first, again = drawn(look=look), drawn(look=look)
        other = radiograph(BODY, POSE, (), look, side=128, seed=4)
        np.testing.assert_array_equal(first.pixels, again.pixels)
        assert (first.pixels != other.pixels).any()

    def test_sites_render_the_same_chest_differently(self):
        looks = [populations()[name].look for name in ("public", "HSH", "CGC")]
        means = [radiograph(BODY, POSE, (), look, side=96, seed=3).pixels[30:60, 20:36].mean() for look in looks]
        assert np.ptp(means) > 0.1


class TestFindings:
    @pytest.mark.parametrize(("finding", "variant"), CASES)
    def test_change_the_picture_inside_their_box(self, finding, variant):
        before = attenuation(draw_chest(BODY, POSE, (), 128, seed=3))
        chest = draw_chest(BODY, POSE, (sign(finding, variant),), 128, seed=3)
        changed = np.abs(attenuation(chest) - before)
        boxes = [box for name, box in chest.boxes if name == finding]
        assert boxes
        inside = np.zeros_like(changed, dtype=bool)
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
            inside[int(y0 * 128) : int(np.ceil(y1 * 128)), int(x0 * 128) : int(np.ceil(x1 * 128))] = True
        assert changed[inside].max() > 0.12
        assert changed[inside].mean() > 2 * changed[~inside].mean()

    @pytest.mark.parametrize(
        "finding", ["Pleural Effusion", "Pneumothorax", "Consolidation", "Lung Lesion", "Fracture"]
    )
    def test_lie_on_the_side_that_was_asked_for(self, finding):
        for side in (RIGHT, LEFT):
            box = drawn(sign(finding, side=side)).boxes[0][1]
            assert np.sign((box[0] + box[2]) / 2 - 0.5) == side

    def test_a_free_pneumothorax_is_darker_and_fluid_brighter_than_lung(self):
        healthy = attenuation(draw_chest(BODY, POSE, (), 128, seed=3))
        gas = attenuation(draw_chest(BODY, POSE, (sign("Pneumothorax"),), 128, seed=3))
        fluid = attenuation(draw_chest(BODY, POSE, (sign("Pleural Effusion"),), 128, seed=3))
        assert (gas - healthy)[60:80, 19:22].mean() < -0.1
        assert (fluid - healthy)[85:92, 26:40].mean() > 0.5

    def test_a_large_heart_is_wider_than_half_the_chest(self):
        x0, _, x1, _ = drawn(sign("Cardiomegaly", severity=0.6)).boxes[0][1]
        assert (x1 - x0) / (2 * BODY.width) > 0.5

    def test_more_severe_is_more_to_see(self):
        healthy = attenuation(draw_chest(BODY, POSE, (), 96, seed=3))
        for finding in VARIANTS:
            changes = [
                np.abs(attenuation(draw_chest(BODY, POSE, (sign(finding, severity=s),), 96, seed=3)) - healthy).sum()
                for s in (0.1, 0.9)
            ]
            assert changes[1] > changes[0] * (0.99 if finding == "Support Devices" else 1.05), finding

    def test_no_finding_means_none_of_the_others_devices_aside(self):
        assert truth_of(())[position("No Finding")] == 1
        assert truth_of((sign("Support Devices"),))[position("No Finding")] == 1
        assert truth_of((sign("Edema"),))[position("No Finding")] == 0


class TestPopulations:
    @pytest.mark.parametrize("name", ["public", "HSH", "CGC"])
    def test_every_finding_occurs_often_enough_to_be_learnt(self, name):
        rng = np.random.default_rng(0)
        truth = np.array([truth_of(sample_signs(rng, populations()[name])) for _ in range(2000)])
        assert truth.mean(axis=0).min() > 0.04
        assert truth.mean(axis=0).max() < 0.45

    def test_every_appearance_of_a_population_can_be_drawn(self):
        for population in populations().values():
            for finding, weights in population.variants.items():
                assert set(weights) <= set(VARIANTS[finding])

    def test_findings_come_together_as_they_do_in_patients(self):
        rng = np.random.default_rng(0)
        truth = np.array([truth_of(sample_signs(rng, populations()["public"])) for _ in range(3000)])
        edema, effusion = truth[:, position("Edema")] == 1, truth[:, position("Pleural Effusion")]
        assert effusion[edema].mean() > 1.5 * effusion[~edema].mean()


class TestPublicSet:
    def test_holds_images_labels_and_truth(self):
        public = public_set(24, 64, 1, label_noise=0.1, workers=1)
        assert public.images.shape == (24, 64, 64)
        assert public.images.dtype == np.uint8
        assert public.labels.shape == public.truth.shape == (24, len(FINDINGS))
        assert set(np.unique(public.labels)) <= {0.0, 1.0}
        assert 0.03 < (public.labels != public.truth).mean() < 0.2

    def test_is_the_same_for_any_number_of_workers(self):
        alone, together = public_set(18, 48, 2, workers=1), public_set(18, 48, 2, workers=2)
        np.testing.assert_array_equal(alone.images, together.images)
        np.testing.assert_array_equal(alone.labels, together.labels)

    def test_a_larger_set_begins_with_the_smaller_one(self):
        np.testing.assert_array_equal(public_set(4, 48, 2).images, public_set(6, 48, 2).images[:4])

    def test_reports_progress(self):
        seen: list[tuple[int, int]] = []
        public_set(3, 48, 0, progress=lambda done, total: seen.append((done, total)))
        assert seen == [(1, 3), (2, 3), (3, 3)]


def test_examples_for_the_web_demo_are_pictures_of_different_patients():
    first, second = examples(2, 7, side=96)
    assert first.shape == second.shape == (96, 96)
    assert first.dtype == np.uint8
    assert (first != second).mean() > 0.5


def test_a_sampled_radiograph_has_boxes_for_every_finding_it_shows():
    rng = np.random.default_rng(4)
    for _ in range(12):
        shown = sample_radiograph(rng, populations()["HSH"], side=96)
        named = {finding for finding, value in zip(FINDINGS, shown.truth, strict=True) if value} - {"No Finding"}
        assert {finding for finding, _ in shown.boxes} == named
