from __future__ import annotations

import json
from typing import Any

import pytest

from radia.gate import Decision, Outcome, decide, one_sided
from radia.settings import GateSettings


def interval(value: float | None, half: float = 0.02) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "why": "no positives"}
    return {"value": value, "low": value - half, "high": value + half}


def evaluation(
    *,
    mean: dict[str, Any] | None = None,
    edema: dict[str, Any] | None = None,
    group: dict[str, Any] | None = None,
    ece: dict[str, Any] | None = None,
    n: int = 100,
) -> dict[str, Any]:
    """What the gate reads of an evaluation: a good candidate unless told otherwise."""
    return {
        "n": n,
        "differences": {
            "means": {"all": {"auroc": mean or interval(0.05)}},
            "findings": {"Edema": {"auroc": edema or interval(0.03)}, "Fracture": {"auroc": interval(None)}},
        },
        "groups": [
            {"attribute": "sex", "group": "F", "means": {"auroc": {"difference": group or interval(0.02)}}},
            {"attribute": "sex × site", "group": "F · A", "means": {"auroc": {"difference": interval(-0.5)}}},
        ],
        "models": {"candidate": {"means": {"all": {"ece": ece or interval(0.05)}}}},
    }


def outcomes(decision: Decision) -> dict[str, Outcome]:
    return {rule.name: rule.outcome for rule in decision.rules}


def test_a_good_candidate_passes_every_rule() -> None:
    decision = decide(evaluation(), GateSettings())
    assert set(outcomes(decision).values()) == {Outcome.PASS}
    assert decision.passed


@pytest.mark.parametrize(
    ("gain", "outcome", "passed"),
    [
        (interval(0.05), Outcome.PASS, True),
        (interval(0.01), Outcome.UNKNOWN, False),
        (interval(-0.01), Outcome.FAIL, False),
        (interval(None), Outcome.UNKNOWN, False),
    ],
)
def test_the_mean_gain_must_be_shown(gain: dict[str, Any], outcome: Outcome, passed: bool) -> None:
    decision = decide(evaluation(mean=gain), GateSettings())
    assert outcomes(decision)["mean AUROC gain"] is outcome
    assert decision.passed is passed


@pytest.mark.parametrize(
    ("difference", "outcome", "passed"),
    [
        (interval(-0.02), Outcome.PASS, True),
        (interval(-0.04), Outcome.UNKNOWN, True),
        (interval(-0.06, 0.09), Outcome.UNKNOWN, True),
        (interval(-0.06, 0.05), Outcome.FAIL, False),
    ],
)
def test_no_finding_and_no_subgroup_may_be_worse(difference: dict[str, Any], outcome: Outcome, passed: bool) -> None:
    for rule, case in (("no finding worse", {"edema": difference}), ("no subgroup worse", {"group": difference})):
        decision = decide(evaluation(**case), GateSettings())
        assert outcomes(decision)[rule] is outcome
        assert decision.passed is passed


def test_a_failed_rule_names_what_failed() -> None:
    rule = next(
        r for r in decide(evaluation(edema=interval(-0.3)), GateSettings()).rules if r.name == "no finding worse"
    )
    assert rule.observed == "0 of 1 shown; worse: Edema"
    assert rule.parts[0].observed == "-0.300 (-0.320 to -0.280), one-sided p 1.000"
    assert rule.parts[0].numbers["bound"] == -0.05


@pytest.mark.parametrize(("low", "bound"), [(0.01, 0.0), (0.0, 0.0), (-0.01, 0.0), (-0.06, -0.05)])
def test_the_one_sided_test_and_the_lower_limit_say_the_same(low: float, bound: float) -> None:
    p = one_sided({"value": low + 0.04, "low": low, "high": low + 0.08}, bound)
    assert p is not None
    assert (p < 0.025 - 1e-12) is (low > bound)
    assert one_sided({"value": 0.0, "low": -0.0392, "high": 0.0392}, 0.0) == pytest.approx(0.5)


