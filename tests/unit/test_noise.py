"""Noise rates from blind reads: weighted, with limits that hold; agreement; the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radia.errors import BiasedReads
from radia.noise import label_noise, noisiest, overruled, rates, reader_agreement, weighted_rate
from radia.noise_page import sentence, write_noise
from radia.reads import design, power, systematic_sample

FINDINGS = ["Edema", "Fracture"]


def _hospital(studies: int = 300, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Given labels of which a tenth is wrong at the first half of the studies (site A) and none at the second."""
    chance = np.random.default_rng(seed)
    truth = (chance.random((studies, 2)) < (0.3, 0.2)).astype(float)
    scores = 1 / (1 + np.exp(-(chance.normal(size=truth.shape) + 3 * truth - 2)))
    wrong = (chance.random(truth.shape) < 0.2) & (np.arange(studies)[:, None] < studies // 2)
    given = np.where(wrong, 1 - truth, truth)
    ids = pd.Index([f"s{number}" for number in range(studies)], name="id")
    return tuple(pd.DataFrame(values, index=ids, columns=FINDINGS) for values in (given, scores, truth))  # type: ignore[return-value]


def _reads(given: pd.DataFrame, scores: pd.DataFrame, truth: pd.DataFrame, budget: int, seed: int = 0) -> pd.DataFrame:
    wanted = design(given, scores, budget=budget)
    picked = systematic_sample(wanted.to_numpy(), np.random.default_rng(seed))
    return (
        truth.iloc[picked]
        .assign(readers=2, queue="evaluation", sampling_probability=wanted.to_numpy()[picked], source="file")
        .reset_index()
    )


class TestWeightedRate:
    def test_each_study_counts_for_those_that_it_stands_for(self) -> None:
        hit = np.array([[True], [False], [False]])
        among = np.ones((3, 1), dtype=bool)
        assert weighted_rate(hit, among, np.array([0.1, 0.5, 0.5])).value == pytest.approx(10 / 14)

    def test_equal_weights_give_the_limits_of_clopper_and_pearson(self) -> None:
        hit = np.zeros((50, 1), dtype=bool)
        hit[:5] = True
        found = weighted_rate(hit, np.ones((50, 1), dtype=bool), np.full(50, 0.2))
        assert found.value == pytest.approx(0.1)
        assert found.low == pytest.approx(0.033, abs=0.004)  # exact binomial: 0.0333 to 0.2181
        assert found.high == pytest.approx(0.218, abs=0.012)

    def test_no_hit_still_has_an_upper_limit(self) -> None:
        found = weighted_rate(np.zeros((30, 1), dtype=bool), np.ones((30, 1), dtype=bool), np.full(30, 0.5))
        assert found.low == found.value == 0
        assert 0.08 < found.high < 0.2

    def test_what_was_read_whole_is_known(self) -> None:
        hit = np.eye(4, dtype=bool)[:, :1]
        found = weighted_rate(hit, np.ones((4, 1), dtype=bool), np.ones(4), part_read=1.0)
        assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)

    def test_nothing_read_is_not_zero(self) -> None:
        found = weighted_rate(np.zeros((3, 1), dtype=bool), np.zeros((3, 1), dtype=bool), np.ones(3))
        assert found.as_json()["value"] is None

    def test_the_limits_hold_the_rate_in_most_samples_drawn_unevenly(self) -> None:
        given, scores, truth = _hospital(400)
        wrong = (given != truth).to_numpy()
        wanted = design(given, scores, budget=80).to_numpy()
        held = 0
        for seed in range(200):
            picked = systematic_sample(wanted, np.random.default_rng(seed))
            read = np.zeros_like(wrong)
            read[picked] = True
            found = weighted_rate(wrong, read, wanted, 0.2)
            held += found.low <= wrong.mean() <= found.high
        assert held >= 186


