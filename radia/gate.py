"""The gate: may a person be asked to approve this candidate? Rules are data (GateSettings); the evidence is a dict.

Nothing here measures anything: `radia/evaluate` did. Three outcomes: pass, fail, not enough evidence. A rule that lacks
evidence blocks only where `GateSettings.must_be_shown` names it; a rule that fails always blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import NormalDist
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
    """One rule: what was seen, what was asked for, and the verdict; `parts` where it looks at several things.

    numbers: the same as figures: value, low and high (95%), bound, and p of the one-sided test where there is one.
    """

    name: str
    observed: str
    bound: str
    outcome: Outcome
    parts: tuple[RuleOutcome, ...] = ()
    numbers: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """All rules. `passed` opens the way to a person's approval; it approves nothing itself."""

    rules: tuple[RuleOutcome, ...]
    passed: bool

    def blocking(self) -> tuple[RuleOutcome, ...]:
        """The rules that did not pass, worst first."""
        return tuple(sorted((r for r in self.rules if r.outcome is not Outcome.PASS), key=lambda r: r.outcome.value))

    def as_json(self) -> dict[str, Any]:
        """{"passed": ..., "rules": [{"name", "observed", "bound", "outcome", "parts", "numbers"}]}."""
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
    if evaluation.get("estimates"):
        rules.append(_gain_by_reads(evaluation["estimates"], settings))
    if settings.human_floor:
        rules.append(_human_floor(evaluation, settings))
    return Decision(tuple(rules), all(_lets_through(rule, settings) for rule in rules))


def _lets_through(rule: RuleOutcome, settings: GateSettings) -> bool:
    if rule.outcome is Outcome.UNKNOWN:
        return rule.name not in settings.must_be_shown
    return rule.outcome is Outcome.PASS


def _at_least(name: str, number: int, bound: int) -> RuleOutcome:
    outcome = Outcome.PASS if number >= bound else Outcome.UNKNOWN
    return RuleOutcome(name, str(number), f"at least {bound}", outcome, numbers={"value": number, "bound": bound})


def _no_open_checks(number: int) -> RuleOutcome:
    outcome = Outcome.PASS if number == 0 else Outcome.FAIL
    numbers = {"value": float(number), "bound": 0.0}
    return RuleOutcome("critical quality checks", f"{number} open", "none open", outcome, numbers=numbers)


