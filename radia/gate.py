"""The gate: may a person be asked to approve this candidate? Rules are data (GateSettings); the evidence is a dict.

Nothing here measures anything: `radia/evaluate` did. Three outcomes: pass, fail, not enough evidence. A rule that lacks
evidence blocks only where `GateSettings.must_be_shown` names it; a rule that fails always blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from radia.metrics import shown
from radia.settings import GateSettings


class Outcome(StrEnum):
    """What a rule says."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    UNKNOWN = "not enough evidence"


@dataclass(frozen=True)
class RuleOutcome:
    """One rule: what was seen, what was asked for, and the verdict; `parts` where it looks at several things."""

    name: str
    observed: str
    bound: str
    outcome: Outcome
    parts: tuple[RuleOutcome, ...] = ()


@dataclass(frozen=True)
class Decision:
    """All rules. `passed` opens the way to a person's approval; it approves nothing itself."""

    rules: tuple[RuleOutcome, ...]
    passed: bool

    def blocking(self) -> tuple[RuleOutcome, ...]:
        """The rules that did not pass, worst first."""
        return tuple(sorted((r for r in self.rules if r.outcome is not Outcome.PASS), key=lambda r: r.outcome.value))

    def as_json(self) -> dict[str, Any]:
        """{"passed": ..., "rules": [{"name", "observed", "bound", "outcome", "parts"}]}."""
        return {"passed": self.passed, "rules": [asdict(rule) for rule in self.rules]}

    def to_json(self) -> str:
        """`as_json` as text."""
        return json.dumps(self.as_json(), indent=1) + "\n"

    @staticmethod
    def from_json(recorded: Mapping[str, Any]) -> Decision:
        """The decision that `as_json` wrote."""
        return Decision(tuple(map(_rule_from_json, recorded["rules"])), bool(recorded["passed"]))


def decide(
    evaluation: Mapping[str, Any],
    settings: GateSettings,
    *,
    gold_reads: int | None = None,
    open_critical_checks: int | None = None,
) -> Decision:
    """Applies every rule to the dict of `evaluate_candidate`.

    gold_reads: reads of held-out images; open_critical_checks: failed critical rules of data quality. Where not given,
    the evaluation's keys of the same names count, and else 0.
    """
    reads = int(evaluation.get("gold_reads", 0)) if gold_reads is None else gold_reads
    critical = int(evaluation.get("open_critical_checks", 0)) if open_critical_checks is None else open_critical_checks
    rules = [
        _at_least("held-out images", int(evaluation["n"]), settings.min_test_studies),
        _at_least("gold reads", reads, settings.min_gold_reads),
        _no_open_checks(critical),
        _mean_gain(evaluation, settings),
        _findings_not_worse(evaluation, settings),
        _groups_not_worse(evaluation, settings),
        _calibrated(evaluation, settings),
    ]
    if settings.human_floor:
        rules.append(_human_floor(evaluation, settings))
    return Decision(tuple(rules), all(_lets_through(rule, settings) for rule in rules))


def _lets_through(rule: RuleOutcome, settings: GateSettings) -> bool:
    if rule.outcome is Outcome.UNKNOWN:
        return rule.name not in settings.must_be_shown
    return rule.outcome is Outcome.PASS


def _at_least(name: str, number: int, bound: int) -> RuleOutcome:
    return RuleOutcome(name, str(number), f"at least {bound}", Outcome.PASS if number >= bound else Outcome.UNKNOWN)


def _no_open_checks(number: int) -> RuleOutcome:
    outcome = Outcome.PASS if number == 0 else Outcome.FAIL
    return RuleOutcome("critical quality checks", f"{number} open", "none open", outcome)


