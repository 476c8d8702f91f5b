"""What names somebody in a source file: every value that the profile takes away, at every depth, as `Identifiers`.

What belongs here: reading identifiers out of a data set, character sets included. What does not: looking for them.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from pydicom._uid_dict import UID_dictionary
from pydicom.charset import decode_bytes, python_encoding

from radia.dicom.container import Dataset, Element
from radia.dicom.identifiers import SHORTEST, SHORTEST_NUMBER, Identifiers
from radia.dicom.profile import Action, Profile, table
from radia.dicom.text import GENERIC, WORDS, in_vocabulary, plain, vocabulary

_LETTERS = re.compile(r"[^A-Z]+")
_DAY = re.compile(r"(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})")
_NAME_PARTS = re.compile(r"[\s^=,;/()\[\]<>\"]+")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "AE", "Ö": "OE", "Ü": "UE", "ø": "oe", "Ø": "OE",
                          "å": "aa", "Å": "AA"})  # fmt: skip

_NAMING_TEXT = frozenset(["PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "UR", "CS", "UN"])
_LONG_NUMBER = 7  # figures of a telephone or insurance number, written together
_DATED = frozenset(["DA", "DT"])
_BIRTH = frozenset({0x00100030, 0x00100032})


def encodings_of(dataset: Dataset, inherited: list[str]) -> list[str]:
    """The character sets that a data set declares, as Python names."""
    element = dataset.elements.get(0x00080005)
    if element is None or element.items is not None or not element.raw:
        return inherited
    return list(_python_encodings(element.raw)) or inherited


@lru_cache(maxsize=256)
def _python_encodings(raw: bytes) -> tuple[str, ...]:
    names = (name.strip() or "ISO_IR 6" for name in raw.decode("latin-1").split("\\"))
    return tuple(python_encoding[name] for name in names if name in python_encoding)


def decoded(value: bytes, encodings: list[str]) -> str:
    """Text of an element. What its character set cannot explain is read as UTF-8, else Latin-1."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if encodings != ["iso8859"]:
        try:
            text = decode_bytes(value, encodings, {0x5C, 0x5E, 0x3D, 0x0D, 0x0A})
        except (LookupError, UnicodeError):
            text = "\ufffd"
        if "\ufffd" not in text:
            return text
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def harvest(dataset: Dataset, profile: Profile) -> Identifiers:
    """The identifiers that a file holds: every value that the profile takes away, at every depth."""
    collector = _Collector(profile)
    collector.collect(dataset, ["iso8859"])
    return collector.identifiers()


class _Collector:
    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.tokens: set[str] = set()
        self.short: set[str] = set()
        self.names: set[str] = set()
        self.dates: set[str] = set()
        self.marks: set[str] = set()
        self.patients: set[tuple[str, str]] = set()
        self.births: set[str] = set()

    def identifiers(self) -> Identifiers:
        """All that was collected, and what is made of a patient's name together with the birth date."""
        marks = set(self.marks) | {birth[4:] for birth in self.births} | {b[6:] + b[4:6] for b in self.births}
        for last, first in self.patients:
            marks.add(last[:3] + first[0])  # the letters of a Quebec health insurance number
            for initials in (first[0] + last[0], last[0] + first[0]):
                marks |= {initials + form for birth in self.births for form in _birth_forms(birth)}
        words = vocabulary()
        marks = {mark for mark in marks if len(mark) >= SHORTEST and mark not in words and mark not in GENERIC}
        return Identifiers(self.tokens, self.short, self.names, dates=self.dates, marks=marks)

    def collect(self, dataset: Dataset, inherited: list[str]) -> None:
        encodings = encodings_of(dataset, inherited)
        for element in (*dataset.elements.values(), *dataset.doubled):
            if element.items is not None:
                for item in element.items:
                    self.collect(item, encodings)
            elif element.vr in _HARVESTED and 0 < len(element.value) <= 1024:
                self._element(element, encodings)

    def _element(self, element: Element, encodings: list[str]) -> None:
        tag, vr = element.tag, element.vr
        if tag >> 16 & 1:
            return
        action = self.profile.rule(tag).action
        if vr in _DATED and action is not Action.KEEP:
            self._dates(element.raw.decode("latin-1"))
        if action in (Action.KEEP, Action.CLEAN) and vr != "PN" and tag not in _BIRTH:
            return
        if vr == "UI":
            for uid in element.raw.decode("latin-1").split("\\"):
                if len(uid.strip()) > SHORTEST_NUMBER and uid.strip() not in UID_dictionary:
                    self.tokens.add(uid.strip())
        elif vr == "PN":
            for text in _readings(element.raw, encodings):
                self._name(text)
                self._person(text, patient=tag >> 16 == 0x0010)
        elif vr in _DATED:
            if tag in _BIRTH:
                self._birth(element.raw.decode("latin-1").strip())
        elif _names_somebody(tag):
            for text in _readings(element.raw, encodings):
                self._text(text)

    def _name(self, text: str) -> None:
        if not plain(text).isascii():  # scripts that write a name as one word of two or three signs
            self.tokens |= {"".join(WORDS.findall(group)) for group in text.split("=") if _in_other_script(group)}
        for part in _NAME_PARTS.split(text.replace("\\", " ")):
            word = part.strip(".'")
            if plain(word) in GENERIC:
                continue
            if len(word) >= SHORTEST and not word.isdigit():
                self.tokens.add(word)  # a name is a name, even where it is also a word (Côté, Droit)
                self.names.add(word)
                self.tokens |= _spellings(word)
                if "-" in word:  # each half of Marie-Ève and of Tremblay-Roy
                    self._name(word.replace("-", " "))
            else:
                self._word(word)

    def _person(self, text: str, *, patient: bool) -> None:
        """Last and first name together, as they stand in the names of accounts."""
        for group in text.split("="):
            last, first = (_LETTERS.sub("", plain(part)) for part in (*group.split("^"), "")[:2])
            if len(last) > 1 and first:
                self.marks |= {last + first, first + last, first[0] + last, last + first[0]}
                self.marks |= {last[:3] + first[:3], first[:3] + last[:3]}
                self.patients |= {(last, first)} if patient else set()

    def _dates(self, text: str) -> None:
        self.dates |= {"".join(found.groups()) for found in map(_DAY.match, text.split("\\")) if found}

    def _text(self, text: str) -> None:
        for value in text.split("\\"):
            whole = value.strip()
            if len(whole) >= SHORTEST and not in_vocabulary(whole):
                self._whole(whole)
            for word in _NAME_PARTS.split(whole):
                self._word(word.strip(".'"))

    def _whole(self, value: str) -> None:
        if value.isdigit() and len(value) < SHORTEST_NUMBER:
            self.short.add(value)
            return
        self.tokens.add(value)
        if any(c.isdigit() for c in value):
            self.tokens.add(value.replace(" ", ""))
            figures = "".join(c for c in value if c.isdigit())
            if len(figures) >= _LONG_NUMBER:
                self.tokens.add(figures)

    def _word(self, word: str) -> None:
        if (
            not word
            or plain(word) in GENERIC
            or in_vocabulary(word)
            or (word.isdigit() and len(word) < SHORTEST_NUMBER)
        ):
            return
        if len(word) >= SHORTEST:
            self.tokens.add(word)
        elif len(word) >= 2 and not word.isdigit():
            self.short.add(word)

    def _birth(self, text: str) -> None:
        if len(text) >= 8 and text[:8].isdigit():
            year, month, day = text[:4], text[4:6], text[6:8]
            self.births.add(text[:8])
            self.short |= {year[2:] + month + day, day + month + year[2:], month + day + year[2:]}
            self.tokens |= {f"{year}{month}{day}", f"{day}{month}{year}"}
            self.tokens |= {mark.join(parts) for mark in "-./ " for parts in ((year, month, day), (day, month, year))}