def test_a_laxer_level_asks_for_less() -> None:
    unsure = evaluation(edema=interval(-0.032))
    assert outcomes(decide(unsure, GateSettings()))["no finding worse"] is Outcome.UNKNOWN
    assert outcomes(decide(unsure, GateSettings(one_sided_level=0.05)))["no finding worse"] is Outcome.PASS


@pytest.mark.parametrize(
    ("gain", "outcome", "passed"),
    [(0.05, Outcome.PASS, True), (0.01, Outcome.UNKNOWN, True), (-0.05, Outcome.FAIL, False)],
)
def test_what_blind_reads_refute_is_refused(gain: float, outcome: Outcome, passed: bool) -> None:
    """The given labels call the candidate better; what counts is what the reads say."""
    by_reads = {"comparison": {"difference": {"means": {"all": {"auroc": interval(gain)}}}}}
    decision = decide({**evaluation(), "estimates": by_reads}, GateSettings())
    assert outcomes(decision)["mean AUROC gain, noise-aware"] is outcome
    assert decision.passed is passed


def test_lack_of_evidence_blocks_where_the_settings_say_so() -> None:
    unsure = evaluation(edema=interval(-0.04))
    strict = GateSettings(must_be_shown=("no finding worse",))
    assert decide(unsure, GateSettings()).passed
    assert not decide(unsure, strict).passed


def test_a_test_set_that_is_too_small_is_no_evidence() -> None:
    decision = decide(evaluation(n=29), GateSettings(min_test_studies=30))
    assert outcomes(decision)["held-out images"] is Outcome.UNKNOWN
    assert not decision.passed


def test_gold_reads_are_counted() -> None:
    settings = GateSettings(min_gold_reads=50)
    assert not decide(evaluation(), settings).passed
    assert decide({**evaluation(), "gold_reads": 50}, settings).passed
    assert decide(evaluation(), settings, gold_reads=60).passed


def test_an_open_critical_check_closes_the_gate() -> None:
    decision = decide(evaluation(), GateSettings(), open_critical_checks=1)
    assert outcomes(decision)["critical quality checks"] is Outcome.FAIL
    assert not decision.passed


@pytest.mark.parametrize(
    ("ece", "outcome"), [(0.1, Outcome.PASS), (0.16, Outcome.UNKNOWN), (0.3, Outcome.FAIL), (None, Outcome.UNKNOWN)]
)
def test_probabilities_must_mean_what_they_say(ece: float | None, outcome: Outcome) -> None:
    decision = decide(evaluation(ece=interval(ece)), GateSettings(max_mean_ece=0.15))
    assert outcomes(decision)["calibration"] is outcome


def test_the_human_floor_is_asked_for_only_where_it_is_set() -> None:
    readers = {who: {"means": {"all": {"f1": interval(f1)}}} for who, f1 in (("mean", 0.6), ("model", 0.65))}
    assert "human floor" not in outcomes(decide(evaluation(), GateSettings()))
    floor = GateSettings(human_floor=True)
    assert outcomes(decide(evaluation(), floor))["human floor"] is Outcome.UNKNOWN
    assert outcomes(decide({**evaluation(), "readers": readers}, floor))["human floor"] is Outcome.PASS
    elsewhere = {**evaluation(), "external": {"CheXpert": {"readers": readers}, "NIH": {"readers": {}}}}
    assert outcomes(decide(elsewhere, floor))["human floor"] is Outcome.PASS
    readers["model"]["means"]["all"]["f1"] = interval(0.5)
    assert outcomes(decide({**evaluation(), "readers": readers}, floor))["human floor"] is Outcome.FAIL


def test_a_decision_survives_being_written_down() -> None:
    decision = decide(evaluation(edema=interval(-0.3)), GateSettings())
    assert Decision.from_json(json.loads(decision.to_json())) == decision
    assert [rule.outcome for rule in decision.blocking()] == [Outcome.FAIL]
