from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from radia import metrics
from radia.errors import BadLabelValue, LabelError, UnknownFinding, UnmatchedIds
from radia.evaluate import (
    Picture,
    comparison_rows,
    evaluate_candidate,
    evaluate_files,
    headline,
    sentence,
    worst_cells,
    write_report,
)
from radia.settings import EvaluateSettings

SHARED = Path(__file__).resolve().parents[3] / "shared"
NIH = SHARED / "published" / "nih_chexnet"
CHEXPERT = SHARED / "published" / "chexpert_test"
needs_shared = pytest.mark.skipif(not NIH.is_dir(), reason="the development data is not beside the project")

Write = Callable[..., Path]


@pytest.fixture
def csv(tmp_path: Path) -> Write:
    """Writes a small CSV: a name, then its lines."""

    def write(name: str, *lines: str) -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def truth(csv: Write) -> Path:
    rows = (f"s{k},{k % 2},{int(k < 4)}" for k in range(10))
    return csv("truth.csv", "Study,Edema,Effusion", *rows)


@pytest.fixture
def probs(csv: Write) -> Path:
    """The same findings and ids in another order."""
    rows = (f"s{k},{(9 - k) / 10},{0.9 if k % 2 else 0.1}" for k in reversed(range(10)))
    return csv("probs.csv", "id,Effusion,Edema", *rows)


class TestFiles:
    def test_rows_and_columns_meet_by_name(self, truth: Path, probs: Path) -> None:
        result = evaluate_files(truth=truth, probs=probs, replicates=100)
        assert list(result["findings"]) == ["Edema", "Effusion"]
        assert result["findings"]["Edema"]["auroc"]["value"] == 1.0
        assert result["findings"]["Effusion"]["auroc"]["value"] == 1.0
        assert result["findings"]["Effusion"]["positives"] == 4
        assert result["n"] == 10

    def test_the_result_is_json(self, truth: Path, probs: Path) -> None:
        result = evaluate_files(truth=truth, probs=probs, replicates=100)
        assert json.loads(json.dumps(result, allow_nan=False)) == result

    def test_the_threshold_is_one_half_unless_given(self, csv: Write, truth: Path, probs: Path) -> None:
        limits = csv("limits.csv", "finding,threshold", "Effusion,0.85")
        half = evaluate_files(truth=truth, probs=probs, replicates=100)["findings"]
        given = evaluate_files(truth=truth, probs=probs, thresholds=limits, replicates=100)["findings"]
        assert half["Effusion"]["ppv"]["value"] == pytest.approx(4 / 5)
        assert given["Effusion"]["sensitivity"]["value"] == pytest.approx(1 / 4)
        assert given["Edema"] == half["Edema"]

    def test_a_probability_at_the_threshold_is_called(self, csv: Write) -> None:
        both = csv("t.csv", "id,Edema", "a,1", "b,0"), csv("p.csv", "id,Edema", "a,0.5", "b,0.4")
        result = evaluate_files(truth=both[0], probs=both[1], replicates=100, min_positives=1)
        assert result["findings"]["Edema"]["f1"]["value"] == 1.0

    def test_decisions_are_taken_as_they_are(self, csv: Write, truth: Path, probs: Path) -> None:
        calls = csv("calls.csv", "Study,Edema,Effusion", *(f"s{k},0,1" for k in range(10)))
        result = evaluate_files(truth=truth, probs=probs, decisions=calls, replicates=100)["findings"]
        assert result["Edema"]["sensitivity"]["value"] == 0.0
        assert result["Effusion"]["specificity"]["value"] == 0.0

    def test_uncertain_and_blank_truth_is_left_out(self, csv: Write) -> None:
        table = csv("t.csv", "id,Edema", "a,1", "b,0", "c,-1", "d,")
        scores = csv("p.csv", "id,Edema", "a,0.9", "b,0.1", "c,0.9", "d,0.1")
        result = evaluate_files(truth=table, probs=scores, replicates=100)
        assert result["findings"]["Edema"]["n"] == 2

    def test_a_patient_column_of_the_truth_groups_the_rows(self, csv: Write, probs: Path) -> None:
        table = csv("t.csv", "id,Edema,Patient ID", *(f"s{k},{k % 2},{k // 2}" for k in range(10)))
        assert evaluate_files(truth=table, probs=probs, replicates=100)["patients"] == 5

    def test_a_file_of_patients_groups_the_rows(self, csv: Write, truth: Path, probs: Path) -> None:
        patients = csv("who.csv", "id,patient", *(f"s{k},{k % 3}" for k in range(10)))
        assert evaluate_files(truth=truth, probs=probs, patients=patients, replicates=100)["patients"] == 3

    def test_ids_are_text(self, csv: Write) -> None:
        files = csv("t.csv", "id,Edema", "007,1", "7,0"), csv("p.csv", "id,Edema", "7,0.1", "007,0.9")
        assert (
            evaluate_files(truth=files[0], probs=files[1], replicates=100)["findings"]["Edema"]["auroc"]["value"] == 1
        )


