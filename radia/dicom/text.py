"""Which text may stand: a controlled vocabulary, general patterns of identifiers, and the identifiers of one file.

What belongs here: judging a piece of text. What does not: which element it comes from (that is `clean`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.resources import files

from pydicom._uid_dict import UID_dictionary
from pydicom.charset import decode_bytes, python_encoding

from radia.dicom.container import Dataset, Element
from radia.dicom.profile import Action, Profile

_WORDS = re.compile(r"[^\W_]+", re.UNICODE)
_MONTHS = (
    "JAN|FEB|FEV|MAR|APR|AVR|MAY|MAI|JUN|JUI|JUL|AUG|AOU|SEP|OCT|NOV|DEC"  # first letters of the months, FR and EN
)
_TITLES = (
    "DR|DRE|DOCTEUR|DOCTEURE|DOCTOR|MME|MADAME|MONSIEUR|MRS|MISS|MLLE|NEE|INF|TECH|"
    "PATIENT|PATIENTE|NAM|RAMQ|DDN|DOB|BORN|NOM|NAME|MRN|DOSSIER"
)
_PATTERNS = re.compile(
    "|".join(
        (
            r"[A-Z]{3,4}[ -]?\d{4}[ -]?\d{4}",  # Quebec health insurance number
            r"\d{5,}",  # record, accession and telephone numbers
            r"\d{3}[ .\-]\d{3}[ .\-]\d{3,4}|\d{3}[ .\-]\d{4}",  # telephone and social insurance numbers
            r"\b[A-Z]\d[A-Z][ -]?\d[A-Z]\d\b",  # Canadian postal code
            r"\b\d{1,4}[./\-]\d{1,2}[./\-]\d{1,4}\b",  # dates in figures
            rf"\b\d{{1,2}}(?:ER|ST|ND|RD|TH)?[ .\-]*(?:{_MONTHS})[A-Z]*[ .,\-]*(?:\d{{4}}|\d{{2}})\b",  # and in words
            rf"\b(?:{_MONTHS})[A-Z]*[ .\-]*\d{{1,2}}[ ,.\-]+\d{{4}}\b",
            r"@|HTTPS?:|WWW\.",
            r"\^",  # parts of a person's name
            rf"\b(?:{_TITLES})\b",
        )
    )
)
_NAME_PARTS = re.compile(r"[\s^=,;/()\[\]<>\"]+")
_SHORTEST = 4  # shorter tokens are looked for as whole words only


def plain(text: str) -> str:
    """Upper case without accents: the form in which words are compared."""
    if text.isascii():
        return text.upper()
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).upper()


@cache
def vocabulary() -> frozenset[str]:
    """Radiology terms in French and English, DICOM's defined terms, units."""
    lines = (files("radia.dicom") / "rules" / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(plain(word) for line in lines if not line.startswith("#") for word in line.split())


@lru_cache(maxsize=4096)
def in_vocabulary(text: str) -> bool:
    """Whether every word is a known term or a number of at most three figures."""
    words = _WORDS.findall(plain(text))
    return all(word in vocabulary() or (word.isdigit() and len(word) <= 3 and word.isascii()) for word in words)


class Identifiers:
    """All that names the patient, the staff, the place or the instance in one source file.

    `tokens` are searched for in bytes and in text wherever they stand; `short` ones as whole words in text.
    """

    def __init__(self, tokens: Iterable[str], short: Iterable[str] = ()) -> None:
        self.tokens = frozenset(tokens)
        self.short = frozenset(short)
        self._forms = tuple({plain(token) for token in self.tokens})
        self._needles: tuple[bytes, ...] = ()

    def named_in(self, text: str) -> bool:
        """Whether an identifier stands in this text, whatever its case and accents."""
        form = plain(text)
        if any(token in form for token in self._forms):
            return True
        return bool(self.short) and not self.short.isdisjoint(_WORDS.findall(form))

    def stand_in(self, raw: bytes | memoryview) -> bool:
        """Whether an identifier stands in these bytes, in an encoding that a DICOM file may hold it in."""
        if self.tokens and not self._needles:
            self._needles = tuple({piece for token in self.tokens for piece in _encodings(token)})
        searched = bytes(raw)
        return any(needle in searched for needle in self._needles)


@lru_cache(maxsize=4096)
def _encodings(token: str) -> frozenset[bytes]:
    if token.isascii():
        forms = {token, token.upper(), token.lower(), token.title()}
        narrow = {form.encode() for form in forms}
        return frozenset(narrow | ({form.encode("utf-16-le") for form in forms} if not token.isdigit() else set()))
    found = set()
    for form in {token, token.upper(), token.lower(), plain(token), token.title()}:
        for encoding in ("utf-8", "utf-16-le", "latin-1", "cp850", "iso8859-5", "iso8859-7", "iso8859-8", "gb18030"):
            try:
                found.add(form.encode(encoding))
            except UnicodeEncodeError:
                continue
    return frozenset(found)


def passes_scan(text: str, identifiers: Identifiers) -> bool:
    """Whether text shows neither an identifier of this file nor the pattern of any."""
    if not text.isprintable() or _PATTERNS.search(plain(text)):
        return False
    return not identifiers.named_in(text)


# --- what names somebody in a source file -----------------------------------------------------------------------------

_NAMING_TEXT = frozenset(["PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "UR"])
_SHORTEST_NUMBER = 6  # a house number is no identifier; a record number of any length is
_NUMBERS = frozenset({0x00100020, 0x00080050, 0x00101000})
_DATED = frozenset(["DA", "DT"])
_BIRTH = frozenset({0x00100030, 0x00100032})


def encodings_of(dataset: Dataset, inherited: list[str]) -> list[str]:
    """The character sets that a data set declares, as Python names."""
    element = dataset.elements.get(0x00080005)
    if element is None or not element.raw:
        return inherited
    found = []
    for name in element.raw.decode("latin-1").split("\\"):
        encoding = python_encoding.get(name.strip() or "ISO_IR 6")
        if encoding:
            found.append(encoding)
    return found or inherited


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
    return Identifiers(collector.tokens, collector.short)


class _Collector:
    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.tokens: set[str] = set()
        self.short: set[str] = set()

    def collect(self, dataset: Dataset, inherited: list[str]) -> None:
        encodings = encodings_of(dataset, inherited)
        for element in (*dataset.elements.values(), *dataset.doubled):
            if element.items is not None:
                for item in element.items:
                    self.collect(item, encodings)
            elif element.fragments is None and len(element.value) <= 1024:
                self._element(element, encodings)

    def _element(self, element: Element, encodings: list[str]) -> None:
        tag, vr = element.tag, element.vr
        action = self.profile.rule(tag).action
        if action in (Action.KEEP, Action.CLEAN) and vr != "PN" and tag not in _BIRTH:
            return
        if tag >> 16 & 1 or not element.value:
            return
        if vr == "UI":
            for uid in element.raw.decode("latin-1").split("\\"):
                if uid.strip() and uid not in UID_dictionary:
                    self.tokens.add(uid.strip())
        elif vr == "PN":
            self._name(decoded(element.raw, encodings))
        elif vr in _DATED and tag in _BIRTH:
            self._date(element.raw.decode("latin-1").strip())
        elif vr in _NAMING_TEXT and self._names_somebody(tag):
            self._text(tag, decoded(element.raw, encodings))

    def _names_somebody(self, tag: int) -> bool:
        """Descriptions and comments are free prose, full of ordinary words; the rest of what goes are identifiers."""
        return tag in _TABLED and tag not in _prose()

    def _name(self, text: str) -> None:
        for part in _NAME_PARTS.split(text.replace("\\", " ")):
            word = part.strip(".'")
            if len(word) >= _SHORTEST and not word.isdigit():
                self.tokens.add(word)  # a name is a name, even where it is also a word (Côté, Droit)
            else:
                self._word(word)

    def _text(self, tag: int, text: str) -> None:
        for value in text.split("\\"):
            whole = value.strip()
            if len(whole) >= _SHORTEST and not in_vocabulary(whole):
                self._whole(whole, tag)
            for word in _NAME_PARTS.split(whole):
                self._word(word.strip(".'"))

    def _whole(self, value: str, tag: int) -> None:
        if value.isdigit() and len(value) < _SHORTEST_NUMBER and tag not in _NUMBERS:
            self.short.add(value)
            return
        self.tokens.add(value)
        if any(c.isdigit() for c in value):
            self.tokens.add(value.replace(" ", ""))

    def _word(self, word: str) -> None:
        if not word or in_vocabulary(word) or (word.isdigit() and len(word) < _SHORTEST_NUMBER):
            return
        if len(word) >= _SHORTEST:
            self.tokens.add(word)
        elif len(word) >= 2 and not word.isdigit():
            self.short.add(plain(word))

    def _date(self, text: str) -> None:
        if len(text) >= 8 and text[:8].isdigit():
            year, month, day = text[:4], text[4:6], text[6:8]
            self.tokens |= {f"{year}{month}{day}", f"{year}-{month}-{day}", f"{year}.{month}.{day}"}
            self.tokens |= {f"{year}/{month}/{day}", f"{day}/{month}/{year}", f"{day}-{month}-{year}"}


@cache
def _prose() -> frozenset[int]:
    from radia.dicom.profile import table

    return frozenset(int(row.tag, 16) for row in table() if "clean_descriptors" in row.options)


def _tabled() -> frozenset[int]:
    from radia.dicom.profile import table

    return frozenset(int(row.tag, 16) for row in table() if "x" not in row.tag and row.tag != "private")


_TABLED = _tabled()
