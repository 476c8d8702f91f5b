from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radia.errors import LabelError
from radia.localisation import SIDE, Region, agreement, decode_runs, otsu, pointed, read_regions, summary
from radia.model import Preprocessing, build


def area(region: Region, shape: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
    """First and last row and column of a region on its square, as sixteenths."""
    rows, columns = np.nonzero(region.on_square(shape))
    step = SIDE // 16
    return rows.min() // step, rows.max() // step + 1, columns.min() // step, columns.max() // step + 1


class TestRegion:
    def test_a_box_of_a_square_image_stays_where_it_is(self) -> None:
        assert area(Region("i", "Edema", ((0.25, 0.5, 0.5, 1.0),))) == (8, 16, 4, 8)

    def test_a_box_follows_its_image_into_the_square(self) -> None:
        """An upright image, twice as high as wide, fills the middle half of its square."""
        assert area(Region("i", "Edema", ((0.0, 0.0, 1.0, 0.5),)), (200, 100)) == (0, 8, 4, 12)

    def test_boxes_are_joined(self) -> None:
        region = Region("i", "Edema", ((0, 0, 0.25, 0.25), (0.75, 0.75, 1, 1)))
        assert region.on_square().mean() == pytest.approx(0.125)


class TestRunLengths:
    def test_equal_those_of_pycocotools(self) -> None:
        mask = np.zeros((40, 30), bool)
        mask[2:35, 3:20] = mask[5:9, 25:26] = mask[6, 0] = True
        assert (decode_runs("61c3P1dL0000000000000000000000000000000[6SO]O", 40, 30) == mask).all()

    def test_lengths_that_do_not_add_up_are_refused(self) -> None:
        with pytest.raises(ValueError, match="add up"):
            decode_runs("61c3P1", 40, 30)

    def test_plain_numbers_are_lengths_too(self) -> None:
        assert decode_runs([1, 2, 3], 2, 3).tolist() == [[False, True, False], [True, False, False]]


class TestFiles:
    def test_nih(self, tmp_path: Path) -> None:
        path = tmp_path / "BBox_List_2017.csv"
        path.write_text(
            "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
            "a.png,Effusion,256,512,256,512,,,\n"
            "a.png,Mass,0,0,128,128,,,\n"
            "a.png,Nodule,512,512,512,512,,,\n"
            "b.png,Unheard,0,0,1,1,,,\n"
        )
        regions = {(r.image, r.finding): r for r in read_regions(path)}
        assert set(regions) == {("a.png", "Pleural Effusion"), ("a.png", "Lung Lesion")}
        assert area(regions["a.png", "Pleural Effusion"]) == (8, 16, 4, 8)
        assert len(regions["a.png", "Lung Lesion"].boxes) == 2

    def test_chexlocalize(self, tmp_path: Path) -> None:
        path = tmp_path / "gt_segmentations_val.json"
        full, empty = {"size": [4, 2], "counts": [0, 8]}, {"size": [4, 2], "counts": [8]}
        path.write_text(json.dumps({"p1_study1_view1_frontal": {"Airspace Opacity": full, "Edema": empty}}))
        [region] = read_regions(path)
        assert (region.image, region.finding) == ("p1_study1_view1_frontal", "Lung Opacity")
        assert area(region) == (0, 16, 4, 12)

    def test_the_embedded_hospital(self, tmp_path: Path) -> None:
        boxes = [{"finding": "Edema", "box": [0, 0, 0.5, 0.5]}, {"finding": "Edema", "box": [0.5, 0.5, 1, 1]}]
        (tmp_path / "truth.json").write_text(json.dumps({"studies": {"A1": {"boxes": boxes}, "A2": {"boxes": []}}}))
        [region] = read_regions(tmp_path / "truth.json")
        assert (region.image, len(region.boxes)) == ("A1", 2)

    def test_a_hospital_s_own(self, tmp_path: Path) -> None:
        path = tmp_path / "boxes.csv"
        path.write_text("AccessionNumber,finding,x0,y0,x1,y1\n007,Edema,0,0,0.5,0.5\n007,Fracture,0,0,1,1\n")
        assert [(r.image, r.finding) for r in read_regions(path)] == [("007", "Edema"), ("007", "Fracture")]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("boxes.csv", "id,finding,x0,y0,x1,y1\na,Edema,0,0,1.5,1\n"),
            ("boxes.csv", "id,finding,x0,y0\na,Edema,0,0\n"),
            ("boxes.csv", "id,finding,x0,y0,x1,y1\na,Unheard,0,0,1,1\n"),
            ("masks.json", '{"a": {"Edema": {"size": [2, 2], "counts": [3]}}}'),
            ("masks.json", "[1, 2"),
            ("masks.json", "[1, 2]"),
        ],
    )
    def test_what_cannot_be_used_is_refused_by_name(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(LabelError, match=name):
            read_regions(tmp_path / name)


class TestAgreement:
    def test_the_highest_point_decides_the_hit_and_what_is_hot_the_overlap(self) -> None:
        heat, inside = np.zeros((8, 8), np.float32), np.zeros((8, 8), bool)
        heat[:], heat[:4, :4], heat[1, 1] = 0.1, 0.9, 1.0
        inside[:4, :2] = True
        assert agreement(heat, inside) == (1.0, 0.5)
        heat[1, 1], heat[1, 3] = 0.9, 1.0
        assert agreement(heat, inside) == (0.0, 0.5)

    def test_a_map_of_nothing_points_nowhere(self) -> None:
        assert agreement(np.zeros((8, 8), np.float32), np.ones((8, 8), bool)) == (0.0, 0.0)

    def test_otsu_parts_two_heaps(self) -> None:
        values = np.concatenate([np.random.default_rng(0).normal(0, 0.1, 500), np.full(80, 3.0)])
        assert 0.3 < otsu(values) < 3.0


class TestPointed:
    def test_maps_are_those_of_the_finding_and_the_image(self) -> None:
        """Where the region is the place of a map's peak, it is hit; the opposite quarter is not."""
        from radia.explain import grad_cam, upsampled

        model = build("densenet-slim", preprocessing=Preprocessing(96), seed=2).eval()
        images = {f"i{k}": film for k, film in enumerate(np.random.default_rng(1).integers(0, 256, (3, 96, 96), "u1"))}
        regions = []
        for name, film in images.items():
            for finding in ("Edema", "Fracture"):
                heat = upsampled(grad_cam(model, film[None]).maps[0, model.findings.index(finding)], SIDE)
                y, x = (int(place) // 128 * 0.5 for place in np.unravel_index(heat.argmax(), heat.shape))
                here = finding == "Edema"
                x, y = (x, y) if here else (0.5 - x, 0.5 - y)
                regions.append(Region(name, finding, ((x, y, x + 0.5, y + 0.5),)))
        rows = pointed(
            model, lambda ids: np.stack([images[i] for i in ids]), regions, patients=dict.fromkeys(images, "P")
        )
        assert rows[rows["finding"] == "Edema"]["hit"].tolist() == [1.0, 1.0, 1.0]
        assert rows[rows["finding"] == "Fracture"]["hit"].tolist() == [0.0, 0.0, 0.0]
        assert rows["area"].tolist() == pytest.approx([0.25] * 6)


class TestSummary:
    def rows(self, n: int, part: float, seed: int, *, each: int = 1) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        hit = np.repeat(rng.random(n) < part, each).astype(float)
        patients = np.repeat(np.arange(n), each).astype(str)
        frame = {"image": np.arange(n * each).astype(str), "patient": patients, "finding": "Edema", "hit": hit}
        return pd.DataFrame({**frame, "iou": hit * 0.6, "area": 0.1})

    def test_means_and_limits(self) -> None:
        found = summary(pd.concat([self.rows(40, 0.5, 0), self.rows(10, 0.9, 1).assign(finding="Fracture")]))
        single = [entry["hit_rate"]["value"] for entry in found["findings"].values()]
        assert found["mean"]["hit_rate"]["value"] == pytest.approx(np.mean(single))
        assert found["mean"]["hit_rate"]["low"] < np.mean(single) < found["mean"]["hit_rate"]["high"]
        assert found["findings"]["Edema"]["chance"] == pytest.approx(0.1)
        json.dumps(found, allow_nan=False)

    def test_images_of_one_patient_that_agree_count_once(self) -> None:
        once, often = (summary(self.rows(40, 0.5, 0, each=each))["findings"]["Edema"] for each in (1, 5))
        for measure in ("hit_rate", "iou"):
            widths = [entry[measure]["high"] - entry[measure]["low"] for entry in (once, often)]
            assert widths[1] == pytest.approx(widths[0], rel=0.05)

    def test_limits_hold_the_true_hit_rate(self) -> None:
        held = 0
        for seed in range(200):
            rate = summary(self.rows(40, 0.7, seed, each=2))["findings"]["Edema"]["hit_rate"]
            held += rate["low"] <= 0.7 <= rate["high"]
        assert 180 <= held <= 199
