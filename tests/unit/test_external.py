"""Sets from elsewhere: which images are judged, how studies and readers meet them, and what stands on the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radia.errors import BadLabelValue, LabelError, UnmatchedIds
from radia.evaluate import further_sections
from radia.evaluate.external import evaluate_external, open_external
from radia.findings import FINDINGS
from radia.localisation import SIDE
from radia.settings import EvaluateSettings, ExternalSettings

SETTINGS = EvaluateSettings(replicates=100)
LAST = FINDINGS.index("Support Devices")


def chexpert(folder: Path, studies: int = 40) -> Path:
    """CheXpert's test part without its training part; the first study has two frontal images and a lateral one."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(studies):
        labels = [str(int(rng.random() < 0.4)) for _ in FINDINGS]
        for view in ("view1_frontal", "view2_frontal", "view3_lateral") if k == 0 else ("view1_frontal",):
            rows.append(",".join([f"CheXpert-v1.0/test/patient{k:05}/study1/{view}.jpg", *labels]))
    folder.mkdir()
    (folder / "test_labels.csv").write_text("\n".join(["Path," + ",".join(FINDINGS), *rows]) + "\n")
    return folder


def reader(path: Path, studies: int = 40, *, calls: str = "1", columns: tuple[str, ...] = FINDINGS) -> None:
    """A reader by study, the studies in another order and the columns as given."""
    rows = [f"CheXpert-v1.0/test/patient{k:05}/study1," + ",".join([calls] * len(columns)) for k in range(studies)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["Study," + ",".join(columns), *reversed(rows)]) + "\n")


class TestChexpert:
    def test_studies_are_judged_by_the_largest_of_their_frontal_images(self, tmp_path: Path) -> None:
        found = open_external("CheXpert", ExternalSettings(images=f"chexpert:{chexpert(tmp_path / 'c')}"))
        assert (len(found.public.ids), len(found.unit_names)) == (41, 40)
        base, candidate = np.full((41, 14), 0.2), np.full((41, 14), 0.1)
        candidate[0, LAST] = 0.9  # the first of the first study's two images
        result = evaluate_external(
            found, base, candidate, base_thresholds={}, candidate_thresholds={}, settings=SETTINGS, seed=0
        )
        assert result["n"] == 40
        tp, fp, _, _ = result["curves"]["candidate"]["Support Devices"]["confusion"]
        assert tp + fp == 1
        assert result["groups"] == []

    def test_readers_by_study_are_aligned_by_name(self, tmp_path: Path) -> None:
        reader(tmp_path / "people" / "eager.csv", columns=tuple(reversed(FINDINGS)))
        reader(tmp_path / "people" / "few.csv", calls="0", columns=("Edema",))
        settings = ExternalSettings(images=f"chexpert:{chexpert(tmp_path / 'c')}", readers=str(tmp_path / "people"))
        found = open_external("CheXpert", settings)
        assert (found.readers["eager"] == 1).all()
        assert np.isnan(found.readers["few"]).sum() == 40 * 13
        probs = np.random.default_rng(1).random((41, 14))
        result = evaluate_external(
            found, probs, probs, base_thresholds={}, candidate_thresholds={}, settings=SETTINGS, seed=0
        )
        assert result["readers"]["each"]["eager"]["findings"]["Edema"]["sensitivity"]["value"] == 1.0
        assert result["readers"]["each"]["few"]["findings"]["Fracture"]["n"] == 0
        sections = further_sections({"external": {"CheXpert <test>": result}})
        assert [section.title for section in sections] == ["Elsewhere: CheXpert <test>"]
        assert sections[0].html.count("data:image/png;base64,") == 3
        assert "eager" in sections[0].html

    def test_readers_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        settings = ExternalSettings(images=f"chexpert:{chexpert(tmp_path / 'c')}", readers=str(tmp_path / "people"))
        (tmp_path / "people").mkdir()
        with pytest.raises(LabelError, match="one file a reader"):
            open_external("CheXpert", settings)
        reader(tmp_path / "people" / "short.csv", studies=39)
        with pytest.raises(UnmatchedIds, match=r"short\.csv: 1 of 40"):
            open_external("CheXpert", settings)
        reader(tmp_path / "people" / "short.csv", calls="2")
        with pytest.raises(BadLabelValue, match=r"short\.csv"):
            open_external("CheXpert", settings)

    def test_masks_beside_the_tables_are_found_and_named_as_the_images_are(self, tmp_path: Path) -> None:
        folder = chexpert(tmp_path / "c")
        mask = {"size": [2, 2], "counts": [0, 4]}
        (folder / "gt_segmentations_test.json").write_text(
            json.dumps({"patient00003_study1_view1_frontal": {"Edema": mask}, "patient99999_study1_view1_frontal": {}})
        )
        [region] = open_external("CheXpert", ExternalSettings(images=f"chexpert:{folder}")).regions
        assert region.image == "test/patient00003/study1/view1_frontal.jpg"
        assert region.on_square().sum() == SIDE**2

    def test_a_side_without_images_is_an_error(self, tmp_path: Path) -> None:
        settings = ExternalSettings(images=f"chexpert:{chexpert(tmp_path / 'c')}", part="validation")
        with pytest.raises(LabelError, match="no image on its validation side"):
            open_external("CheXpert", settings)


class TestNih:
    def nih(self, folder: Path, *, official: bool = True) -> Path:
        folder.mkdir()
        rows = [f"{k}.png,{'Effusion' if k % 3 else 'No Finding'},{k}" for k in range(30)]
        (folder / "Data_Entry_2017.csv").write_text("\n".join(["Image Index,Finding Labels,Patient ID", *rows]) + "\n")
        if official:
            (folder / "test_list.txt").write_text("\n".join(f"{k}.png" for k in range(20)))
        for k in range(30):
            Image.new("L", (64, 64), 7 * k).save(folder / f"{k}.png")
        return folder

    def test_the_official_test_list_is_judged_and_unlabelled_findings_are_left_out(self, tmp_path: Path) -> None:
        found = open_external("NIH", ExternalSettings(images=f"nih:{self.nih(tmp_path / 'n')}"))
        probs = np.random.default_rng(1).random((20, 14))
        result = evaluate_external(
            found, probs, probs, base_thresholds={}, candidate_thresholds={}, settings=SETTINGS, seed=0
        )
        assert result["n"] == 20
        assert result["models"]["base"]["findings"]["Fracture"]["n"] == 0
        assert result["models"]["base"]["means"]["all"]["auroc"]["over"] == 2
        assert further_sections({"external": {"NIH": result}})[0].html.count("data:image") == 1

    def test_without_the_official_list_it_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match=r"test_list\.txt"):
            open_external("NIH", ExternalSettings(images=f"nih:{self.nih(tmp_path / 'n', official=False)}"))
