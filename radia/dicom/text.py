"""Which text may stand: a controlled vocabulary, general patterns of identifiers, and the identifiers of one file.

What belongs here: judging a piece of text. What does not: which element it comes from (that is `clean`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
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
_WHOLE_MONTHS = (
    "JANVIER|FEVRIER|MARS|AVRIL|MAI|JUIN|JUILLET|AOUT|SEPTEMBRE|OCTOBRE|NOVEMBRE|DECEMBRE|"
    "JANUARY|FEBRUARY|MARCH|APRIL|MAY|JUNE|JULY|AUGUST|SEPTEMBER|OCTOBER|NOVEMBER|DECEMBER"
)
_DAY = r"\d{1,2}(?:ER|ST|ND|RD|TH|E)?"
_TITLES = (
    "DR|DRE|DOCTEUR|DOCTEURE|DOCTOR|PROF|PROFESSEUR|PROFESSEURE|MM|MR|MS|MME|MADAME|MONSIEUR|MRS|MISS|MLLE|MADEMOISELLE|"
    "VEUVE|EPOUSE|EPOUX|CONJOINT|CONJOINTE|MARI|FEMME|FILS|FILLE|MERE|PERE|FRERE|SOEUR|TUTEUR|TUTRICE|WIFE|HUSBAND|SON|"
    "DAUGHTER|MOTHER|FATHER|BROTHER|SISTER|GUARDIAN|MD|RN|INF|INFIRMIER|INFIRMIERE|NURSE|TECH|TECHNO|TECHNOLOGUE|"
    "PATIENT|PATIENTE|NE|NEE|BORN|BIRTH|NAISSANCE|BIRTHDAY|DDN|DOB|NAM|RAMQ|NOM|PRENOM|NAME|SURNAME|MRN|DOSSIER|NAS|SIN|"
    "SSN|ID|TEL|TELEPHONE|PHONE|CELL|CELLULAIRE|FAX|POSTE|COURRIEL|EMAIL|RUE|AVENUE|BOULEVARD|BOUL|CHEMIN|RANG|STREET|"
    "APP|APT|ADRESSE|ADDRESS|CASIER|ANNIVERSAIRE|ANNIV"
)
_PATTERNS = re.compile(
    "|".join(
        (
            r"[A-Z]{3,4}[ .\-]{0,2}\d{4}[ .\-]{0,2}\d{4}",  # Quebec health insurance number
            r"\d{5,}",  # record, accession and telephone numbers
            r"(?:\d[ .\-()/+]{0,3}){7,}",  # telephone, insurance and record numbers and dates, in groups of any size
            r"\d{3}[ .\-]\d{4}",  # a local telephone number
            r"\b[A-Z]\d[A-Z][ -]?\d[A-Z]\d\b",  # Canadian postal code
            r"\b\d{1,4}[./\-]\d{1,2}[./\-]\d{1,4}\b",  # dates in figures
            r"\b\d{1,2} \d{1,2} (?:19|20)\d{2}\b|\b(?:19|20)\d{2} \d{1,2} \d{1,2}\b",
            rf"\b{_DAY}[ .\-]*(?:{_MONTHS})[A-Z]*[ .,\-]*(?:\d{{4}}|\d{{2}})\b",  # and in words
            rf"\b(?:{_MONTHS})[A-Z]*[ .\-]*{_DAY}[ ,.\-']+\d{{2,4}}\b",
            rf"\b\d{{4}}[ .\-]*(?:{_MONTHS})[A-Z]*[ .\-]*\d{{1,2}}\b",
            rf"\b(?:{_MONTHS})[A-Z]*[ .,\-]*(?:19|20)\d{{2}}\b",
            rf"\b{_DAY} ?(?:{_WHOLE_MONTHS})\b|\b(?:{_WHOLE_MONTHS}) {_DAY}\b",
            r"\b(?:9\d|1[0-2]\d) ?-?(?:ANS|ANNEES|YEARS?|YRS?|YO|Y/O)\b",  # ages that few people reach
            r"\b(?:CHAMBRE|CH|ROOM|RM|LIT|BED)\.? ?\d",
            r"@|HTTPS?:|WWW\.|#|N[O°º]\.? ?\d",
            r"\^",  # parts of a person's name
            rf"\b(?:{_TITLES})\b",
            r"\b[A-Z]\. ?[A-Z]{3,}|\bM [A-Z]{3,}",  # M. Tremblay, J. Roy
            r"\b(?:VU|LU|SIGNE|DICTE|REVISE|REFERE|DEMANDE|PRESCRIT|APPELER|CONTACTER|SEEN|READ|SIGNED|DICTATED|"
            r"REVIEWED|REFERRED|ORDERED|CALL)E?S? (?:PAR|BY|A|AU|TO)?\b ?(?=[A-Z])",
            r"(?=[A-Z+/=]*\d)(?=[\d+/=]*[A-Z])[A-Z\d+/=]{10,}",  # letters and figures mixed: encoded, or a key
        )
    )
)
_SHORT_DATE = re.compile(r"\d{1,3}[./\-]\d{1,2}[./\-]\d{1,3}")
_ENCODED = re.compile(r"(?:[A-Z0-9]*[a-z]+[A-Z0-9]+){3,}[A-Za-z0-9]*=*|=+$")
_WRITTEN = re.compile(rb"[ -\xff]{4,}")  # shades are seldom so long without a byte that no writing has
_PRINTED = re.compile(rb"[ -~]{10,}")
_GENERIC = frozenset(_TITLES.split("|"))
_NAME_PARTS = re.compile(r"[\s^=,;/()\[\]<>\"]+")
_SHORTEST = 4  # shorter tokens are looked for as whole words only
_SHORTEST_NUMBER = 6  # shorter numbers too: three figures of a distance are no record number
_MOST_FIGURES = 6  # of the numbers in a term: fewer than a telephone or record number has
_LEAST_NUMBER = 1000  # 0000100 is a record number; 100 are kilovolts
_SHORTEST_SQUEEZED = 6  # without what stands between their letters


# Letters that Unicode does not take apart, as their languages write them without.
_WHOLE_LETTERS = str.maketrans(
    {"œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d",
     "Ð": "D", "þ": "th", "Þ": "TH", "ı": "i", "ß": "ss", "ẞ": "SS", "ħ": "h", "Ħ": "H", "’": "'", "‘": "'", "ʼ": "'"}
)  # fmt: skip
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "AE", "Ö": "OE", "Ü": "UE", "ø": "oe", "Ø": "OE",
                          "å": "aa", "Å": "AA"})  # fmt: skip


def plain(text: str) -> str:
    """Upper case without accents: the form in which words are compared."""
    if text.isascii():
        return text.upper()
    apart = unicodedata.normalize("NFKD", text.translate(_WHOLE_LETTERS))
    return "".join(c for c in apart if not unicodedata.combining(c)).upper()


@cache
def vocabulary() -> frozenset[str]:
    """Radiology terms in French and English, DICOM's defined terms, units, manufacturers."""
    lines = (files("radia.dicom") / "rules" / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(plain(word) for line in lines if not line.startswith("#") for word in line.split())


@lru_cache(maxsize=4096)
def in_vocabulary(text: str) -> bool:
    """Whether every word is a known term or a number of at most three figures, no more than six in all, and no date."""
    if not text.isprintable() or _SHORT_DATE.search(text):
        return False
    words = _WORDS.findall(plain(text))
    figures = 0
    for word in words:
        if word in vocabulary():
            continue
        if not (word.isdigit() and word.isascii() and len(word) <= 3):
            return False
        figures += len(word)
    return figures <= _MOST_FIGURES


def few_figures(text: str) -> bool:
    """Whether the numbers of a text have no more figures together than a term has."""
    return sum(len(word) for word in _WORDS.findall(text) if word.isdigit()) <= _MOST_FIGURES


class Identifiers:
    """All that names the patient, the staff, the place or the instance in one source file.

    `tokens` are searched for in bytes and in text wherever they stand, `short` ones as whole words in text. `names`
    are those of persons: they are also looked for reversed and cut short.
    """

    def __init__(self, tokens: Iterable[str], short: Iterable[str] = (), names: Iterable[str] = ()) -> None:
        names = tuple(names)
        self.tokens = frozenset(token for token in tokens if token)
        self.short = frozenset(plain(token) for token in short)
        self._names = tuple({plain(name) for name in names})
        forms = {plain(token) for token in self.tokens}
        forms |= {name[::-1] for name in self._names}
        self._forms = tuple(forms)
        self._starts = frozenset(form[:_SHORTEST] for form in forms)
        self._brief = tuple(form for form in forms if len(form) < _SHORTEST)  # names of two or three signs
        self._figures = tuple(form for form in forms if form.isdecimal())
        self.numbers = frozenset(number for number in map(int, self._figures) if number >= _LEAST_NUMBER)
        """Record, accession and telephone numbers of six figures and more, as numbers."""
        self._written_numbers = frozenset(map(str, self.numbers)) | {form.lstrip("0") for form in self.short}
        self._damaged = tuple(name for name in names if not name.isascii() or _SIGNS.search(name))
        self._always = any(_SIGNS.search(name) for name in self._damaged)
        self._patterns: tuple[re.Pattern[str], ...] | None = None
        self._squeezed: tuple[str, ...] | None = None
        self._needles: tuple[bytes, ...] | None = None

    def named_in(self, text: str) -> bool:
        """Whether an identifier stands in this text, whatever its case, accents and punctuation."""
        form = plain(text)
        starts = self._starts
        for at in range(len(form) - _SHORTEST + 1):
            if form[at : at + _SHORTEST] in starts and any(token in form for token in self._forms):
                return True
        if any(token in form for token in self._brief):
            return True
        if self._damaged and (self._always or _ODD_SIGN.search(text)) and self._damaged_in(form):
            return True
        if not self.short and not self._names:
            return False
        words = _WORDS.findall(form)
        if not self.short.isdisjoint(words):
            return True
        return len(words) > 1 and self._hidden(words)

    def abbreviated_in(self, text: str) -> bool:
        """Whether a word that is no term is the beginning of a person's name."""
        words = (word for word in _WORDS.findall(plain(text)) if len(word) >= _SHORTEST and word not in vocabulary())
        return any(name.startswith(word) for word in words for name in self._names)

    def numbered_in(self, values: list[str]) -> bool:
        """Whether a number is an identifier, or an identifier's figures stand in it or are spread over several."""
        if not self.short.isdisjoint(values) or not self._written_numbers.isdisjoint(map(_whole_number, values)):
            return True
        whole = "".join(c for value in values for c in value if c.isdigit())
        return any(figures in whole for figures in self._figures)

    def spelled_in(self, codes: Sequence[float]) -> bool:
        """Whether numbers are the codes of letters that name somebody: 84, 114, 101 ... as macros write them."""
        if len(codes) < _SHORTEST or any(code != code // 1 or not 0x20 <= code <= 0xFF for code in codes):
            return False
        letters = bytes(map(int, codes))
        return self.named_in(letters.decode("latin-1")) or self.named_in(letters.decode("utf-8", "replace"))

    def _damaged_in(self, form: str) -> bool:
        """A name whose accents did not come through whole: B?langer, B&eacute;langer, BÃ©langer, B%C3%A9langer."""
        if self._patterns is None:
            self._patterns = tuple(re.compile(_damaged_form(name)) for name in self._damaged)
        return any(pattern.search(form) for pattern in self._patterns)

    def _hidden(self, words: list[str]) -> bool:
        """Identifiers written with other separators, or none: 411 85 92, O Neill, TREM-BLAY."""
        if self._squeezed is None:
            squeezed = {"".join(_WORDS.findall(form)) for form in self._forms}
            self._squeezed = tuple(form for form in squeezed if len(form) >= _SHORTEST_SQUEEZED)
        whole = "".join(words)
        return any(form in whole for form in self._squeezed)

    def stand_in(self, raw: bytes | memoryview) -> bool:
        """Whether an identifier stands in these bytes, in an encoding that a DICOM file may hold it in."""
        if len(raw) < _SHORTEST:
            return False
        if self._needles is None:
            self._needles = tuple({piece for token in self.tokens for piece in _encodings(token)})
        squeezed = bytes(raw).lower().replace(b"\0", b"")  # without the zeros, UTF-16 reads as Latin-1
        searched = b"\0".join(_WRITTEN.findall(squeezed))
        return any(map(searched.__contains__, self._needles))

    def stand_in_pixels(self, raw: bytes | memoryview) -> bool:
        """The same of stored pixels, which spell a word of four or five letters by chance: such a one counts only
        within a line of print.
        """
        if not self.stand_in(raw):
            return False
        squeezed = bytes(raw).lower().replace(b"\0", b"")
        lines = b"\0".join(_PRINTED.findall(squeezed))
        searched = b"\0".join(_WRITTEN.findall(squeezed))
        return any(needle in (lines if len(needle) < 6 else searched) for needle in self._needles or ())


_DAMAGED = (
    r"(?:[^A-Z0-9\s]{1,4}|A[^A-Z0-9]{1,2}|AA|&#?\w{2,6};|(?:%[0-9A-F]{2}){1,3}|(?:=[0-9A-F]{2}){1,2}|"
    r"\\'[0-9A-F]{2}|\\X[0-9A-F]{2,4}\\?|\\U\d{2,5}\??"
)
_SIGNS = re.compile(r"[^\w\s'’‘ʼ.\-]|_|\d|[\x80-\x9f]")  # what no name has
_ODD_SIGN = re.compile(r"[^A-Za-z0-9\s.,()/\-]")


def _damaged_form(name: str) -> str:
    """A pattern, for text in its plain form, of a name with something else where its accents or unknown signs are."""
    pieces = []
    for piece in re.findall(r"[A-Za-z]+|[^A-Za-z]", unicodedata.normalize("NFC", name)):
        if piece.isascii() and piece.isalpha():
            pieces.append(piece.upper())
        else:
            known = plain(piece)
            own = known if known.isalpha() else "[A-Z]{1,2}"
            pieces.append(f"{_DAMAGED}|{re.escape(known) if known.isalpha() else own})")
    return "".join(pieces)


def _whole_number(value: str) -> str:
    """A number without sign, leading zeros and a fraction of zeros; as it is where it is none."""
    whole, _, fraction = value.strip().lstrip("+-").partition(".")
    return whole.lstrip("0") if not fraction.strip("0") else value


@lru_cache(maxsize=4096)
def _encodings(token: str) -> frozenset[bytes]:
    """A token's bytes, ASCII letters in lower case and without zeros."""
    if token.isascii():
        return frozenset([token.lower().encode()])
    found = set()
    for form in {token, token.upper(), token.lower(), plain(token), token.title()}:
        for normal in ("NFC", "NFD"):
            composed = unicodedata.normalize(normal, form)
            for encoding in _CHARACTER_SETS:
                try:
                    found.add(composed.encode(encoding).lower().replace(b"\0", b""))
                except UnicodeEncodeError:
                    continue
    return frozenset(found)


_CHARACTER_SETS = (
    "utf-8", "utf-16-le", "utf-16-be", "latin-1", "cp850", "mac-roman", "iso8859-2", "iso8859-5", "iso8859-7",
    "iso8859-8", "gb18030", "euc-jp", "euc-kr",
)  # fmt: skip


_UNITS = "ΜΩ"  # of micro and ohm


def passes_scan(text: str, identifiers: Identifiers) -> bool:
    """Whether text shows neither an identifier of this file nor the pattern of any."""
    form = plain(text)
    if not text.isprintable() or _PATTERNS.search(form) or _ENCODED.search(text) or _two_names(text):
        return False
    if not form.isascii() and any(c.isalpha() and not c.isascii() and c not in _UNITS for c in form):
        return False  # a script in which nobody looks for names here, or letters that pass for Latin ones
    return not identifiers.named_in(text) and not identifiers.abbreviated_in(text)


def _two_names(text: str) -> bool:
    """Two capitalised words in a row that are no terms: as the names of a person stand."""
    before = False
    for word in _WORDS.findall(text):
        named = len(word) > 1 and word.isalpha() and word[0].isupper() and plain(word) not in vocabulary()
        if named and before:
            return True
        before = named
    return False


# --- what names somebody in a source file -----------------------------------------------------------------------------

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
    return Identifiers(collector.tokens, collector.short, collector.names)


class _Collector:
    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.tokens: set[str] = set()
        self.short: set[str] = set()
        self.names: set[str] = set()

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
        if action in (Action.KEEP, Action.CLEAN) and vr != "PN" and tag not in _BIRTH:
            return
        if vr == "UI":
            for uid in element.raw.decode("latin-1").split("\\"):
                if len(uid.strip()) > _SHORTEST_NUMBER and uid.strip() not in UID_dictionary:
                    self.tokens.add(uid.strip())
        elif vr == "PN":
            for text in _readings(element.raw, encodings):
                self._name(text)
        elif vr in _DATED:
            if tag in _BIRTH:
                self._birth(element.raw.decode("latin-1").strip())
        elif _names_somebody(tag):
            for text in _readings(element.raw, encodings):
                self._text(text)

    def _name(self, text: str) -> None:
        if not plain(text).isascii():  # scripts that write a name as one word of two or three signs
            self.tokens |= {"".join(_WORDS.findall(group)) for group in text.split("=") if _in_other_script(group)}
        for part in _NAME_PARTS.split(text.replace("\\", " ")):
            word = part.strip(".'")
            if plain(word) in _GENERIC:
                continue
            if len(word) >= _SHORTEST and not word.isdigit():
                self.tokens.add(word)  # a name is a name, even where it is also a word (Côté, Droit)
                self.names.add(word)
                self.tokens |= _spellings(word)
                if "-" in word:  # each half of Marie-Ève and of Tremblay-Roy
                    self._name(word.replace("-", " "))
            else:
                self._word(word)

    def _text(self, text: str) -> None:
        for value in text.split("\\"):
            whole = value.strip()
            if len(whole) >= _SHORTEST and not in_vocabulary(whole):
                self._whole(whole)
            for word in _NAME_PARTS.split(whole):
                self._word(word.strip(".'"))

    def _whole(self, value: str) -> None:
        if value.isdigit() and len(value) < _SHORTEST_NUMBER:
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
            or plain(word) in _GENERIC
            or in_vocabulary(word)
            or (word.isdigit() and len(word) < _SHORTEST_NUMBER)
        ):
            return
        if len(word) >= _SHORTEST:
            self.tokens.add(word)
        elif len(word) >= 2 and not word.isdigit():
            self.short.add(word)

    def _birth(self, text: str) -> None:
        if len(text) >= 8 and text[:8].isdigit():
            year, month, day = text[:4], text[4:6], text[6:8]
            self.short |= {year[2:] + month + day, day + month + year[2:], month + day + year[2:]}
            self.tokens |= {f"{year}{month}{day}", f"{day}{month}{year}"}
            self.tokens |= {mark.join(parts) for mark in "-./ " for parts in ((year, month, day), (day, month, year))}


def _in_other_script(group: str) -> bool:
    letters = [c for c in plain(group) if c.isalpha()]
    return len(letters) >= 2 and not any(c.isascii() for c in letters)


def _spellings(name: str) -> set[str]:
    """Other ways to write a name: marks left out, umlauts written out or in, accented letters dropped."""
    letters = "".join(_WORDS.findall(name))
    form = plain(letters)
    found = {letters, plain(letters.translate(_UMLAUTS))}
    found |= {form.replace(pair, pair[0]) for pair in ("AE", "OE", "UE") if len(form) > _SHORTEST}
    dropped = "".join(c for c in letters if c.isascii())
    found |= {dropped} if len(dropped) > _SHORTEST else set()
    return {spelling for spelling in found if len(spelling) >= _SHORTEST and not spelling.isdigit()}


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
    from radia.dicom.profile import table

    rows = (row for row in table() if "x" not in row.tag and row.tag != "private")
    return frozenset(int(row.tag, 16) for row in rows if "clean_descriptors" not in row.options)


def _names_somebody(tag: int) -> bool:
    return tag in _naming()
