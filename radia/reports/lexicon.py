"""A language's words for report labels: read from its file, compiled once, matched word by word.

The files lexicon/<language>.yaml are the rules; their head comment says how phrases are written. Here is only what
finds them fast: a tree of words, in which a token is looked up as itself, as an inflection, by its stem, or, where it
is in no phrase, as a slip of the pen of one that is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from radia.findings import FINDINGS
from radia.reports.text import Word, fold

LANGUAGES = ("fr", "en")
OTHER = "other abnormality"
"""What is no observation of the 14 and still speaks against No Finding."""
NORMAL = "nothing abnormal"
"""A statement that something is as it should be."""
NOT_A_FINDING = "not a finding"
NO_ABNORMALITY = "no abnormality"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_GAP = "~"
_BARRIERS = frozenset(
    (
        *(
            "et",
            "ou",
            "ni",
            "mais",
            "sans",
            "pas",
            "avec",
            "hormis",
            "sauf",
            "excepte",
            "outre",
            "cependant",
            "toutefois",
        ),
        *("and", "or", "nor", "but", "no", "not", "without", "with", "except", "however", "although"),
    )
)
"""Words that no gap within a phrase reaches over."""
_ENDINGS = {"fr": ("s", "e", "es", "x"), "en": ("s", "es")}
_SHORTEST_INFLECTED, _SHORTEST_SLIP = 4, 7
_MEMORY = 200_000
"""Words remembered before the memory is emptied: names and numbers never repeat and must not pile up."""
LARGE, SMALL = "@large", "@small"
"""Stand in a phrase for a number that is a cardiothoracic ratio: above a half (0,55; 55), and up to a half."""
_RANKS = ("heading", "aside", "cue", "predicate", "subject", "finding")
_RULE_FILES = (".py", ".yaml")
_HALF, _SMALLEST_RATIO, _LARGEST_RATIO = 0.5, 0.25, 0.95


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a phrase says.

    kind: 'finding', 'subject', 'predicate' or 'cue'. name: the finding (or OTHER, NORMAL), the state or the cue.
    value: what a phrase says of its finding by itself; None where the words around it decide. also: further findings
    that the same phrase names (hydropneumothorax). sign: whether it is what a finding looks like and not its name.
    """

    kind: str
    name: str
    value: float | None = None
    also: tuple[str, ...] = ()
    sign: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A phrase in a sentence: token positions [start, end)."""

    meaning: Meaning
    start: int
    end: int


@dataclass(slots=True)
class _Node:
    following: dict[str, _Node] = field(default_factory=dict)
    gap: int = 0
    after_gap: _Node | None = None
    meaning: Meaning | None = None


@dataclass(frozen=True)
class State:
    """A part whose normality is reported: its findings, and the value that each predicate gives them."""

    findings: tuple[str, ...]
    values: Mapping[str, float]


class Lexicon:
    """One language, compiled."""

    def __init__(self, language: str, source: Mapping[str, Any]) -> None:
        self.language = language
        self.common_words = frozenset(fold(word) for word in str(source["common words"]).split())
        self.silent = frozenset(str(source["silent words"]).split())
        self.links = frozenset(str(source["list links"]).split())
        self.abbreviations = frozenset(str(source["abbreviations"]).split())
        self._same: dict[str, str] = {
            word: str(kept) for kept, words in source["same word"].items() for word in str(words).split()
        }
        self.states = {
            name: State(tuple(part["findings"]), {str(p): float(v) for p, v in part["values"].items()})
            for name, part in source["states"].items()
        }
        self._root = _Node()
        for phrase, meaning in _phrases(source):
            self._add(phrase, meaning)
        self.headings = _Node()
        for section, phrases in source["sections"].items():
            for phrase in _expanded(phrases):
                self._add(phrase, Meaning("heading", section), self.headings)
        self.asides = _Node()
        for reason, phrases in source["asides"].items():
            for phrase in _expanded(phrases):
                self._add(phrase, Meaning("aside", reason), self.asides)
        reporting = str(source["verbs that report"]).split()
        self.reporting_verbs = _Node()
        for word in reporting:
            self._add(word, Meaning("aside", "reports"), self.reporting_verbs)
        self._literals, self._stems = _keys([self._root, self.headings, self.asides, self.reporting_verbs])
        self._stems_by_start: dict[str, list[str]] = {}
        for stem in self._stems:
            self._stems_by_start.setdefault(stem[:3], []).append(stem)
        self._slips = _neighbours({*self._literals, *self._stems})
        self._memory: dict[str, tuple[str, ...]] = {}

    def _add(self, phrase: str, meaning: Meaning, root: _Node | None = None) -> None:
        node = root or self._root
        for key in re.split(r"[\s'-]+", phrase.strip()):
            if key.startswith(_GAP):
                node.after_gap = node.after_gap or _Node()
                node.gap = max(node.gap, int(key[1:] or 3))
                node = node.after_gap
            elif (same := self._same.get(key, key)) not in self.silent:
                node = node.following.setdefault(same, _Node())
        known = node.meaning
        if known is None or known.name == NOT_A_FINDING:
            node.meaning = meaning
        elif known.kind == meaning.kind == "finding" and OTHER not in (known.name, meaning.name):
            names = dict.fromkeys((known.name, *known.also, meaning.name))
            node.meaning = Meaning("finding", known.name, known.value, tuple(names)[1:])

    def keys(self, word: str) -> tuple[str, ...]:
        """The words of the tree that a token stands for; none where it is unknown."""
        known = self._memory.get(word)
        if known is None:
            if len(self._memory) > _MEMORY:
                self._memory.clear()
            known = self._memory[word] = self._looked_up(word)
        return known

    def _looked_up(self, word: str) -> tuple[str, ...]:
        word = self._same.get(word, word)
        keys = {word} & self._literals
        if word[:1].isdigit():
            keys |= _ratio(word)
        for ending in _ENDINGS[self.language]:
            base = word.removesuffix(ending)
            if base != word and len(base) >= _SHORTEST_INFLECTED and base in self._literals:
                keys.add(base)
        for length in (1, 2, 3):
            for stem in self._stems_by_start.get(word[:length], ()):
                if word.startswith(stem):
                    keys.add(f"{stem}*")
        if not keys and len(word) >= _SHORTEST_SLIP and word.isalpha() and word not in self.common_words:
            elided = word[1:] if self.language == "fr" and word[0] in "dl" else ""
            keys = set(self.keys(elided)) or self._meant(word)
        return tuple(sorted(keys, key=_most_specific_first))

    def _meant(self, word: str) -> set[str]:
        """The words that are one slip of the pen (a letter too many, too few, wrong, or two swapped) from this one."""
        meant: set[str] = set()
        for form in {word, *(word.removesuffix(ending) for ending in _ENDINGS[self.language])}:
            for variant in _one_shorter(form):
                for candidate in self._slips.get(variant, ()):
                    if candidate in self._literals and candidate[0] == form[0] and _one_slip(candidate, form):
                        meant.add(candidate)
        for length in range(_SHORTEST_SLIP - 1, len(word) + 1):
            start = word[:length]
            for variant in _one_shorter(start):
                for candidate in self._slips.get(variant, ()):
                    if candidate in self._stems and candidate[0] == start[0] and _one_slip(candidate, start):
                        meant.add(f"{candidate}*")
        return meant

    def kept(self, tokens: Sequence[Word]) -> list[Word]:
        """The tokens without the words that carry nothing (articles)."""
        return [token for token in tokens if token.text not in self.silent]

    def phrases(self, tokens: Sequence[Word]) -> list[Found]:
        """All phrases of a sentence, leftmost and longest first, none overlapping. tokens: as `kept` gives them."""
        keys = [self.keys(token.text) for token in tokens]
        found: list[Found] = []
        first = self._root.following.keys()
        place = 0
        while place < len(keys):
            if first.isdisjoint(keys[place]):
                place += 1
                continue
            end, meaning = _longest(self._root, keys, place, tokens)
            if meaning is None:
                place += 1
                continue
            if meaning.name == NO_ABNORMALITY:
                named_end, named = _longest(self._root, keys, end - 1, tokens)
                if named is not None and named.kind == "finding" and named_end > end:
                    # "pas de lésion alvéolaire" denies that finding, and not every lesion
                    meaning, end = Meaning("cue", "negation ahead"), end - 1
            found.append(Found(meaning, place, end))
            place = end
        return found

    def reports(self, tokens: Sequence[Word]) -> bool:
        """Whether a sentence has a verb (or a "normal") that states what is seen."""
        return any(key in self.reporting_verbs.following for token in tokens for key in self.keys(token.text))

    def starts(self, tokens: Sequence[Word], place: int, *, root: _Node) -> Found | None:
        """The phrase of `root` (headings or asides) that begins at this token."""
        if root.following.keys().isdisjoint(self.keys(tokens[place].text)):
            return None
        there = [at for at in range(place, min(place + 10, len(tokens))) if tokens[at].text not in self.silent]
        spoken = [tokens[at] for at in there]
        end, meaning = _longest(root, [self.keys(token.text) for token in spoken], 0, spoken)
        return Found(meaning, place, there[end - 1] + 1) if meaning else None


def _longest(
    node: _Node, keys: Sequence[tuple[str, ...]], place: int, tokens: Sequence[Word]
) -> tuple[int, Meaning | None]:
    best_end, best = place, node.meaning
    if place < len(keys):
        for key in keys[place]:
            following = node.following.get(key)
            if following is not None:
                end, meaning = _longest(following, keys, place + 1, tokens)
                if meaning is not None and _better(end, meaning, best_end, best):
                    best_end, best = end, meaning
        if tokens[place].text == "(" and node.following:
            end, meaning = _longest(node, keys, place + 1, tokens)
            if meaning is not None and end > place + 1 and _better(end, meaning, best_end, best):
                best_end, best = end, meaning
    behind = node.after_gap
    if behind is not None:
        for at in range(place, min(place + node.gap + 1, len(keys))):
            if at > place and not _in_gap(tokens[at - 1].text):
                break
            if behind.after_gap is None and behind.following.keys().isdisjoint(keys[at]):
                continue
            end, meaning = _longest(behind, keys, at, tokens)
            if meaning is not None and _better(end, meaning, best_end, best):
                best_end, best = end, meaning
    return best_end, best


def _in_gap(word: str) -> bool:
    return word[0].isalnum() and word not in _BARRIERS


def _better(end: int, meaning: Meaning, best_end: int, best: Meaning | None) -> bool:
    return best is None or end > best_end or (end == best_end and _rank(meaning) > _rank(best))


def _rank(meaning: Meaning) -> int:
    """Which of two phrases of the same length counts: the more definite one."""
    return -1 if meaning.name == NOT_A_FINDING else _RANKS.index(meaning.kind)


def _phrases(source: Mapping[str, Any]) -> Iterator[tuple[str, Meaning]]:
    """Phrases and their meanings; of two meanings of the same words the earlier counts."""
    for name, phrases in source["predicates"].items():
        yield from ((p, Meaning("predicate", name)) for p in _expanded(phrases))
    for name, part in source["findings"].items():
        for heading, value in (("terms", None), ("present", 1.0), ("absent", 0.0), ("uncertain", -1.0)):
            yield from ((p, Meaning("finding", name, value)) for p in _expanded(part.get(heading, ())))
        yield from ((p, Meaning("finding", name, sign=True)) for p in _expanded(part.get("signs", ())))
        yield from ((p, Meaning("cue", NOT_A_FINDING)) for p in _expanded(part.get("not", ())))
    for name, part in source["states"].items():
        yield from ((p, Meaning("subject", name)) for p in _expanded(part["subject"]))
    for name, phrases in source["cues"].items():
        yield from ((p, Meaning("cue", name)) for p in _expanded(phrases))


def _expanded(phrases: Iterable[str]) -> Iterator[str]:
    """Each phrase with its (choices|of words) and [optional words] written out, folded."""
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise TypeError(f"not a phrase: {phrase!r}; YAML reads no, on, off, yes as values: quote them")
        yield from _choices(fold(phrase).replace("[", "(|").replace("]", ")"))


def _choices(phrase: str) -> Iterator[str]:
    choice = re.search(r"\(([^()]*)\)", phrase)
    if choice is None:
        yield re.sub(r"(\s+~\d*)+$", "", phrase.strip())
        return
    for word in choice.group(1).split("|"):
        yield from _choices(f"{phrase[: choice.start()]}{word}{phrase[choice.end() :]}")


def _most_specific_first(key: str) -> tuple[int, bool, str]:
    return -len(key.removesuffix("*")), key.endswith("*"), key


def _ratio(number: str) -> set[str]:
    """Which of LARGE and SMALL a number is, if it can be a cardiothoracic ratio as a fraction or in percent."""
    try:
        value = float(number.replace(",", "."))
    except ValueError:
        return set()
    value = value / 100 if value > 1 else value
    if not _SMALLEST_RATIO <= value <= _LARGEST_RATIO:
        return set()
    return {LARGE if value > _HALF else SMALL}


def _keys(roots: Iterable[_Node]) -> tuple[frozenset[str], frozenset[str]]:
    """The whole words and the stems (without their star) of some trees."""
    literals: set[str] = set()
    stems: set[str] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        for key, following in node.following.items():
            if key.endswith("*"):
                stems.add(key[:-1])
            else:
                literals.add(key)
            waiting.append(following)
        if node.after_gap is not None:
            waiting.append(node.after_gap)
    return frozenset(literals), frozenset(stems)


def _neighbours(known: Iterable[str]) -> dict[str, list[str]]:
    """Words by what is left of them when one letter is taken out."""
    neighbours: dict[str, list[str]] = {}
    for word in known:
        if len(word) >= _SHORTEST_SLIP - 1:
            for variant in _one_shorter(word):
                neighbours.setdefault(variant, []).append(word)
    return neighbours


def _one_shorter(word: str) -> set[str]:
    return {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter was added, left out, replaced, or swapped with its neighbour."""
    if a == b:
        return True
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest_a, rest_b = a[start:], b[start:]
    if len(a) == len(b):
        return rest_a[1:] == rest_b[1:] or (rest_a[:2] == rest_b[:2][::-1] and rest_a[2:] == rest_b[2:])
    return rest_a[1:] == rest_b if len(a) > len(b) else rest_a == rest_b[1:]


