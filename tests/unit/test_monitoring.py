from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from radia.evaluate.figures import draw_shift, png
from radia.monitoring import (
    EVERYWHERE,
    MEASURES,
    Sample,
    kernel,
    mmd,
    permuted,
    propose,
    psi,
    shift,
    shift_by_site,
    shifted_in,
    thinned,
)
from radia.settings import MonitorSettings

SETTINGS = MonitorSettings(permutations=199)


def sample(n: int, seed: int, *, moved: float = 0.0, images_a_patient: int = 1, sites: str = "A") -> Sample:
    """Images of patients with something of their own; `moved`: by so many standard deviations in everything."""
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // images_a_patient
    own = rng.normal(size=(n, 4))[patients]
    hidden = own + 0.4 * rng.normal(size=(n, 4)) + moved
    noise = np.random.default_rng(99).normal(size=(4, 16))
    return Sample(
        patients.astype(str),
        rng.choice(list(sites), n),
        pd.DataFrame({name: hidden[:, k % 4] for k, name in enumerate(MEASURES)}),
        hidden @ noise + rng.normal(size=(n, 16)),
        pd.DataFrame({"Edema": 1 / (1 + np.exp(-hidden[:, 0])), "Fracture": rng.random(n)}),
    )


class TestPsi:
    def test_by_hand(self) -> None:
        """Two bins of 100 against 25 and 75, with half a case added to each."""
        reference, current = np.arange(200.0), np.concatenate([np.full(25, 50.0), np.full(75, 150.0)])
        r, c = np.array([100.5, 100.5]) / 201, np.array([25.5, 75.5]) / 101
        assert psi(reference, current, bins=2) == pytest.approx(((c - r) * np.log(c / r)).sum())

    def test_equals_the_sum_over_the_reference_s_deciles(self) -> None:
        rng = np.random.default_rng(0)
        reference, current = rng.normal(size=400), rng.normal(0.5, 1, 150)
        edges = np.sort(reference)[np.arange(1, 10) * 40 - 1]
        r = (np.bincount(np.searchsorted(edges, reference), minlength=10) + 0.5) / 405
        c = (np.bincount(np.searchsorted(edges, current), minlength=10) + 0.5) / 155
        assert psi(reference, current) == pytest.approx(((c - r) * np.log(c / r)).sum())

    def test_a_sample_does_not_differ_from_itself(self) -> None:
        values = np.random.default_rng(0).normal(size=100)
        assert psi(values, values) == pytest.approx(0.0, abs=1e-12)

    def test_ties_stay_in_one_bin(self) -> None:
        assert psi(np.zeros(50), np.zeros(20)) == 0.0
        assert psi(np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], [10, 90])) > 0.5


class TestMmd:
    def test_equals_its_definition(self) -> None:
        rng = np.random.default_rng(0)
        features = rng.normal(size=(12, 3))
        similarity, mask = kernel(features), np.arange(12) < 5
        within = [[similarity[i, j] for i in rows for j in rows if i != j] for rows in (range(5), range(5, 12))]
        across = [similarity[i, j] for i in range(5) for j in range(5, 12)]
        expected = np.mean(within[0]) + np.mean(within[1]) - 2 * np.mean(across)
        assert mmd(similarity, mask[None])[0] == pytest.approx(expected)

    def test_a_channel_that_never_changes_says_nothing(self) -> None:
        features = np.random.default_rng(0).normal(size=(20, 2))
        assert np.allclose(kernel(np.column_stack([features, np.full(20, 7.0)])), kernel(features))


class TestPermuted:
    def test_units_change_sides_whole_and_as_many_as_before_are_reference(self) -> None:
        units: NDArray[np.intp] = np.array([0, 0, 1, 2, 2, 2, 3])
        masks = permuted(units, np.array([True, True, True, False, False, False, False]), 50, 0)
        for mask in masks:
            sides = {unit: set(mask[units == unit].tolist()) for unit in range(4)}
            assert all(len(side) == 1 for side in sides.values())
            assert sum(True in side for side in sides.values()) == 2


