"""Which sentences of a report speak of findings: its headings, and in their absence how a sentence begins.

A heading is one of the lexicon's, followed by a colon or alone on its line. What stands under indication, history,
technique or comparison is not read; nor is a line that names people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from radia.reports.lexicon import LANGUAGES, Lexicon, foreign_words, lexicon
from radia.reports.text import Word, sentences, words

READ = frozenset({"findings", "impression"})
UNHEADED = "none"
ORGAN = "organ"
"""A heading that names a part ("Coeur :"): findings follow, and the part belongs to the sentence."""
_UNLESS_REPORTING = frozenset({"indication", "technique", "comparison"})
_MARKS = frozenset(",:?/()")
_FOREIGN_SHARE = 2
"""Foreign common words in a sentence, at least, before it is left alone."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence to read: its words (articles left out), the section it stands in and its language."""

    words: Sequence[Word]
    section: str
    lexicon: Lexicon


def sentences_to_read(text: str) -> tuple[list[Sentence], bool]:
    """The sentences of findings and impression, and whether any sentence was in a language that is not read."""
    pieces = list(_pieces(text))
    read = [(tokens, section) for tokens, section in _sectioned(pieces) if section in READ or section == UNHEADED]
    scores = [_language_scores(tokens) for tokens, _ in read]
    main = _main_language(scores)
    kept: list[Sentence] = []
    foreign = 0
    for (tokens, section), score in zip(read, scores, strict=True):
        language = _language(score, main)
        if language is None:
            foreign += 1
            continue
        words_of_language = lexicon(language)
        rest = _without_aside(words_of_language, words_of_language.kept(tokens))
        if rest:
            kept.append(Sentence(rest, section, words_of_language))
    if foreign * 2 > len(read) and sum(s["foreign"] for s in scores) > sum(max(s[n] for n in LANGUAGES) for s in scores):
        return [], True
    return kept, foreign > 0


def _abbreviations() -> frozenset[str]:
    return frozenset().union(*(lexicon(language).abbreviations for language in LANGUAGES))


def _pieces(text: str) -> Iterator[tuple[list[Word], str]]:
    yield from sentences(words(text), _abbreviations())


@dataclass(slots=True)
class _Place:
    """Where the reading stands."""

    section: str = UNHEADED
    has_content: bool = False


def _sectioned(pieces: list[tuple[list[Word], str]]) -> list[tuple[list[Word], str]]:
    """Sentences with their sections."""
    cut = [part for piece in pieces for part in _cut_at_headings(*piece)]
    last_read = max((i for i, (_, heading, _) in enumerate(cut) if heading in READ), default=-1)
    result: list[tuple[list[Word], str]] = []
    place = _Place()
    for number, (tokens, heading, end) in enumerate(cut):
        if heading:
            place = _Place(heading)
        if tokens:
            result.append((tokens, place.section))
            place.has_content = True
        closes = end == "\n\n" or (number > last_read and end in {".", "\n"}) or place.section == "identity"
        if place.has_content and closes and end and place.section not in READ:
            place = _Place()
    return result


def _cut_at_headings(tokens: list[Word], end: str) -> Iterator[tuple[list[Word], str, str]]:
    """(words after the heading, the heading's section or '', the mark at the end)."""
    start = 0
    heading = ""
    place = 0
    while place < len(tokens):
        found = None
        at_start = place == start
        if at_start or any(t.text == ":" for t in tokens[place + 1 : place + 7]):
            found = _heading_at(tokens, place, end, at_start=at_start)
        if found is None:
            place += 1
            continue
        section, after = found
        if section == ORGAN:
            if place > start or heading:
                yield tokens[start:place], heading, ""
            heading, start, place = "findings", place, after
            continue
        if place > start or heading:
            yield tokens[start:place], heading, ""
        heading, start, place = section, after, after
    yield tokens[start:], heading, end


def _heading_at(tokens: list[Word], place: int, end: str, *, at_start: bool) -> tuple[str, int] | None:
    for language in LANGUAGES:
        words_of = lexicon(language)
        found = words_of.starts(tokens, place, root=words_of.headings)
        if found is None:
            continue
        after = found.end
        alone = at_start and after == len(tokens) and end.startswith("\n")
        plain = at_start or found.meaning.name in READ or found.meaning.name == ORGAN or after - place > 1
        if plain and after < len(tokens) and tokens[after].text == ":":
            return found.meaning.name, after + 1
        if alone:
            return found.meaning.name, after
    return None


def _without_aside(words_of: Lexicon, tokens: Sequence[Word]) -> Sequence[Word]:
    """What is left of a sentence that begins as those do that state no finding: nothing, or what follows its colon."""
    aside = words_of.starts(tokens, 0, root=words_of.asides) if tokens else None
    if aside is None or (aside.meaning.name in _UNLESS_REPORTING and words_of.reports(tokens)):
        return tokens
    colon = next((i for i, token in enumerate(tokens) if token.text == ":"), None)
    return () if colon is None else tokens[colon + 1 :]


def _language_scores(tokens: Sequence[Word]) -> dict[str, int]:
    lexicons = {language: lexicon(language) for language in LANGUAGES}
    scores = {"foreign": 0, **dict.fromkeys(LANGUAGES, 0)}
    foreign = foreign_words()
    for token in tokens:
        word = token.text
        if word in _MARKS or word[0].isdigit():
            continue
        known = False
        for language, words_of in lexicons.items():
            if word in words_of.common_words:
                scores[language] += 2
                known = True
            elif words_of.keys(word):
                scores[language] += 1
                known = True
        if not known and word in foreign:
            scores["foreign"] += 2
    return scores


def _main_language(scores: Sequence[dict[str, int]]) -> str:
    return max(LANGUAGES, key=lambda language: sum(score[language] for score in scores))


def _language(score: dict[str, int], main: str) -> str | None:
    best = max(LANGUAGES, key=lambda language: (score[language], language == main))
    if score["foreign"] >= 2 * _FOREIGN_SHARE and score["foreign"] >= score[best]:
        return None
    return best