def source_of(name: str) -> Mapping[str, Any]:
    """A file of the lexicon as it is written."""
    text = (resources.files("radia.reports") / "lexicon" / f"{name}.yaml").read_text(encoding="utf-8")
    source: Mapping[str, Any] = yaml.load(text, Loader=_LOADER)  # noqa: S506 the safe loader, in C where there is one
    return source


@lru_cache(maxsize=1)
def rules_digest() -> str:
    """SHA-256 of the rules and word lists: what was measured with other ones does not hold for these."""
    package = resources.files("radia.reports")
    files = [file for folder in (package, package / "lexicon") for file in folder.iterdir() if file.is_file()]
    rules = sorted((file.name, file.read_text(encoding="utf-8")) for file in files if file.name.endswith(_RULE_FILES))
    return hashlib.sha256(json.dumps(rules).encode()).hexdigest()


@lru_cache(maxsize=len(LANGUAGES))
def lexicon(language: str) -> Lexicon:
    """The compiled lexicon of a language."""
    source = source_of(language)
    unknown = set(source["findings"]) - {*FINDINGS, OTHER}
    if unknown:
        raise ValueError(f"lexicon {language}: no such observation: {sorted(unknown)}")
    return Lexicon(language, source)


@lru_cache(maxsize=1)
def foreign_words() -> frozenset[str]:
    """Common words of languages that are not read here, and of none that is."""
    known = lexicon("fr").common_words | lexicon("en").common_words
    return frozenset(fold(word) for words in source_of("foreign").values() for word in str(words).split()) - known
