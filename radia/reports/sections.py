"""Which sentences of a report speak of findings: its headings, and in their absence how a sentence begins.

A heading is one of the lexicon's, followed by a colon or alone on its line. What stands under indication, history,
technique or comparison is not read; nor is a line that names people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from radia.reports.lexicon import LANGUAGES, NORMAL, Lexicon, foreign_words, lexicon
from radia.reports.text import Word, sentences, words

READ = frozenset({"findings", "impression"})
UNHEADED = "none"
ORGAN = "organ"
"""A heading that names a part ("Coeur :"): findings follow, and the part belongs to the sentence."""
_UNLESS_REPORTING = frozenset({"indication", "order", "technique", "comparison"})
_TITLES = frozenset({"dr", "dre", "drs", "mr", "mrs", "ms", "mme", "mlle", "m", "pr", "prof"})
_ENDS_A_STATEMENT = frozenset({".", ",", ";", ":", ")", "•", "/", "\n", "\n\n", "et"})
_LONGEST_INITIALS = 2
_LONGEST_HEADING = 4
"""Words between the known words of a heading and its colon."""
_LONGEST_NAME = 2
"""Words after a title that are taken for a name."""


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
    counts = [_counts(tokens) for tokens, _ in read]
    total = sum(counts, Counter[str]())
    if _is_foreign(total) or (
        not _common(total) and total["unknown"] >= max(2, 2 * max(total[n] for n in LANGUAGES) + 1)
    ):
        return [], True
    main = max(LANGUAGES, key=lambda name: _score(total, name))
    kept: list[Sentence] = []
    foreign = False
    for (tokens, section), count in zip(read, counts, strict=True):
        if _is_foreign(count):
            foreign = True
            continue
        words_of = lexicon(max(LANGUAGES, key=lambda name: (_score(count, name), name == main)))
        rest = _without_aside(words_of, words_of.kept(tokens), kept)
        if rest:
            kept.append(Sentence(rest, section, words_of))
    return kept, foreign


@lru_cache(maxsize=1)
def _abbreviations() -> frozenset[str]:
    return frozenset().union(*(lexicon(language).abbreviations for language in LANGUAGES))


def _pieces(text: str) -> Iterator[tuple[list[Word], str]]:
    yield from sentences(_with_normal_written(_without_names(words(text))), _abbreviations())


def _with_normal_written(tokens: list[Word]) -> list[Word]:
    """The words with "N" written out where it stands for "normal": after a known word and before a mark."""
    return [
        Word("normal", token.start, token.end) if token.text == "n" and _stands_for_normal(tokens, at) else token
        for at, token in enumerate(tokens)
    ]


def _stands_for_normal(tokens: list[Word], at: int) -> bool:
    before = tokens[at - 1].text if at else ""
    after = tokens[at + 1].text if at + 1 < len(tokens) else "."
    if after not in _ENDS_A_STATEMENT:
        return False
    return before in {":", "="} or (len(before) > _LONGEST_INITIALS and bool(lexicon("fr").keys(before)))


def _without_names(tokens: list[Word]) -> list[Word]:
    """The words without the names that follow a title: a person may be called Masse or Valve."""
    if not any(token.text in _TITLES for token in tokens):
        return tokens
    common = [lexicon(language).common_words for language in LANGUAGES]
    kept: list[Word] = []
    names_left = 0
    for token in tokens:
        if token.text in _TITLES:
            names_left = _LONGEST_NAME
        elif token.text == "." and names_left == _LONGEST_NAME:
            pass
        elif names_left and token.text.isalpha() and not any(token.text in words_of for words_of in common):
            names_left -= 1
            while kept and (
                kept[-1].text in _TITLES or (kept[-1].text == "." and len(kept) > 1 and kept[-2].text in _TITLES)
            ):
                kept.pop()
            continue
        else:
            names_left = 0
        kept.append(token)
    return kept


@dataclass(slots=True)
class _Place:
    """Where the reading stands."""

    section: str = UNHEADED
    has_content: bool = False


def _sectioned(pieces: list[tuple[list[Word], str]]) -> list[tuple[list[Word], str]]:
    """Sentences with their sections."""
    cut = [part for piece in pieces for part in _cut_at_headings(*piece)]
    findings_headed = any(heading == "findings" for _, heading, _ in cut)
    last_read = max((i for i, (_, heading, _) in enumerate(cut) if heading in READ), default=-1)
    last_line = _last_end_before_findings(cut) if last_read < 0 and any(heading for _, heading, _ in cut) else -1
    result: list[tuple[list[Word], str]] = []
    place = _Place()
    for number, (tokens, heading, end) in enumerate(cut):
        if heading:
            place = _Place(heading)
        if tokens:
            result.append((tokens, place.section))
            place.has_content = True
        asks_on = end == "?" and number + 1 < len(cut) and cut[number + 1][2] == "?"
        stops = end in {".", "?"} and not asks_on
        nothing_follows = number > last_read and (end == "\n" or (stops and number > last_line))
        unheaded_follow = end == "\n" and not findings_headed  # "Indication: ... / the findings / Conclusion: ..."
        closes = end == "\n\n" or nothing_follows or unheaded_follow or place.section == "identity"
        if place.has_content and closes and end and place.section not in READ:
            place = _Place()
    return result


def _last_end_before_findings(cut: list[tuple[list[Word], str, str]]) -> int:
    """The last piece that ends a line and has something of the chest on a line after it; -1 where none has."""
    telling = max((i for i, (tokens, _, _) in enumerate(cut) if _tells(tokens)), default=-1)
    return max((i for i, (_, _, end) in enumerate(cut[: max(telling, 0)]) if end.startswith("\n")), default=-1)


def _tells(tokens: Sequence[Word]) -> bool:
    return any(
        found.meaning.kind in {"finding", "subject"} or found.meaning.name == NORMAL
        for language in LANGUAGES
        for found in lexicon(language).phrases(lexicon(language).kept(tokens))
    )


def _cut_at_headings(tokens: list[Word], end: str) -> Iterator[tuple[list[Word], str, str]]:
    """(words after the heading, the heading's section or '', the mark at the end)."""
    start = 0
    heading = ""
    place = 0
    colons = any(token.text == ":" for token in tokens)
    while place < len(tokens):
        found = None
        at_start = place == start
        if not (at_start or colons):
            break
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
        alone = at_start and after == len(tokens) and (end[:1] == "\n" or (end == "•" and found.meaning.name != ORGAN))
        if at_start and not alone and found.meaning.name != ORGAN:
            after = _after_long_heading(words_of, tokens, after)
        plain = at_start or found.meaning.name in READ or found.meaning.name == ORGAN or after - place > 1
        if plain and after < len(tokens) and tokens[after].text == ":":
            return found.meaning.name, after + 1
        if alone:
            return found.meaning.name, after
    return None


def _after_long_heading(words_of: Lexicon, tokens: list[Word], after: int) -> int:
    """The place of the colon where a heading goes on to it ("Résultats de l'imagerie :"), naming no finding."""
    for place in range(after, min(after + _LONGEST_HEADING + 1, len(tokens))):
        if tokens[place].text == ":":
            named = words_of.phrases(words_of.kept(tokens[after:place]))
            return after if any(found.meaning.kind in {"finding", "subject", "predicate"} for found in named) else place
        if not tokens[place].text.isalpha():
            break
    return after


def _without_aside(words_of: Lexicon, tokens: Sequence[Word], before: Sequence[Sentence]) -> Sequence[Word]:
    """What is left of a sentence that begins as those do that state no finding: nothing, or what follows its mark.

    What asks to look for something ("éliminer une pneumonie") is an order ahead of the findings, advice behind them.
    The mark is a colon; after a comparison ("compared with May, ...") it is a comma.
    """
    aside = words_of.starts(tokens, 0, root=words_of.asides) if tokens else None
    if aside is None or (aside.meaning.name in _UNLESS_REPORTING and words_of.reports(tokens)):
        return tokens
    if aside.meaning.name == "order" and any(_tells(sentence.words) for sentence in before):
        return tokens
    mark = "," if aside.meaning.name == "comparison" else ":"
    colon = next((i for i, token in enumerate(tokens) if token.text == mark), None)
    return () if colon is None else tokens[colon + 1 :]


def _counts(tokens: Sequence[Word]) -> Counter[str]:
    """How many words are common in each language, in a phrase of each, common elsewhere, and unknown."""
    return Counter(kind for token in tokens for kind in _kinds(token.text))


@lru_cache(maxsize=50_000)
def _kinds(word: str) -> tuple[str, ...]:
    if not word[0].isalpha():
        return ()
    if word in foreign_words():
        return ("foreign",)
    kinds: list[str] = []
    for language in LANGUAGES:
        words_of = lexicon(language)
        if word in words_of.common_words:
            kinds.append(f"common {language}")
        elif words_of.keys(word):
            kinds.append(language)
    return tuple(kinds) or ("unknown",)


def _common(counts: Counter[str]) -> int:
    return max(counts[f"common {language}"] for language in LANGUAGES)


def _is_foreign(counts: Counter[str]) -> bool:
    return counts["foreign"] > _common(counts)


def _is_unknown(counts: Counter[str]) -> bool:
    """Whether no common word is there and the unknown words are two or more, and twice those of the lexicons."""
    return not _common(counts) and counts["unknown"] > max(1, 2 * max(counts[name] for name in LANGUAGES))


def _score(counts: Counter[str], language: str) -> int:
    return 2 * counts[f"common {language}"] + counts[language]