class TestShift:
    def test_what_moved_is_named(self) -> None:
        found = shift(sample(250, 2), sample(120, 3, moved=1.0), SETTINGS)
        assert {"exposure", "noise", "Edema", "embeddings"} <= set(found["shifted"])
        assert "Fracture" not in found["shifted"]
        assert found["measures"]["exposure"]["p"] == pytest.approx(1 / 200)
        assert found["embeddings"]["mmd"] > 0.05
        json.dumps(found, allow_nan=False)

    def test_what_did_not_move_is_left_alone(self) -> None:
        found = [shift(sample(250, 2 * k), sample(120, 2 * k + 1), SETTINGS, seed=k)["shifted"] for k in range(10)]
        assert sum(bool(names) for names in found) <= 1

    def test_what_surely_moved_but_by_little_is_left_alone(self) -> None:
        pair = sample(250, 2), sample(120, 3, moved=1.0)
        lax = SETTINGS.model_copy(update={"min_psi": 50.0, "min_mmd": 1.9})
        assert shift(*pair, SETTINGS)["shifted"]
        assert shift(*pair, lax)["shifted"] == []

    def test_images_of_one_patient_count_once(self) -> None:
        """Thirty patients with eight images each differ by chance as thirty images would, not as 240."""
        p = [
            shift(sample(240, 2 * k, images_a_patient=8), sample(240, 2 * k + 1, images_a_patient=8), SETTINGS, seed=k)[
                "embeddings"
            ]["p"]
            for k in range(20)
        ]
        assert sum(value < 0.05 for value in p) <= 4
        assert max(p) > 0.3

    def test_too_few_images_are_not_compared(self) -> None:
        found = shift(sample(250, 0), sample(29, 1, moved=3.0), SETTINGS)
        assert found["shifted"] == []
        assert "fewer than 30" in found["why"]

    def test_the_same_seed_gives_the_same_answer(self) -> None:
        small = MonitorSettings(permutations=99, max_images=60)
        pair = sample(250, 0), sample(120, 1)
        assert shift(*pair, small, seed=3) == shift(*pair, small, seed=3)
        assert shift(*pair, small, seed=3) != shift(*pair, small, seed=4)

    def test_a_large_sample_is_thinned(self) -> None:
        assert len(thinned(sample(250, 0), 100, 0)) == 100
        assert len(thinned(sample(50, 0), 100, 0)) == 50


class TestBySite:
    def test_each_site_is_held_against_itself(self) -> None:
        """Site B always looked different: only site A moved."""
        reference, current = sample(400, 0, sites="AB"), sample(300, 1, sites="AB")
        for one, move in ((reference, 0.0), (current, 1.5)):
            for place, by in (("B", 4.0), ("A", move)):
                one.measures.loc[one.sites == place, "exposure"] += by
        found = shift_by_site(reference, current, SETTINGS)
        assert "exposure" in found["A"]["shifted"]
        assert found["B"]["shifted"] == []
        assert "A: exposure" in shifted_in(found)

    def test_a_site_that_is_new_is_held_against_all_and_marked(self) -> None:
        current = replace(sample(100, 1), sites=np.full(100, "C"))
        found = shift_by_site(sample(200, 0, sites="AB"), current, SETTINGS)
        assert found["C"]["new_site"] is True
        assert found["C"]["reference_n"] == 200

    def test_it_can_be_drawn_where_a_site_has_too_few(self) -> None:
        current = sample(100, 1)
        current.sites[:10] = "B"
        found = shift_by_site(sample(200, 0, sites="AB"), current, SETTINGS)
        assert "why" in found["B"]
        assert png(draw_shift(found, "a batch")).startswith(b"\x89PNG")
        assert EVERYWHERE in found


class TestPropose:
    @pytest.mark.parametrize(
        ("facts", "name"),
        [
            ({"new_reads": 200}, "new reads"),
            ({"new_images": 5000}, "new images"),
            ({"age_days": 366.0}, "age of the model"),
            ({"shifted": ["A: exposure"]}, "shift"),
        ],
    )
    def test_any_reason_is_enough(self, facts: dict[str, object], name: str) -> None:
        proposal = propose(
            **{"new_reads": 199, "new_images": 4999, "age_days": 365.0, "shifted": [], **facts}, settings=SETTINGS
        )
        assert proposal.retrain
        assert [trigger.name for trigger in proposal.triggers if trigger.met] == [name]

    def test_without_a_reason_nothing_is_proposed(self) -> None:
        assert not propose(new_reads=0, new_images=0, age_days=1.0, shifted=[], settings=SETTINGS).retrain