class TestLabelNoise:
    @pytest.fixture(scope="class")
    def found(self) -> dict[str, object]:
        given, scores, truth = _hospital()
        at_a = np.arange(len(given)) < len(given) // 2
        cue = np.zeros(given.shape, dtype=bool)
        cue[:, 1] = True
        groups = {"site": {"A": at_a, "B": ~at_a}, "cue": {"negation": cue}}
        return label_noise(given, scores, _reads(given, scores, truth, 120), groups=groups)

    def test_the_noisy_site_stands_out(self, found: dict) -> None:  # type: ignore[type-arg]
        sites = found["groups"]["site"]
        assert sites["A"]["wrong"]["low"] > 0.1
        assert sites["B"]["wrong"]["value"] == 0
        assert sites["A"]["studies"] == sites["B"]["studies"] == 150

    def test_read_and_inferred_rates_stand_beside_each_other(self, found: dict) -> None:  # type: ignore[type-arg]
        for entry in found["findings"].values():
            assert abs(entry["wrong"]["value"] - 0.1) < 0.07
            assert abs(entry["inferred"]["wrong"]["value"] - 0.1) < 0.07

    def test_a_cue_is_a_group_of_labels_not_of_studies(self, found: dict) -> None:  # type: ignore[type-arg]
        entry = found["groups"]["cue"]["negation"]
        assert entry["reads"] == found["findings"]["Fracture"]["reads"] == 120
        assert entry["wrong"] == found["findings"]["Fracture"]["wrong"]
        assert "findings" not in entry

    def test_the_confusion_counts_every_read(self, found: dict) -> None:  # type: ignore[type-arg]
        counts = found["findings"]["Edema"]["confusion"]
        assert sum(sum(row.values()) for row in counts.values()) == 120

    def test_it_counts_the_readers(self, found: dict) -> None:  # type: ignore[type-arg]
        assert found["readers"] == {"2": 120}
        assert (found["studies"], found["read"]) == (300, 120)

    def test_only_what_is_surely_above_the_bound_is_named(self, found: dict) -> None:  # type: ignore[type-arg]
        assert noisiest(found, 0.0) == FINDINGS
        assert noisiest(found, 0.5) == []

    def test_reads_chosen_by_a_model_are_refused(self) -> None:
        given, scores, truth = _hospital(60)
        reads = _reads(given, scores, truth, 20).assign(queue="cleaning")
        with pytest.raises(BiasedReads):
            label_noise(given, scores, reads)

    def test_an_uncertain_label_is_neither_right_nor_wrong(self) -> None:
        given, scores, truth = _hospital(60)
        given.iloc[:] = -1.0
        given.iloc[0] = [1.0, 0.0]
        found = label_noise(given, scores, _reads(given, scores, truth, 60))
        assert found["labels"]["reads"] == 120
        assert found["findings"]["Edema"]["confusion"]["uncertain"]["present"] > 0
        assert found["findings"]["Edema"]["wrong"]["value"] in (0.0, 1.0)


def _votes(reader: str, values: list[float], role: str = "reader", visible: bool = False) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"s{number}" for number in range(len(values))],
            "finding": "Edema",
            "reader": reader,
            "value": values,
            "model_visible": visible,
            "role": role,
        }
    )


class TestAgreement:
    def test_pairs_and_second_looks_are_told_apart(self) -> None:
        first = [1.0, 0.0, 1.0, 0.0] * 5
        log = pd.concat(
            [
                _votes("a", first),
                _votes("b", first),
                _votes("a", [1 - v for v in first], "again"),
                _votes("c", first, "adjudicator"),
            ]
        )
        found = reader_agreement(log)
        assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [("a", "b")]
        assert found["pairs"][0]["kappa"] == 1.0
        assert found["again"][0]["kappa"] == -1.0
        assert found["again"][0]["low"] <= -1.0 <= found["again"][0]["high"]
        assert found["findings"][0]["readers"] == 2

    def test_reads_with_the_model_visible_do_not_count(self) -> None:
        log = pd.concat([_votes("a", [1.0, 0.0]), _votes("b", [1.0, 0.0], visible=True)])
        assert reader_agreement(log)["pairs"] == []


