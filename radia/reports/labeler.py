"""A report's text to its 14 labels, each with the places and the cues that gave it.

Evidence holds offsets and names of cues, never words of the report: it may leave the landing zone, the text may not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from radia.findings import ABSENT, FINDINGS, PRESENT, UNCERTAIN
from radia.reports.lexicon import NORMAL, OTHER
from radia.reports.scope import DEVICES, Mention, mentions
from radia.reports.sections import Sentence, sentences_to_read

NO_FINDING = "No Finding"
EMPTY, FOREIGN, NOTHING_READ = "no text", "language not read", "nothing about the chest recognised"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One place that speaks of a finding.

    start, end: character offsets in the report as given. section: the heading it stands under ('none' where there is
    none). cues: what settled the value, by name; empty for a plain statement.
    """

    finding: str
    value: float
    start: int
    end: int
    section: str
    language: str
    cues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportLabels:
    """The labels of one report.

    values: each of the 14 findings to 1.0, 0.0, -1.0 or None (not mentioned). reason: why nothing was read, or None.
    """

    values: Mapping[str, float | None]
    evidence: tuple[Evidence, ...]
    reason: str | None = None


def label_report(text: str) -> ReportLabels:
    """Labels a report in French or English. One that is empty, foreign or says nothing known gets no label at all."""
    if not text or not text.strip():
        return _abstained(EMPTY)
    sentences, foreign = sentences_to_read(text)
    evidence = tuple(piece for sentence in sentences for piece in _evidence(sentence))
    if not evidence:
        return _abstained(FOREIGN if foreign else NOTHING_READ)
    values = _values(evidence)
    told = tuple(piece for piece in evidence if piece.finding in FINDINGS or piece.finding in (OTHER, NORMAL))
    return ReportLabels(values, told)


def _abstained(reason: str) -> ReportLabels:
    return ReportLabels(dict.fromkeys(FINDINGS), (), reason)


def _evidence(sentence: Sentence) -> Iterable[Evidence]:
    for mention in mentions(sentence.words, sentence.lexicon):
        start, end = sentence.words[mention.start].start, sentence.words[mention.end - 1].end
        for finding in mention.findings:
            yield _piece(mention, finding, start, end, sentence)


def _piece(mention: Mention, finding: str, start: int, end: int, sentence: Sentence) -> Evidence:
    language = sentence.lexicon.language
    return Evidence(finding, mention.value, start, end, sentence.section, language, tuple(mention.cues))


def _values(evidence: Iterable[Evidence]) -> dict[str, float | None]:
    """1 wins over -1 over 0; No Finding is 1 where nothing else speaks against it, and never 0."""
    said: dict[str, set[float]] = {}
    for piece in evidence:
        said.setdefault(piece.finding, set()).add(piece.value)
    values: dict[str, float | None] = {finding: _strongest(said.get(finding, set())) for finding in FINDINGS}
    abnormal = {finding for finding, found in said.items() if found & {PRESENT, UNCERTAIN}}
    values[NO_FINDING] = None if abnormal - {DEVICES, NO_FINDING, NORMAL} else PRESENT
    return values


def _strongest(said: set[float]) -> float | None:
    return next((value for value in (PRESENT, UNCERTAIN, ABSENT) if value in said), None)