class TestBadFiles:
    @pytest.mark.parametrize("score", ["1.2", "-0.01", "", "nan", "inf", "high"])
    def test_a_score_that_is_no_probability(self, csv: Write, score: str) -> None:
        files = csv("t.csv", "id,Edema", "a,1", "b,0"), csv("p.csv", "id,Edema", f"a,{score}", "b,0.5")
        with pytest.raises(BadLabelValue, match=r"p\.csv.*Edema.*probability in \[0, 1\]"):
            evaluate_files(truth=files[0], probs=files[1])

    @pytest.mark.parametrize("value", ["2", "0.5", "yes"])
    def test_a_truth_that_is_no_label(self, csv: Write, probs: Path, value: str) -> None:
        table = csv("t.csv", "id,Edema", f"s0,{value}", *(f"s{k},1" for k in range(1, 10)))
        with pytest.raises(BadLabelValue, match=r"t\.csv.*1, 0, -1 or blank"):
            evaluate_files(truth=table, probs=probs)

    def test_a_decision_between_yes_and_no(self, csv: Write, truth: Path, probs: Path) -> None:
        calls = csv("calls.csv", "Study,Edema", *(f"s{k},0.5" for k in range(10)))
        with pytest.raises(BadLabelValue, match="1 or 0"):
            evaluate_files(truth=truth, probs=probs, decisions=calls)

    def test_ids_missing_on_either_side(self, csv: Write, truth: Path) -> None:
        scores = csv("p.csv", "id,Edema", *(f"s{k},0.5" for k in range(1, 12)))
        with pytest.raises(UnmatchedIds, match="1 ids of the truth are missing and 2 are not in the truth"):
            evaluate_files(truth=truth, probs=scores)

    def test_a_doubled_id(self, csv: Write, truth: Path) -> None:
        scores = csv("p.csv", "id,Edema", *(f"s{k},0.5" for k in range(10)), "s3,0.5")
        with pytest.raises(UnmatchedIds, match=r"p\.csv: 1 ids stand there more than once"):
            evaluate_files(truth=truth, probs=scores)

    def test_no_finding_in_common(self, csv: Write, truth: Path) -> None:
        scores = csv("p.csv", "id,Hernia", *(f"s{k},0.5" for k in range(10)))
        with pytest.raises(LabelError, match="no finding in common"):
            evaluate_files(truth=truth, probs=scores)

    def test_a_threshold_for_an_unknown_finding(self, csv: Write, truth: Path, probs: Path) -> None:
        limits = csv("limits.csv", "finding,threshold", "Odema,0.4")
        with pytest.raises(UnknownFinding, match="Odema"):
            evaluate_files(truth=truth, probs=probs, thresholds=limits)

    def test_an_empty_file(self, csv: Write, truth: Path) -> None:
        with pytest.raises(LabelError):
            evaluate_files(truth=truth, probs=csv("p.csv", ""))

    def test_the_message_names_no_id(self, csv: Write, truth: Path) -> None:
        scores = csv("p.csv", "id,Edema", "Durand-Jeanne-1950,0.5")
        with pytest.raises(UnmatchedIds) as raised:
            evaluate_files(truth=truth, probs=scores)
        assert "Durand" not in str(raised.value)


@needs_shared
@pytest.mark.shared
class TestPublished:
    def test_the_14_aurocs_of_nih_equal_the_published_ones(self) -> None:
        result = evaluate_files(truth=NIH / "labels.csv", probs=NIH / "predictions.csv", replicates=20)
        published = pd.read_csv(NIH / "published_auroc.csv").set_index("label")["auc"]
        found = {finding: entry["auroc"]["value"] for finding, entry in result["findings"].items()}
        assert found == pytest.approx(published.to_dict(), abs=1e-6)

    def test_a_reader_with_another_column_order_is_aligned_by_name(self) -> None:
        from sklearn.metrics import f1_score, matthews_corrcoef

        reader = CHEXPERT / "radiologists" / "bc4.csv"
        result = evaluate_files(truth=CHEXPERT / "groundtruth.csv", probs=reader, decisions=reader, replicates=20)
        true = pd.read_csv(CHEXPERT / "groundtruth.csv").set_index("Study")
        read = pd.read_csv(reader).set_index("Study").loc[true.index]
        for finding, entry in result["findings"].items():
            assert entry["f1"]["value"] == pytest.approx(f1_score(true[finding], read[finding]), abs=1e-9)
            assert entry["mcc"]["value"] == pytest.approx(matthews_corrcoef(true[finding], read[finding]), abs=1e-9)

    def test_scores_above_one_are_refused(self) -> None:
        scores = CHEXPERT / "models" / "desmond.predictions.csv"
        with pytest.raises(BadLabelValue):
            evaluate_files(truth=CHEXPERT / "groundtruth.csv", probs=scores)