def _birth_forms(birth: str) -> tuple[str, ...]:
    year, month, day = birth[:4], birth[4:6], birth[6:]
    return year, year[2:], birth, birth[2:], day + month + year, day + month + year[2:]


def _in_other_script(group: str) -> bool:
    letters = [c for c in plain(group) if c.isalpha()]
    return len(letters) >= 2 and not any(c.isascii() for c in letters)


_LATIN = {
    "АБВГДЕЗИКЛМНОПРСТУФЭ": "ABVGDEZIKLMNOPRSTUFE", "ЫЬЪ": "Y  ", "ΑΒΓΔΕΖΗΙΚΛΜΝΞΟΠΡΣΤΥΦΩ": "AVGDEZIIKLMNXOPRSTYFO",
}  # fmt: skip
_IN_LATIN = str.maketrans(
    {sign: letter.strip() for signs, letters in _LATIN.items() for sign, letter in zip(signs, letters, strict=True)}
    | {"Ж": "ZH", "Х": "KH", "Ц": "TS", "Ч": "CH", "Ш": "SH", "Щ": "SHCH", "Ю": "YU", "Я": "YA"}
    | {"Θ": "TH", "Χ": "CH", "Ψ": "PS"}
)
"""Cyrillic and Greek, without marks, as passports write them."""


def _spellings(name: str) -> set[str]:
    """Other ways to write a name: marks left out, umlauts written out or in, accented letters dropped."""
    letters = "".join(WORDS.findall(name))
    form = plain(letters)
    found = {letters, plain(letters.translate(_UMLAUTS))}
    written = "" if form.isascii() else form.translate(_IN_LATIN)
    found |= {written} if written.isascii() else set()
    found |= {form.replace(pair, pair[0]) for pair in ("AE", "OE", "UE") if len(form) > SHORTEST}
    dropped = "".join(c for c in letters if c.isascii())
    found |= {dropped} if len(dropped) > SHORTEST else set()
    return {spelling for spelling in found if len(spelling) >= SHORTEST and not spelling.isdigit()}


_HARVESTED = _NAMING_TEXT | _DATED | {"UI"}


def _readings(raw: bytes, encodings: list[str]) -> set[str]:
    """What a value may say: by its character set and, where that may be wrong, as UTF-8 and as Latin-1."""
    if raw.isascii() and b"\x1b" not in raw:
        return {raw.decode("ascii")}
    found = {decoded(raw, encodings)}
    try:
        found.add(raw.decode("utf-8"))
    except UnicodeDecodeError:
        found.add(raw.decode("latin-1"))
    return found | set(filter(None, map(_encoded_once, found)))


def _encoded_once(text: str) -> str:
    """Text that was encoded twice (BÃ©langer), once; empty where it was not."""
    for encoding in ("latin-1", "cp1252"):
        try:
            return text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return ""


@cache
def _naming() -> frozenset[int]:
    """Attributes that name somebody or something. Descriptions and comments are prose, full of ordinary words."""
    rows = (row for row in table() if "x" not in row.tag and row.tag != "private")
    return frozenset(int(row.tag, 16) for row in rows if "clean_descriptors" not in row.options)


def _names_somebody(tag: int) -> bool:
    return tag in _naming()
