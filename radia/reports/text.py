"""Report text to sentences of folded words that know where they stood. No medicine here.

Folding takes away what must not change a label: case, accents, ligatures, hyphens, apostrophes and the width of spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest

SENTENCE_END = frozenset({".", ";", "!", "\n", "\n\n", "•"})
_TOKEN = re.compile(
    r"\(-\)|\+ ?/ ?-|±|(?<!=)=(?=\s*(?:0(?![.,]\d)|non|negatif|aucun|absent|none|no)\b)|"
    r"#(?=\s?[a-z])|(?<![a-z])[wsrch]/[opw](?![a-z])|[a-z0-9]+(?:[.,][0-9]+)*\+?|"
    r"\n(?:[ \t\r\f\v]*\n)*|[.,;:!?()/•<>]|(?<![^\s(,;:.])ø(?=\s)|(?<=\s)[-*](?=\s)"
)
_SPOKEN = {"(-)": "negatif", "±": "possible", "=": ":"}
"""Marks that stand for a word, in every language."""
_BRACKETED = re.compile(r"((?:^|[\n.;:?!])\s*\[[a-z][a-z ,'/-]{2,40})\]")
"""A heading in square brackets: "[Indication]"."""
_GOES_ON_AFTER_QUESTION = frozenset(
    (*SENTENCE_END, *",)?/:", *("ou", "et", "de", "d", "du", "soit", "vs", "versus", "or", "and", "of"))
)
"""What goes on with the sentence behind a question mark."""
_PLAIN = {
    ord(c): d
    for c, d in {"’": "'", "‘": "'", "ʼ": "'", "`": "'", "–": "-", "—": "-", "‑": "-", "·": "•", "\xa0": " "}.items()
} | {ord("\r"): " ", ord("\u2028"): "\n"}
_LONGER = str.maketrans({"œ": "oe", "Œ": "oe", "æ": "ae", "Æ": "ae", "ß": "ss", "ﬁ": "fi", "ﬂ": "fl", "…": "..."})
_SURE_WRAP = 40
"""Characters below which a line is never taken for one that was wrapped for width."""
_LIKELY_WRAP = 60
"""The same where the next line begins with a capital, as few lines within a sentence do."""
_GOES_ON = frozenset(
    (
        *("et", "ou", "ni", "de", "du", "des", "au", "aux", "avec", "sans", "dans", "sur"),
        *("and", "or", "nor", "of", "with", "without", "in", "on", "at", "to"),
    )
)
"""Words that go on with the sentence of the line above, however short that is."""


def _folding_table() -> dict[int, str]:
    table = dict(_PLAIN)
    for code in range(0x41, 0x250):
        base = unicodedata.normalize("NFD", chr(code))[0].lower()
        if len(base) == 1:
            table.setdefault(code, base)
    return table


_FOLD = _folding_table()
_NEEDS_CARE = re.compile("[^\x00-\u024f\u2010-\u2030]|[œŒæÆß…]")


@dataclass(frozen=True, slots=True)
class Word:
    """A folded word or punctuation mark, and its span in the report as it was given."""

    text: str
    start: int
    end: int


def fold(text: str) -> str:
    """The text without case, accents and ligatures."""
    return _fold_with_offsets(text)[0]


def _fold_with_offsets(text: str) -> tuple[str, list[int] | None]:
    """The folded text and, where its length changed, the place in the original of each of its characters."""
    if not _NEEDS_CARE.search(text):
        return text.translate(_FOLD), None
    pieces: list[str] = []
    offsets: list[int] = []
    for place, character in enumerate(text):
        if unicodedata.combining(character):
            continue
        longer = character.translate(_LONGER)
        if len(longer) == 1 and ord(longer) > 0x24F:
            longer = "".join(c for c in unicodedata.normalize("NFKD", longer) if not unicodedata.combining(c))
        piece = longer.translate(_FOLD)
        pieces.append(piece)
        offsets.extend([place] * len(piece))
    offsets.append(len(text))
    return "".join(pieces), offsets


def words(text: str) -> list[Word]:
    """The words and punctuation marks of a report, line ends among them. Decimals are one word."""
    folded, offsets = _fold_with_offsets(text)
    if "[" in folded:
        folded = _BRACKETED.sub(r"\1:", folded)
    breaks = _line_breaks(text)
    found: list[Word] = []
    for match in _TOKEN.finditer(folded):
        mark, start, end = match.group(), match.start(), match.end()
        if offsets is not None:
            start, end = offsets[start], offsets[end - 1] + 1
        if mark[0] == "\n":
            if mark.count("\n") > 1:
                mark = "\n\n"
            elif start in breaks:
                mark = "\n"
            else:
                continue
        elif mark in "-*":
            mark = "•"
        elif mark in _SPOKEN or (mark[0] == "+" and len(mark) > 1):
            mark = _SPOKEN.get(mark, "possible")
        found.append(Word(mark, start, end))
    return found


def _line_breaks(text: str) -> set[int]:
    """Where a single line end ends a sentence, and does not merely wrap a long line.

    In text of both cases the next line's first letter tells; in text of one case the width of the lines does.
    """
    if "\n" not in text:
        return set()
    lines = text.split("\n")
    cased = not (text.isupper() or text.islower())
    width = max(_SURE_WRAP, *(len(line.rstrip()) for line in lines))
    breaks: set[int] = set()
    place = -1
    for current, after in pairwise(lines):
        place += len(current) + 1
        line, following = current.rstrip(), after.lstrip()
        first = following.split(" ", 1)[0] if following else ""
        fits = len(line) + 1 + len(first) <= width
        short = fits and len(line) < _SURE_WRAP and line[-1:] != "," and fold(first) not in _GOES_ON
        if cased and first[:1].islower() and not short:
            continue
        ends = line[-1:] in ".;:!?" and (not cased or first[:1].isupper())
        surely = _LIKELY_WRAP if cased and first[:1].isupper() else _SURE_WRAP
        if fits or ends or len(line) < surely:
            breaks.add(place)
    return breaks


def sentences(tokens: list[Word], abbreviations: frozenset[str]) -> Iterator[tuple[list[Word], str]]:
    """Sentences and the mark that ended each. A full stop after an abbreviation or a single letter ends none.

    A question mark belongs to the sentence that it ends, unless that goes on behind it ("pneumonie ? ou").
    """
    sentence: list[Word] = []
    for token, following in zip_longest(tokens, tokens[1:]):
        if token.text not in SENTENCE_END:
            sentence.append(token)
            if token.text == "?" and following is not None and following.text not in _GOES_ON_AFTER_QUESTION:
                yield sentence, "?"
                sentence = []
            continue
        if token.text == "." and sentence and _abbreviates(sentence[-1].text, abbreviations):
            continue
        yield sentence, token.text
        sentence = []
    yield sentence, ""


def _abbreviates(word: str, abbreviations: frozenset[str]) -> bool:
    return word in abbreviations or (len(word) == 1 and word.isalpha())