class TestReaders:
    @pytest.fixture
    def folder(self, tmp_path: Path, csv: Write) -> Path:
        """Two readers of Edema: one right everywhere, in another order of rows; one who calls everything."""
        (tmp_path / "readers").mkdir()
        right = [f"s{k},{int(k < 4)},{k % 2}" for k in reversed(range(10))]
        csv("readers/right.csv", "id,Effusion,Edema", *right)
        csv("readers/eager.csv", "Study,Edema,Effusion", *(f"s{k},1,1" for k in range(10)))
        return tmp_path / "readers"

    def test_each_reader_stands_beside_the_model(self, truth: Path, probs: Path, folder: Path) -> None:
        readers = evaluate_files(truth=truth, probs=probs, readers=folder, replicates=100)["readers"]
        assert readers["each"]["right"]["findings"]["Edema"]["f1"]["value"] == 1.0
        assert readers["each"]["eager"]["findings"]["Effusion"]["sensitivity"]["value"] == 1.0
        assert readers["each"]["eager"]["findings"]["Effusion"]["specificity"]["value"] == 0.0
        assert readers["mean"]["findings"]["Effusion"]["specificity"]["value"] == 0.5
        assert readers["majority"]["findings"]["Effusion"]["f1"]["value"] == 1.0
        assert readers["model"]["means"]["all"]["specificity"]["value"] == pytest.approx((1 + 5 / 6) / 2)

    def test_the_model_is_compared_at_the_readers_specificity(self, csv: Write, tmp_path: Path) -> None:
        truth = csv("t.csv", "id,Edema", *(f"s{k},{int(k >= 10)}" for k in range(20)))
        # The reader: 2 of 10 false alarms, 5 of 10 found. The model admits 2 negatives after 8 positives.
        scores = [*(0.5 - 0.01 * k for k in range(10)), *(0.9 - 0.01 * k for k in range(8)), 0.1, 0.05]
        probs = csv("p.csv", "id,Edema", *(f"s{k},{score:.2f}" for k, score in enumerate(scores)))
        (tmp_path / "people").mkdir()
        csv("people/one.csv", "id,Edema", *(f"s{k},{int(k < 2 or 10 <= k < 15)}" for k in range(20)))
        result = evaluate_files(truth=truth, probs=probs, readers=tmp_path / "people", replicates=100)
        above = result["readers"]["above"]["Edema"]["one"]
        assert above["sensitivity"] == pytest.approx(0.8)
        assert above["difference"]["value"] == pytest.approx(0.3)
        assert above["difference"]["low"] < 0.3 < above["difference"]["high"]

    def test_a_folder_without_readers(self, truth: Path, probs: Path, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="one file a reader"):
            evaluate_files(truth=truth, probs=probs, readers=tmp_path / "nobody")

    def test_a_reader_of_other_images(self, truth: Path, probs: Path, folder: Path, csv: Write) -> None:
        csv("readers/other.csv", "id,Edema", "x1,1")
        with pytest.raises(UnmatchedIds, match=r"other\.csv"):
            evaluate_files(truth=truth, probs=probs, readers=folder)

    def test_a_cell_not_read_is_left_out_for_that_reader(
        self, csv: Write, truth: Path, probs: Path, folder: Path
    ) -> None:
        csv("readers/brief.csv", "id,Edema", "s0,0", *(f"s{k}," for k in range(1, 10)))
        readers = evaluate_files(truth=truth, probs=probs, readers=folder, replicates=100)["readers"]
        assert readers["each"]["brief"]["findings"]["Edema"]["n"] == 1

    @needs_shared
    @pytest.mark.shared
    def test_two_radiologists_on_the_development_part(self) -> None:
        truth, people = CHEXPERT / "groundtruth.csv", CHEXPERT / "radiologists"
        scores = CHEXPERT / "models" / "drnet.predictions.csv"
        mean = evaluate_files(truth=truth, probs=scores, readers=people, replicates=100)["readers"]["mean"]
        single = [
            evaluate_files(truth=truth, probs=file, decisions=file, replicates=100)["means"]["competition-5"]["f1"][
                "value"
            ]
            for file in sorted(people.glob("*.csv"))
        ]
        assert mean["means"]["competition-5"]["f1"]["value"] == pytest.approx(np.mean(single))