def _mean_gain(evaluation: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    """Superiority: a one-sided test shows that the gain lies above the bound."""
    gain = evaluation["differences"]["means"]["all"]["auroc"]
    bound = settings.min_mean_auroc_gain
    p = one_sided(gain, bound)
    if p is None:
        outcome = Outcome.UNKNOWN
    elif p < settings.one_sided_level:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if gain["value"] <= bound else Outcome.UNKNOWN
    return RuleOutcome(
        "mean AUROC gain", _tested(gain, p), f"above {bound:+.3f}", outcome, numbers=_numbers(gain, bound, p)
    )


def _gain_by_reads(estimates: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    """The gain as blind reads have it: given labels may favour the model that learnt their mistakes."""
    gain = estimates["comparison"]["difference"]["means"]["all"]["auroc"]
    bound = settings.min_mean_auroc_gain
    p = one_sided(gain, bound)
    if p is None:
        outcome = Outcome.UNKNOWN
    elif p < settings.one_sided_level:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if gain["high"] < bound else Outcome.UNKNOWN
    name, asked = "mean AUROC gain, noise-aware", f"above {bound:+.3f}"
    return RuleOutcome(name, _tested(gain, p), asked, outcome, numbers=_numbers(gain, bound, p))


def _findings_not_worse(evaluation: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    margin = settings.max_finding_auroc_loss
    parts = [
        _not_worse(finding, entry["auroc"], margin, settings.one_sided_level)
        for finding, entry in evaluation["differences"]["findings"].items()
        if entry["auroc"]["value"] is not None
    ]
    return _together("no finding worse", parts, f"AUROC loss within {margin:.3f}")


def _groups_not_worse(evaluation: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    margin = settings.max_group_auroc_loss
    parts = [
        _not_worse(
            f"{group['attribute']}: {group['group']}",
            group["means"]["auroc"]["difference"],
            margin,
            settings.one_sided_level,
        )
        for group in evaluation["groups"]
        if "×" not in group["attribute"] and group["means"]["auroc"]["difference"]["value"] is not None
    ]
    return _together("no subgroup worse", parts, f"mean AUROC loss within {margin:.3f}")


def _not_worse(name: str, difference: Mapping[str, Any], margin: float, level: float) -> RuleOutcome:
    """Non-inferiority, one-sided: pass when a loss beyond the margin is refuted; fail when surely worse and beyond it.

    All findings must pass, so that no correction for their number is needed (Berger 1982, intersection-union test).
    """
    p = one_sided(difference, -margin)
    if p is not None and p < level:
        outcome = Outcome.PASS
    elif difference["high"] is not None and difference["value"] < -margin and difference["high"] < 0:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.UNKNOWN
    bound = f"above {-margin:+.3f}"
    return RuleOutcome(name, _tested(difference, p), bound, outcome, numbers=_numbers(difference, -margin, p))


def one_sided(difference: Mapping[str, Any], bound: float) -> float | None:
    """p of the one-sided test that a difference does not exceed the bound; None where it is not known.

    From the 95% limits, whose half-width stands for 1.96 standard errors: p < 0.025 says that the lower limit lies
    above the bound.
    """
    if difference["value"] is None or difference["low"] is None:
        return None
    normal = NormalDist()
    below = difference["value"] - difference["low"]
    above = difference["value"] - bound
    if below <= 0:
        return 0.0 if above > 0 else 1.0
    return normal.cdf(-above / below * normal.inv_cdf(0.975))


def _tested(difference: Mapping[str, Any], p: float | None) -> str:
    if p is None:
        return shown(difference, signed=True)
    return f"{shown(difference, signed=True)}, one-sided p {'< 0.001' if p < 0.001 else f'{p:.3f}'}"


def _numbers(entry: Mapping[str, Any], bound: float, p: float | None = None) -> dict[str, float | None]:
    return {**{name: entry[name] for name in ("value", "low", "high")}, "bound": bound, "p": p}


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
    seen, asked = f"mean ECE {shown(error)}", f"at most {bound:.3f}"
    return RuleOutcome("calibration", seen, asked, outcome, numbers=_numbers(error, bound))


def _human_floor(evaluation: Mapping[str, Any], settings: GateSettings) -> RuleOutcome:
    """The candidate's mean F1 is not below the mean of the readers by more than the margin, wherever people read."""
    sets = {"held-out images": evaluation, **evaluation.get("external", {})}
    read = {name: entry["readers"] for name, entry in sets.items() if entry.get("readers")}
    if not read:
        return RuleOutcome("human floor", "no readers given", "mean F1 of the readers", Outcome.UNKNOWN)
    parts = [_floor(name, readers, settings.human_floor_margin) for name, readers in read.items()]
    return parts[0] if len(parts) == 1 else _together("human floor", parts, "mean F1 of the readers")


def _floor(name: str, readers: Mapping[str, Any], margin: float) -> RuleOutcome:
    human, model = (readers[who]["means"]["all"]["f1"] for who in ("mean", "model"))
    if human["value"] is None or model["low"] is None:
        return RuleOutcome("human floor", f"{name}: {shown(model)}", "mean F1 of the readers", Outcome.UNKNOWN)
    floor = human["value"] - margin
    below = Outcome.FAIL if model["high"] < floor else Outcome.UNKNOWN
    return RuleOutcome(
        "human floor",
        f"{name}: mean F1 {shown(model)}",
        f"lower limit above {floor:.3f} (readers {human['value']:.3f})",
        Outcome.PASS if model["low"] > floor else below,
        numbers=_numbers(model, floor),
    )


def _rule_from_json(recorded: Mapping[str, Any]) -> RuleOutcome:
    return RuleOutcome(
        recorded["name"],
        recorded["observed"],
        recorded["bound"],
        Outcome(recorded["outcome"]),
        tuple(map(_rule_from_json, recorded.get("parts", ()))),
        dict(recorded.get("numbers", {})),
    )
