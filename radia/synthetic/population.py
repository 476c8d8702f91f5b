"""Who comes to be examined, and with what: prevalence, appearance and the site's look (populations.yaml)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from radia.findings import FINDINGS, position
from radia.synthetic.anatomy import LEFT, RIGHT
from radia.synthetic.detector import Look
from radia.synthetic.pathology import Sign


@dataclass(frozen=True)
class Population:
    """The patients of one site, or of the public set."""

    name: str
    mix: tuple[tuple[dict[str, float], float], ...]  # (chance of each finding, weight of the clinical picture)
    variants: dict[str, dict[str, float]]
    bedside: float
    age: tuple[float, float]  # mean and spread, years
    severity: tuple[float, float]  # Beta(a, b)
    look: Look


@cache
def populations() -> dict[str, Population]:
    """Every population of populations.yaml by name."""
    table = yaml.safe_load(files(__package__).joinpath("populations.yaml").read_text(encoding="utf-8"))
    return {name: _population(name, row, table["patterns"]) for name, row in table["populations"].items()}


def sample_age(rng: np.random.Generator, population: Population) -> int:
    """An adult's age in years."""
    return int(np.clip(rng.normal(*population.age), 18, 96))


def sample_signs(rng: np.random.Generator, population: Population) -> tuple[Sign, ...]:
    """What one study shows: the findings of one clinical picture."""
    weights = np.array([weight for _, weight in population.mix])
    chances = population.mix[int(rng.choice(len(weights), p=weights / weights.sum()))][0]
    draws = rng.random(len(FINDINGS))
    names = [finding for finding in FINDINGS if draws[position(finding)] < chances.get(finding, 0.0)]
    return tuple(_sign(rng, finding, population) for finding in names)


def progress_signs(rng: np.random.Generator, signs: tuple[Sign, ...]) -> tuple[Sign, ...]:
    """The same findings at a later visit, a little better or worse."""
    return tuple(replace(sign, severity=float(np.clip(sign.severity + rng.normal(0, 0.12), 0, 1))) for sign in signs)


def truth_of(signs: tuple[Sign, ...]) -> NDArray[np.float64]:
    """The 14 true labels: 1 present, 0 absent. No Finding where nothing but devices is drawn."""
    truth = np.zeros(len(FINDINGS))
    for sign in signs:
        truth[position(sign.finding)] = 1.0
    others = [position(name) for name in FINDINGS if name not in ("No Finding", "Support Devices")]
    truth[position("No Finding")] = float(not truth[others].any())
    return truth


def _sign(rng: np.random.Generator, finding: str, population: Population) -> Sign:
    weights = population.variants.get(finding)
    variant = (
        ""
        if weights is None
        else str(rng.choice(list(weights), p=np.array(list(weights.values())) / sum(weights.values())))
    )
    side = RIGHT if rng.random() < 0.55 else LEFT
    return Sign(finding, side, float(rng.beta(*population.severity)), variant, int(rng.integers(2**31)))


def _population(name: str, row: dict[str, Any], patterns: dict[str, dict[str, float]]) -> Population:
    look: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in row["look"].items()
    }
    return Population(
        name=name,
        mix=tuple((patterns[pattern], float(weight)) for pattern, weight in row["mix"].items()),
        variants=row["variants"],
        bedside=row["bedside"],
        age=tuple(row["age"]),
        severity=tuple(row["severity"]),
        look=Look(**look),
    )
