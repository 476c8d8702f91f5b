"""Reports in French and English, written from the given labels, with identifiers in the text (sentences.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from radia.findings import ABSENT, FINDINGS, PRESENT, UNCERTAIN, position


@dataclass(frozen=True)
class Letterhead:
    """The identifying lines of a report, already in its language."""

    hospital: str
    patient: str
    insurance: str
    record: str
    date: str
    referrer: str
    reader: str


def write_report(
    given: NDArray[np.float64], head: Letterhead, rng: np.random.Generator, *, language: str, view: str
) -> str:
    """A report that says exactly what `given` holds: [14] of 1 stated, 0 denied, -1 hedged, NaN not mentioned."""
    words = _sentences()[language]
    titles, named = words["headings"], words["findings"]
    label = {
        "fr": ("Patient", "RAMQ", "Dossier", "Examen du", "Demandé par", "Signé"),
        "en": ("Patient", "RAMQ", "MRN", "Date of exam", "Requested by", "Signed"),
    }[language]
    stated = [finding for finding in FINDINGS if given[position(finding)] in (PRESENT, UNCERTAIN) and finding in named]
    denied = [finding for finding in FINDINGS if given[position(finding)] == ABSENT and finding in named]
    body = [_pick(rng, named[finding][int(given[position(finding)])]) for finding in stated]
    body += _denials(denied, words, rng)
    rng.shuffle(body)
    normal = given[position("No Finding")] == PRESENT
    if normal and "Support Devices" not in stated:
        impression = _pick(rng, words["normal"])
    elif stated and rng.random() < 0.6:
        impression = " ".join(_pick(rng, named[finding][int(given[position(finding)])]) for finding in stated[:2])
    else:
        impression = _pick(rng, words["nothing_else"])
    lines = [
        head.hospital,
        f"{label[0]}: {head.patient}, {label[1]} {head.insurance}, {label[2]} {head.record}. {label[3]} {head.date}.",
        _pick(rng, words["title"]),
        f"{titles['indication']}: {_pick(rng, words['indications'])} {label[4]} {head.referrer}.",
        f"{titles['technique']}: {words['views'][view]}",
        f"{titles['comparison']}: {_pick(rng, words['comparisons'])}",
        f"{titles['findings']}: {' '.join(body) or _pick(rng, words['nothing_else'])}",
        f"{titles['impression']}: {impression}",
        f"{label[5]} {head.reader}",
    ]
    return "\n".join(lines)


def _denials(denied: list[str], words: dict[str, Any], rng: np.random.Generator) -> list[str]:
    left, said = list(denied), []
    for pair, sentences in words["joint_absent"].items():
        both = pair.split("+")
        if all(finding in left for finding in both) and rng.random() < 0.6:
            said.append(_pick(rng, sentences))
            left = [finding for finding in left if finding not in both]
    return said + [_pick(rng, words["findings"][finding][0]) for finding in left]


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


@cache
def _sentences() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("sentences.yaml").read_text(encoding="utf-8"))
    return loaded
