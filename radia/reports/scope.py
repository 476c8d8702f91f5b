"""What a sentence says of each finding it names: present, absent or uncertain, by the cues around the name.

A cue ahead of a finding holds from where it stands to the end of its scope, over the items of a list; a cue behind one
reaches back over the items joined to it. The words are the lexicon's; here is only how far they reach. (After NegEx,
Chapman et al. 2001, and ConText, Harkema et al. 2009, with lists and states added.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from radia.findings import ABSENT, PRESENT, UNCERTAIN
from radia.reports.lexicon import NORMAL, OTHER, Found, Lexicon, Meaning
from radia.reports.text import Word

DEVICES = "Support Devices"
_NEAR, _FAR = 2, 5
"""Tokens from a cue to what it stands beside; from a part to an adjective that calls it abnormal."""
_CALM = ("normal", "not ", "free")
_HISTORY: float = float("nan")
"""Stands for a mention that is not of today."""

_AHEAD = {
    "negation ahead": ABSENT,
    "no abnormality": ABSENT,
    "answer": ABSENT,
    "resolution ahead": ABSENT,
    "removal ahead": ABSENT,
    "doubt ahead": UNCERTAIN,
    "differential ahead": UNCERTAIN,
    "history ahead": _HISTORY,
}
_BEHIND = {
    "negation behind": ABSENT,
    "answer": ABSENT,
    "resolution behind": ABSENT,
    "removal behind": ABSENT,
    "doubt behind": UNCERTAIN,
    "correlation behind": UNCERTAIN,
}
_MODIFIERS = frozenset({"modifier", "new"})
_SINGULAR = frozenset({"est", "etait", "a", "peut", "pourrait", "is", "was", "has"})
"""Verbs that speak of one finding and not of both of "A and B"."""
_NORMAL_CUES = frozenset({NORMAL, "no abnormality"})
_NORMAL_PREDICATES = frozenset({"normal", "free"})
_PREDICATE_CUES = dict.fromkeys(_NORMAL_PREDICATES, NORMAL) | {"not enlarged": "neutral"}
"""What a predicate says where it belongs to no part; of a finding that has "not increased" it says nothing."""


@dataclass(slots=True)
class Mention:
    """A finding named in a sentence; token positions [start, end)."""

    findings: tuple[str, ...]
    start: int
    end: int
    value: float = PRESENT
    settled: bool = False
    sign: bool = False
    cues: list[str] = field(default_factory=list)

    def say(self, value: float, cue: str) -> None:
        """Takes a value from a cue."""
        self.value = value
        self.cues.append(cue)


@dataclass(frozen=True, slots=True)
class _Item:
    """A mention or a cue, in the order of the sentence."""

    start: int
    end: int
    cue: str = ""
    mention: Mention | None = None
    of_state: bool = False


def mentions(tokens: Sequence[Word], lexicon: Lexicon) -> list[Mention]:
    """The findings that a sentence names, with their values; those of the past and of relatives left out."""
    items = _with_states(lexicon.phrases(tokens), lexicon, tokens)
    if any(item.cue == "relative" for item in items):
        return []
    normal = [Mention((NORMAL,), item.start, item.end, PRESENT, True) for item in items if item.cue in _NORMAL_CUES]
    if not any(item.mention for item in items):
        return normal
    _apply_ahead(items, tokens, lexicon)
    _apply_behind(items, tokens)
    _apply_near(items)
    _apply_between(items)
    _doubt_signs([item.mention for item in items if item.mention])
    told = [item.mention for item in items if item.mention and item.mention.value == item.mention.value]
    return told + normal


# --- states: "the heart is enlarged" --------------------------------------------------------------------------------


def _with_states(found: Sequence[Found], lexicon: Lexicon, tokens: Sequence[Word]) -> list[_Item]:
    items: list[_Item] = []
    for index, phrase in enumerate(found):
        meaning = phrase.meaning
        if meaning.kind == "finding":
            value = PRESENT if meaning.value is None else meaning.value
            settled = meaning.value is not None
            names = (meaning.name, *meaning.also)
            mention = Mention(names, phrase.start, phrase.end, value, settled, meaning.sign)
            items.append(_Item(phrase.start, phrase.end, mention=mention))
        elif meaning.kind == "subject":
            items.extend(_state_items(found, index, lexicon, tokens))
        elif meaning.kind == "predicate":
            items.append(_Item(phrase.start, phrase.end, cue=_PREDICATE_CUES.get(meaning.name, "modifier")))
        elif meaning.kind == "cue":
            items.append(_Item(phrase.start, phrase.end, cue=meaning.name))
    return sorted(items, key=lambda item: item.start)


def _state_items(found: Sequence[Found], index: int, lexicon: Lexicon, tokens: Sequence[Word]) -> list[_Item]:
    """What is said of a part (heart, mediastinum, angles), as a mention; nothing where no predicate is found."""
    subject = found[index]
    state = lexicon.states[subject.meaning.name]
    predicate = _predicate(found, index, state.values, tokens)
    if predicate is None:
        return []
    value = state.values[predicate.meaning.name]
    mention = Mention(state.findings, subject.start, subject.end, value, value != PRESENT)
    mention.cues.append(predicate.meaning.name)
    # an adjective such as "enlarged" can be denied or doubted where it stands; the mention is judged there
    start = max(predicate.start, subject.start)
    return [_Item(start, max(predicate.end, subject.end), "", mention, True)]


def _predicate(found: Sequence[Found], index: int, values: Iterable[str], tokens: Sequence[Word]) -> Found | None:
    subject = found[index]
    before, between = _ahead_of_doubt(found, index)
    behind = next(_following_predicates(found, index, values), None)
    if before and before.meaning.name == "no abnormality":
        before = _as_normal(before)
    ahead = before if before and before.meaning.kind == "predicate" and before.meaning.name in values else None
    if ahead and subject.start - ahead.end - between > 1:
        ahead = None
    if behind and ahead:
        crosses = any(token.text in {",", ":"} for token in tokens[subject.end : behind.start])
        taken = index >= 2 and found[index - 2].meaning.kind == "subject" and not crosses
        return behind if taken or behind.start - subject.end <= 1 else ahead
    if behind or ahead:
        return behind or ahead
    return _shared_predicate(found, index, values)


def _as_normal(found: Found) -> Found:
    """A cue that says "nothing abnormal", as the predicate of a part that it stands beside."""
    return Found(Meaning("predicate", "normal"), found.start, found.end)


def _ahead_of_doubt(found: Sequence[Found], index: int) -> tuple[Found | None, int]:
    """The phrase ahead of a part, doubts left out ("elargissement possible du mediastin"), and the words of these."""
    between = 0
    for phrase in reversed(found[:index]):
        if phrase.meaning.name != "doubt near":
            return phrase, between
        between += phrase.end - phrase.start
    return None, between


def _following_predicates(found: Sequence[Found], index: int, values: Iterable[str]) -> Iterator[Found]:
    joined = False
    for phrase in found[index + 1 :]:
        kind, name = phrase.meaning.kind, phrase.meaning.name
        if kind == "predicate":
            far = phrase.start - found[index].end > _FAR and not name.startswith(_CALM)
            if name in values and not far:
                yield phrase
            return
        if kind == "finding":
            return
        if kind == "cue" and name == NORMAL and joined and "normal" in values:
            yield _as_normal(phrase)  # "coeur et poumons normaux"
            return
        if kind == "cue" and name in {"end of scope", "onset"}:
            return
        joined = name == "and"


def _shared_predicate(found: Sequence[Found], index: int, values: Iterable[str]) -> Found | None:
    """ "Normal heart size and mediastinal contours": the adjective ahead of the first of several parts."""
    for place in range(index - 1, -1, -1):
        meaning = found[place].meaning
        if meaning.kind == "predicate":
            return found[place] if meaning.name in values else None
        if meaning.kind != "subject" and meaning.name not in {"and", "comma", "or"}:
            return None
    return None


# --- cues ahead -----------------------------------------------------------------------------------------------------


def _apply_ahead(items: Sequence[_Item], tokens: Sequence[Word], lexicon: Lexicon) -> None:
    value: float | None = None
    cue = ""
    joined = repeated = False
    for index, item in enumerate(items):
        if item.mention is not None:
            if value is not None and not _keeps(item, cue, value):
                item.mention.say(value, cue)
            continue
        name = item.cue
        if name in _AHEAD:
            denied = value == ABSENT and not joined
            if not (denied and name == "doubt ahead"):
                # "pas de A, pas de B, C": who denies each by itself says C of what is there
                repeated = joined and cue == name == "negation ahead"
                value, cue = _AHEAD[name], name
                joined = False
        elif name == "onset" and _follows_denial(items, index):
            continue  # "pas d'apparition de", "no development of"
        elif name == "colon" and _opens_list(items, index):
            continue
        elif name in {"end of scope", "otherwise", "onset", "weak end", "colon", "neutral"}:
            if name != "neutral" or value == _HISTORY:
                value = None
        elif name in {"comma", "and"} and value is not None:
            joined = True
            doubted = value != ABSENT and cue != "differential ahead"
            goes_on = _list_goes_on(items, index, tokens, lexicon, doubted=doubted)
            each_by_itself = repeated and name == "comma" and not _links(items, index, tokens, lexicon)
            stays = cue == "removal ahead" and any(item.cue == NORMAL for item in _until_join(items[index + 1 :]))
            if each_by_itself or stays or not goes_on:
                value = None


def _follows_denial(items: Sequence[_Item], index: int) -> bool:
    before = items[index - 1] if index else None
    return before is not None and before.cue == "negation ahead" and before.end == items[index].start


def _opens_list(items: Sequence[_Item], index: int) -> bool:
    """Whether a colon stands right behind what is said of the list that it opens ("absence de :")."""
    before = items[index - 1] if index else None
    return before is not None and before.cue in _AHEAD and before.cue != "answer" and before.end == items[index].start


def _keeps(item: _Item, cue: str, value: float) -> bool:
    """Whether a mention is not touched by a cue ahead of it."""
    assert item.mention is not None  # noqa: S101
    if item.mention.settled:
        return value == value
    devices = item.mention.findings == (DEVICES,)
    return not devices if cue == "removal ahead" else devices and cue in {"resolution ahead", "history ahead"}


def _list_goes_on(
    items: Sequence[_Item], index: int, tokens: Sequence[Word], lexicon: Lexicon, *, doubted: bool
) -> bool:
    """Whether what follows a comma or an "and" is another item under the same cue."""
    if _links(items, index, tokens, lexicon):
        return True
    rest = items[index + 1 :]
    if rest and rest[0].cue in {"or", "versus"}:
        return True
    own = _until_join(rest)
    if any(item.of_state for item in own):
        return False
    marked = any(item.cue in {*_MODIFIERS, "resolution behind", "negation behind", "doubt near"} for item in own)
    if _ends_in_or(rest):
        return not (doubted and marked)
    if items[index].cue == "comma" and doubted:
        return False
    return not marked


def _links(items: Sequence[_Item], index: int, tokens: Sequence[Word], lexicon: Lexicon) -> bool:
    """Whether a word follows that only goes on with a list ("de", "ni", "any")."""
    return items[index].end < len(tokens) and tokens[items[index].end].text in lexicon.links


def _until_join(items: Sequence[_Item]) -> list[_Item]:
    own: list[_Item] = []
    for item in items:
        if item.cue in {"comma", "and", "or", "versus", "end of scope", "onset", "colon"}:
            break
        own.append(item)
    return own


def _ends_in_or(items: Sequence[_Item]) -> bool:
    """Whether the list runs on to an "or" before anything else is asserted or denied."""
    seen_mention = False
    for item in items:
        if item.mention is not None:
            if item.of_state:
                return False
            seen_mention = True
        elif item.cue == "or":
            return seen_mention
        elif item.cue in _AHEAD or item.cue in {"end of scope", "onset", "colon", "weak end"}:
            return False
    return False


# --- cues behind ----------------------------------------------------------------------------------------------------


def _apply_behind(items: Sequence[_Item], tokens: Sequence[Word]) -> None:
    for index, item in enumerate(items):
        if item.cue == NORMAL and index:
            _found_normal(items[index - 1], item)
        if item.cue not in _BEHIND:
            continue
        value = _BEHIND[item.cue]
        for mention in _reached_back(items, index, tokens):
            if item.cue == "removal behind" and mention.findings != (DEVICES,):
                continue
            if mention.settled or (value == UNCERTAIN and mention.value == ABSENT):
                continue
            mention.say(value, item.cue)


def _found_normal(before: _Item, normal: _Item) -> None:
    """ "Vascular engorgement appears within normal limits": what is named is not there."""
    mention = before.mention
    if mention is None or before.of_state or mention.settled or mention.findings == (DEVICES,):
        return
    if 1 <= normal.start - before.end <= _NEAR:
        mention.say(ABSENT, "normal")


def _reached_back(items: Sequence[_Item], index: int, tokens: Sequence[Word]) -> list[Mention]:
    """The nearest mention ahead of a cue, and those joined to it by "and", "or", or a list that ends in one."""
    reached: list[Mention] = []
    conjunction = False
    doubts = items[index].cue == "doubt behind"
    singular = any(token.text in _SINGULAR for token in tokens[items[index].start : items[index].end])
    for item in reversed(items[:index]):
        if item.mention is not None:
            if item.of_state:
                break
            reached.append(item.mention)
        elif item.cue in {"and", "or"} and reached:
            if item.cue == "and" and singular:
                break
            conjunction = True
        elif item.cue == "comma":
            if doubts or (reached and not conjunction):
                break
        elif item.cue in {*_MODIFIERS, "neutral", "colon", "doubt near", NORMAL}:
            if reached and item.cue == "colon":
                break
        elif item.cue == "weak end" and not reached:
            continue
        else:
            break
        if len(reached) > 1 and not conjunction:
            return reached[:1]
    return reached if conjunction else reached[:1]


# --- doubt beside and between ---------------------------------------------------------------------------------------


def _apply_near(items: Sequence[_Item]) -> None:
    """ "Possible pneumonia", "pneumonie possible", "pneumonie ?": the one it stands beside."""
    for index, item in enumerate(items):
        if item.cue == "new":
            _only_new_denied(_before(items, index))
            continue
        if item.cue == "doubt near":
            mention = _beside(items, index)
        elif item.cue == "question":
            mention = _before(items, index) or _after(items, index)
        else:
            continue
        if mention is not None and not mention.settled and mention.value != ABSENT:
            mention.say(UNCERTAIN, item.cue)
            for other in _or_partners(items, mention):
                if other.value == PRESENT and not other.settled:
                    other.say(UNCERTAIN, item.cue)


def _doubt_signs(named: Sequence[Mention]) -> None:
    """ "Blurred vessels that may be overload": a sign is as doubtful as what the sentence takes it for."""
    for place, mention in enumerate(named):
        if mention.sign and mention.value == PRESENT and not mention.settled:
            meant = [later for later in named[place + 1 :] if not later.sign and later.findings == mention.findings]
            if any(later.value == UNCERTAIN for later in meant):
                mention.say(UNCERTAIN, "sign of what is doubted")


def _only_new_denied(mention: Mention | None) -> None:
    """ "Pas d'opacité nouvelle": an old one may be there."""
    if mention is not None and not mention.settled and mention.cues[-1:] == ["negation ahead"]:
        mention.say(UNCERTAIN, "new")


def _beside(items: Sequence[_Item], index: int) -> Mention | None:
    after, before = _after(items, index, through=frozenset({"and"})), _before(items, index)
    here = items[index]
    if after and before:
        ahead = after.start - here.end
        return after if ahead <= _NEAR or ahead < here.start - before.end else before
    return after or before


def _before(items: Sequence[_Item], index: int) -> Mention | None:
    for item in reversed(items[:index]):
        if item.mention is not None:
            return item.mention
        if item.cue in {"comma", "colon", "end of scope", "onset", "and"}:
            return None
    return None


def _after(items: Sequence[_Item], index: int, *, through: frozenset[str] = frozenset()) -> Mention | None:
    for item in items[index + 1 :]:
        if item.mention is not None:
            return item.mention
        if item.cue not in {*_MODIFIERS, "doubt near", "neutral", NORMAL} | through:
            return None
    return None


def _or_partners(items: Sequence[_Item], mention: Mention) -> list[Mention]:
    place = next(i for i, item in enumerate(items) if item.mention is mention)
    partners: list[Mention] = []
    for direction in (-1, 1):
        at = place + direction
        crossed = False
        while 0 <= at < len(items):
            item = items[at]
            if item.mention is not None:
                if crossed:
                    partners.append(item.mention)
                break
            if item.cue in {"or", "versus"}:
                crossed = True
            elif item.cue not in {*_MODIFIERS, NORMAL}:
                break
            at += direction
    return partners


def _apply_between(items: Sequence[_Item]) -> None:
    """ "A versus B", and "A or B" where neither is denied: both uncertain. Two names of one finding stay certain."""
    for index, item in enumerate(items):
        if item.cue not in {"or", "versus"}:
            continue
        before, after = _before(items, index), _after(items, index)
        if any(earlier.cue == "neutral" for earlier in items[:index]) and item.cue == "or":
            continue
        if item.cue == "versus" and (before is None or after is None):
            alone = before or after
            if alone is not None and alone.value == PRESENT and not alone.settled:
                alone.say(UNCERTAIN, item.cue)
            continue
        if before is None or after is None or before.findings == after.findings:
            continue
        pair = [m for m in (before, after) if m.findings != (DEVICES,) and not m.settled]
        if len(pair) < 2 or any(m.value != PRESENT for m in pair):
            if item.cue == "versus":
                for m in pair:
                    if m.value == PRESENT:
                        m.say(UNCERTAIN, item.cue)
            continue
        if OTHER in before.findings or OTHER in after.findings:
            pair = [m for m in pair if OTHER not in m.findings]
        for m in pair:
            m.say(UNCERTAIN, item.cue)