def _mean_gain(evaluation: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    """Superiority: the lower limit of the gain lies above the bound."""
    gain = evaluation["differences"]["means"]["all"]["auroc"]
    bound = settings.min_mean_auroc_gain
    if gain["value"] is None:
        outcome = Outcome.UNKNOWN
    elif gain["low"] > bound:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if gain["value"] <= bound else Outcome.UNKNOWN
    return RuleOutcome("mean AUROC gain", shown(gain, signed=True), f"lower limit above {bound:+.3f}", outcome)


def _findings_not_worse(evaluation: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    margin = settings.max_finding_auroc_loss
    parts = [
        _not_worse(finding, entry["auroc"], margin)
        for finding, entry in evaluation["differences"]["findings"].items()
        if entry["auroc"]["value"] is not None
    ]
    return _together("no finding worse", parts, f"AUROC loss within {margin:.3f}")


def _groups_not_worse(evaluation: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    margin = settings.max_group_auroc_loss
    parts = [
        _not_worse(f"{group['attribute']}: {group['group']}", group["means"]["auroc"]["difference"], margin)
        for group in evaluation["groups"]
        if "×" not in group["attribute"] and group["means"]["auroc"]["difference"]["value"] is not None
    ]
    return _together("no subgroup worse", parts, f"mean AUROC loss within {margin:.3f}")


def _not_worse(name: str, difference: Mapping[str, Any], margin: float) -> RuleOutcome:
    """Non-inferiority: pass when the lower limit stays within the margin; fail when surely worse and beyond it."""
    if difference["low"] is not None and difference["low"] > -margin:
        outcome = Outcome.PASS
    elif difference["high"] is not None and difference["value"] < -margin and difference["high"] < 0:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.UNKNOWN
    return RuleOutcome(name, shown(difference, signed=True), f"lower limit above {-margin:+.3f}", outcome)


def _together(name: str, parts: list[RuleOutcome], bound: str) -> RuleOutcome:
    counted = {outcome: sum(part.outcome is outcome for part in parts) for outcome in Outcome}
    observed = f"{counted[Outcome.PASS]} of {len(parts)} shown" + _named(parts, Outcome.FAIL, "worse")
    return RuleOutcome(name, observed + _named(parts, Outcome.UNKNOWN, "open"), bound, _worst(parts), tuple(parts))


def _named(parts: Iterable[RuleOutcome], outcome: Outcome, word: str) -> str:
    names = [part.name for part in parts if part.outcome is outcome]
    return f"; {word}: {', '.join(names)}" if names else ""


def _worst(parts: Iterable[RuleOutcome]) -> Outcome:
    outcomes = {part.outcome for part in parts}
    if Outcome.FAIL in outcomes:
        return Outcome.FAIL
    return Outcome.UNKNOWN if Outcome.UNKNOWN in outcomes or not outcomes else Outcome.PASS


def _calibrated(evaluation: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    error = evaluation["models"]["candidate"]["means"]["all"]["ece"]
    bound = settings.max_mean_ece
    if error["value"] is None:
        outcome = Outcome.UNKNOWN
    elif error["value"] <= bound:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if error["low"] is not None and error["low"] > bound else Outcome.UNKNOWN
    return RuleOutcome("calibration", f"mean ECE {shown(error)}", f"at most {bound:.3f}", outcome)


def _human_floor(evaluation: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    """The candidate's mean F1 is not below the mean of the readers by more than the margin."""
    name, margin = "human floor", settings.human_floor_margin
    readers = evaluation.get("readers")
    if not readers:
        return RuleOutcome(name, "no readers given", "mean F1 of the readers", Outcome.UNKNOWN)
    human, model = (readers[who]["means"]["all"]["f1"] for who in ("mean", "model"))
    if human["value"] is None or model["low"] is None:
        return RuleOutcome(name, shown(model), "mean F1 of the readers", Outcome.UNKNOWN)
    floor = human["value"] - margin
    bound = f"lower limit above {floor:.3f} (readers {human['value']:.3f})"
    below = Outcome.FAIL if model["high"] < floor else Outcome.UNKNOWN
    outcome = Outcome.PASS if model["low"] > floor else below
    return RuleOutcome(name, f"mean F1 {shown(model)}", bound, outcome)


def _rule_from_json(recorded: Mapping[str, Any]) -> RuleOutcome:
    return RuleOutcome(
        recorded["name"],
        recorded["observed"],
        recorded["bound"],
        Outcome(recorded["outcome"]),
        tuple(map(_rule_from_json, recorded.get("parts", ()))),
    )