FINDINGS = ("No Finding", "Edema", "Pleural Effusion", "Fracture")


def hospital(n: int = 240, gain: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """Truth, a base, a candidate that is better by `gain` (in logits), patients and attributes."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, len(FINDINGS))) < (0.4, 0.3, 0.2, 0)).astype(float)
    truth[:, 3] = 0
    truth[:2, 3] = 1
    base = 0.8 * (2 * truth - 1) + rng.normal(size=truth.shape)
    candidate = base + gain * (2 * truth - 1)
    groups = pd.DataFrame({"site": rng.choice(["A", "B"], n), "sex": rng.choice(["F", "M", None], n)})
    groups.loc[:4, "site"] = "tiny"
    return {
        "truth": truth,
        "base": 1 / (1 + np.exp(-base)),
        "candidate": 1 / (1 + np.exp(-candidate)),
        "patients": rng.integers(0, n // 2, n),
        "groups": groups,
        "settings": EvaluateSettings(replicates=100),
        "seed": 0,
        "findings": FINDINGS,
    }


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    return evaluate_candidate(**hospital())


class TestCandidate:
    def test_the_result_is_json_and_the_same_again(self, evaluation: dict[str, Any]) -> None:
        again = evaluate_candidate(**hospital())
        assert json.dumps(again, allow_nan=False) == json.dumps(evaluation, allow_nan=False)

    def test_a_better_candidate_gains(self, evaluation: dict[str, Any]) -> None:
        gain = evaluation["differences"]["means"]["all"]["auroc"]
        assert gain["low"] > 0
        assert gain["p"] < 0.001
        assert "is better than the model in use" in sentence(evaluation)

    def test_an_equal_candidate_cannot_be_told_apart(self) -> None:
        assert "cannot be told from the model in use" in sentence(evaluate_candidate(**hospital(gain=0.0)))

    def test_a_worse_candidate_is_called_worse(self) -> None:
        assert "is worse than the model in use" in sentence(evaluate_candidate(**hospital(gain=-1.0)))

    def test_a_rare_finding_is_shown_and_not_averaged(self, evaluation: dict[str, Any]) -> None:
        assert "why" in evaluation["models"]["candidate"]["findings"]["Fracture"]
        assert evaluation["models"]["candidate"]["means"]["all"]["auroc"]["over"] == 3

    def test_thresholds_of_each_model_are_used(self) -> None:
        case = hospital()
        strict = evaluate_candidate(**case, candidate_thresholds={"Edema": 1.0}, base_thresholds=[0.0] * 4)
        assert strict["models"]["candidate"]["findings"]["Edema"]["sensitivity"]["value"] == 0.0
        assert strict["models"]["base"]["findings"]["Edema"]["sensitivity"]["value"] == 1.0
        assert strict["models"]["candidate"]["thresholds"]["Edema"] == 1.0

    def test_subgroups_are_complete_but_for_the_tiny(self, evaluation: dict[str, Any]) -> None:
        single = [(g["attribute"], g["group"]) for g in evaluation["groups"] if "×" not in g["attribute"]]
        assert single == [("site", "A"), ("site", "B"), ("sex", "F"), ("sex", "M"), ("sex", "unknown")]
        assert ("site × sex", "A · F") in [(g["attribute"], g["group"]) for g in evaluation["groups"]]

    def test_a_subgroups_values_are_those_of_its_rows(self, evaluation: dict[str, Any]) -> None:
        case = hospital()
        rows = (case["groups"]["site"] == "A").to_numpy()
        group = next(g for g in evaluation["groups"] if g["group"] == "A")
        truth, probs = case["truth"][rows, 1], case["candidate"][rows, 1]
        entry = group["findings"]["Edema"]
        assert group["n"] == rows.sum()
        assert entry["auroc"]["candidate"]["value"] == pytest.approx(metrics.auroc(truth, probs))
        assert entry["f1"]["candidate"]["value"] == pytest.approx(metrics.f1(truth, probs >= 0.5))
        assert entry["auroc"]["difference"]["low"] < entry["auroc"]["difference"]["value"]

    def test_underdiagnosis_is_the_part_of_the_sick_called_healthy(self, evaluation: dict[str, Any]) -> None:
        case = hospital()
        rows = (case["groups"]["sex"] == "F").to_numpy() & (case["truth"][:, 0] == 0)
        group = next(g for g in evaluation["groups"] if g["group"] == "F")
        expected = (case["candidate"][rows, 0] >= 0.5).mean()
        assert group["underdiagnosis"]["candidate"]["value"] == pytest.approx(expected)

    def test_analytic_limits_of_a_subgroup_agree_with_the_bootstrap(self) -> None:
        case = hospital(600)
        case["groups"] = pd.DataFrame({"site": ["A"] * 600})
        case["settings"] = EvaluateSettings(replicates=1000)
        result = evaluate_candidate(**case)
        for metric in ("auroc", "f1"):
            whole = result["differences"]["findings"]["Edema"][metric]
            group = result["groups"][0]["findings"]["Edema"][metric]["difference"]
            assert group["value"] == pytest.approx(whole["value"])
            assert group["high"] - group["low"] == pytest.approx(whole["high"] - whole["low"], rel=0.2)

    def test_curves_start_and_end_in_the_corners(self, evaluation: dict[str, Any]) -> None:
        curves = evaluation["curves"]["candidate"]["Edema"]
        assert curves["roc"][0] == [0.0, 0.0]
        assert curves["roc"][-1] == [1.0, 1.0]
        assert len(curves["roc"]) <= 125
        assert sum(n for _, _, n in curves["calibration"]) == 240
        assert sum(curves["confusion"]) == 240

    def test_rows_for_a_table_end_with_the_mean(self, evaluation: dict[str, Any]) -> None:
        rows = comparison_rows(evaluation)
        assert [row["finding"] for row in rows] == [*FINDINGS, "mean"]
        assert rows[1]["difference"] == pytest.approx(rows[1]["candidate"] - rows[1]["base"])

    def test_the_headline_has_the_numbers_of_the_means(self, evaluation: dict[str, Any]) -> None:
        short = headline(evaluation)
        assert short["mean_auroc"]["candidate"] == evaluation["models"]["candidate"]["means"]["all"]["auroc"]
        assert short["sentence"] == sentence(evaluation)

    def test_the_worst_mistakes_are_misses_and_false_calls_of_many_findings(self) -> None:
        truth = np.array([[1.0, 0, np.nan], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        probs = np.array([[0.0, 0.1, 1.0], [0.1, 0.9, 0.0], [0.2, 0.3, 0.8], [0.0, 0.1, 0.6]])
        assert worst_cells(truth, probs, 8) == [(0, 0), (1, 1), (2, 1)]
        assert worst_cells(truth, probs, 1) == [(0, 0)]

    def test_readers_stand_beside_the_candidate(self) -> None:
        case = hospital(80)
        result = evaluate_candidate(**case, readers={"a": case["truth"], "b": 1 - case["truth"]})
        assert result["readers"]["mean"]["findings"]["Edema"]["sensitivity"]["value"] == 0.5
        f1 = result["models"]["candidate"]["findings"]["Edema"]["f1"]["value"]
        assert result["readers"]["model"]["findings"]["Edema"]["f1"]["value"] == f1


class TestReport:
    @pytest.fixture(scope="class")
    def page(self, evaluation: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
        film = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
        heat = np.zeros((7, 7))
        heat[3, 3] = 1
        return write_report(
            tmp_path_factory.mktemp("report"),
            evaluation,
            sections=[("Suspects", "<p>17 labels</p>")],
            pictures=[Picture("Edema <missed>", film, heat)],
        )

    def test_the_page_holds_everything_it_shows(self, page: Path) -> None:
        text = page.read_text()
        assert not re.search(r'(src|href)="(?!data:|#)', text)
        assert text.count("data:image/png;base64,") == 9
        assert "17 labels" in text
        assert "Edema &lt;missed&gt;" in text

    def test_the_first_words_say_the_result(self, page: Path, evaluation: dict[str, Any]) -> None:
        from html import escape

        assert escape(sentence(evaluation)) in page.read_text()

    def test_every_figure_is_a_file_too(self, page: Path) -> None:
        names = {path.stem for path in (page.parent / "figures").glob("*.png")}
        assert names == {
            "final_results",
            "subgroups",
            "roc",
            "precision_recall",
            "calibration",
            "confusion",
            "by_threshold",
        }

    def test_a_finding_with_one_class_and_readers_do_not_break_the_page(self, tmp_path: Path) -> None:
        case = hospital(60)
        case["truth"][:, 3] = 0
        result = evaluate_candidate(**case, readers={"a": case["truth"]})
        assert write_report(tmp_path, result).stat().st_size > 100_000