def test_overruled_labels_come_finding_by_finding() -> None:
    given = pd.DataFrame({"Edema": [1.0, 0.0, np.nan, -1.0], "Fracture": [0.0, 0.0, 1.0, 0.0]}, index=list("abcd"))
    decided = pd.DataFrame(
        {"Edema": [0.0, np.nan, 1.0, 1.0], "Fracture": [1.0, 0.0, 1.0, 0.0], "readers": 2}, index=list("abcd")
    )
    found = overruled(given, decided)
    assert list(zip(found["study"], found["finding"], strict=True)) == [
        ("a", "Edema"),
        ("a", "Fracture"),
        ("c", "Edema"),
    ]
    assert found["read"].tolist() == [0.0, 1.0, 1.0]


class TestPage:
    @pytest.fixture(scope="class")
    def noise(self) -> dict[str, object]:
        given, scores, truth = _hospital(120)
        reads = _reads(given, scores, truth, 60)
        found = label_noise(given, scores, reads, groups={"site": {"A&B": np.ones(120, dtype=bool)}})
        curves = power(given, scores, reads=reads, replicates=1)
        agreed = reader_agreement(pd.concat([_votes("Dr <A>", [1.0, 0.0, 1.0]), _votes("b", [1.0, 1.0, 1.0])]))
        return {
            **found,
            "noisiest": ["Edema"],
            "bound": 0.02,
            "suspected": {"Edema": 0.1},
            "power": {name: [list(point) for point in curve] for name, curve in curves.items()},
            "agreement": agreed,
            "queue": {"states": {"evaluation": {"settled": 60}}, "readers": {"Dr <A>": 3}, "model_visible": 0},
            "simulated": False,
            "undecided": 2,
        }

    def test_it_says_how_many_labels_are_wrong_and_who_read(self, noise: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
        page = write_noise(tmp_path, noise).read_text()
        assert f"{noise['labels']['wrong']['value']:.1%}" in page
        assert "60 of 120 studies were read again, blind, by 2 readers (60)" in page
        assert "Surely wrong more often than 2%: Edema" in page
        assert "2 labels of evaluation studies still wait for an adjudicator" in page
        assert "simulated" not in page.replace("simulated from what is known", "")

    def test_names_from_outside_are_escaped(self, noise: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
        page = write_noise(tmp_path, noise).read_text()
        assert "Dr <A>" not in page
        assert "Dr &lt;A&gt;" in page
        assert "A&amp;B" in page

    def test_it_needs_no_file_from_elsewhere(self, noise: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
        page = write_noise(tmp_path, noise).read_text()
        assert "http" not in page
        assert {path.name for path in (tmp_path / "figures").iterdir()} == {
            "noise_findings.png",
            "noise_site.png",
            "noise_power.png",
        }

    def test_simulated_readers_are_called_so(self, noise: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
        assert "The readers are simulated" in write_noise(tmp_path, {**noise, "simulated": True}).read_text()

    def test_without_reads_it_says_that_nothing_is_known(self, noise: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
        bare = {name: noise[name] for name in ("power", "bound", "suspected")} | {
            "read": 0,
            "studies": 120,
            "noisiest": [],
        }
        page = write_noise(tmp_path, bare).read_text()
        assert "how many of the given labels are wrong is not known" in page
        assert "Unverified" in sentence(bare)
        assert "Cannot be said" in page


def test_rates_of_a_group_without_reads_are_not_known() -> None:
    from radia.estimate import noisy_set

    given, scores, truth = _hospital(60)
    noisy = noisy_set(given, scores, _reads(given, scores, truth, 10))
    nobody = rates(noisy, np.zeros(noisy.given.shape, dtype=bool))
    assert nobody["wrong"]["value"] is None
    assert nobody["reads"] == 0
