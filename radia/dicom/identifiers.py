"""The identifiers of one source file, and looking for them in text, in numbers and in bytes.

What belongs here: every form that a known identifier may take. What does not: patterns that show somebody without
knowing whom (that is `text`), and where identifiers are read from (that is `harvest`).
"""

from __future__ import annotations

import base64
import codecs
import html
import quopri
import re
import struct
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from urllib.parse import unquote

from radia.dicom.text import WORDS, plain, vocabulary

SHORTEST = 4
"""Shorter tokens are looked for as whole words only."""
SHORTEST_NUMBER = 6
"""Shorter numbers too: three figures of a distance are no record number."""
_LEAST_NUMBER = 1000  # 0000100 is a record number; 100 are kilovolts
_SHORTEST_SQUEEZED = 6  # without what stands between their letters
_BEGINNING, _END = 4096, 1024  # bytes of pixel data that are looked at
_LAST = 4  # figures by which people name a longer number among themselves
_LOCAL = 7  # figures of a telephone number within its town
_LEAST_PACKED = 100_000  # the bytes of smaller numbers stand everywhere
_MOST_PIECES = 4
_PIECES = re.compile(r"[A-Z]+|\d+")
_SPELT_OUT = re.compile(r"(?<![A-Z0-9])(?:[A-Z0-9][^A-Z0-9]{1,3}){3,}[A-Z0-9](?![A-Z0-9])")
_WITH_LOOKALIKES = re.compile(r"[A-Z0-9@$!]+")
_LOOKALIKES = str.maketrans("0134578@$!", "OIEASTBASI")
_LIKE_FIGURES = str.maketrans("OQDILZSBG", "000112589")
_VOWELS = (str.maketrans("", "", "AEIOU"), str.maketrans("", "", "AEIOUY"))
_LETTERS_FOR_FIGURES = (str.maketrans("0123456789", "ABCDEFGHIJ"), str.maketrans("1234567890", "ABCDEFGHIJ"))
_WRITTEN = re.compile(rb"[ -\xff]{4,}")  # shades are seldom so long without a byte that no writing has
_PRINTED = re.compile(rb"[ -~]{10,}")


class Identifiers:
    """All that names the patient, the staff, the place or the instance in one source file.

    `tokens` are searched for in bytes and in text wherever they stand, `short` ones as whole words in text. `names`
    are those of persons: they are also looked for reversed, cut short, misspelt and encoded. `dates` (YYYYMMDD) and
    `marks` (initials with a birth year and the like, in plain letters) are looked for in text and numbers alone.
    """

    def __init__(
        self,
        tokens: Iterable[str],
        short: Iterable[str] = (),
        names: Iterable[str] = (),
        *,
        dates: Iterable[str] = (),
        marks: Iterable[str] = (),
    ) -> None:
        names = tuple(names)
        self.tokens = frozenset(token for token in tokens if token)
        self.short = frozenset(plain(token) for token in short)
        self._names = tuple({plain(name) for name in names})
        forms = {plain(token) for token in self.tokens}
        figures = {form for form in forms if form.isdecimal()}
        self._marks = frozenset(marks) | {form[-_LAST:] for form in figures if len(form) >= SHORTEST_NUMBER}
        figures |= {form[-_LOCAL:] for form in figures if len(form) in (10, 11)}  # a telephone number within its town
        figures |= {form for day in dates for form in (day, day[6:] + day[4:6] + day[:4])}
        self.numbers = frozenset(number for number in map(int, figures) if number >= _LEAST_NUMBER)
        """Record, accession and telephone numbers of six figures and more, and dates, as numbers."""
        self._figures = tuple(figures | {form[::-1] for form in figures})
        forms |= {name[::-1] for name in self._names} | figures
        self._forms = tuple(forms)
        self._starts = frozenset(form[:SHORTEST] for form in forms)
        self._brief = tuple(form for form in forms if len(form) < SHORTEST)  # names of two or three signs
        self._written_numbers = frozenset(map(str, self.numbers)) | {form.lstrip("0") for form in self.short}
        self._damaged = tuple(name for name in names if not name.isascii() or _SIGNS.search(name))
        self._always = any(_SIGNS.search(name) for name in self._damaged)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(_damaged_form(name)) for name in self._damaged)

    @cached_property
    def _squeezed(self) -> tuple[str, ...]:
        squeezed = map(_letters, self._forms)
        return tuple({form for form in squeezed if len(form) >= _SHORTEST_SQUEEZED})

    @cached_property
    def _needles(self) -> tuple[bytes, ...]:
        return tuple({piece for token in self.tokens for piece in _encodings(token)})

    @cached_property
    def _packed(self) -> tuple[bytes, ...]:
        return tuple({piece for number in self.numbers if number >= _LEAST_PACKED for piece in _packings(number)})

    @cached_property
    def _disguises(self) -> frozenset[str]:
        found = {form for name in self.names for form in _disguises_of(name)}
        found |= {f"{number:X}" for number in self.numbers if number >= _LEAST_PACKED}
        return frozenset(found | {form.translate(row) for form in self._figures for row in _LETTERS_FOR_FIGURES})

    @cached_property
    def _skeletons(self) -> frozenset[str]:
        without = {name.translate(vowels) for name in self.names for vowels in _VOWELS}
        return frozenset(name for name in without if len(name) >= SHORTEST)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of persons as their letters alone, four and more."""
        return frozenset(name for name in map(_letters, self._names) if len(name) >= SHORTEST)

    def named_in(self, text: str) -> bool:
        """Whether an identifier stands in this text, whatever its case, accents, punctuation and escapes."""
        return self._stands_in(text) or any(map(self._stands_in, _unescaped(text)))

    def _stands_in(self, text: str) -> bool:
        form = plain(text)
        starts = self._starts
        for at in range(len(form) - SHORTEST + 1):
            if form[at : at + SHORTEST] in starts and any(token in form for token in self._forms):
                return True
        if any(token in form for token in self._brief):
            return True
        if self._damaged and (self._always or _ODD_SIGN.search(text)) and self._damaged_in(form):
            return True
        if not self.short and not self._names:
            return False
        words = WORDS.findall(form)
        if not self.short.isdisjoint(words):
            return True
        if len(words) > 1:
            return self._hidden(words) or any(token in run for run in _spelt_out(form) for token in self._forms)
        return False

    def hinted_in(self, text: str) -> bool:
        """Whether text that is no term shows an identifier less openly: cut short, misspelt, encoded, or as initials
        with a birth year.
        """
        return self.abbreviated_in(text) or self.marked_in(text) or self._misspelt_in(text) or self._disguised_in(text)

    def abbreviated_in(self, text: str) -> bool:
        """Whether a word that is no term begins as a person's name does."""
        starts = {name[:SHORTEST] for name in self.names}
        form = plain(text)
        words = {*WORDS.findall(form), *map(_letters, form.split())}
        return any(word[:SHORTEST] in starts for word in words if len(word) >= SHORTEST and word not in vocabulary())

    def marked_in(self, text: str) -> bool:
        """Whether up to four pieces in a row are, together, a mark: initials and a birth year, an account's name, the
        letters of a health insurance number, or a short number of six figures.
        """
        pieces = _PIECES.findall(plain(text))
        for at in range(len(pieces)):
            for end in range(at + 1, min(at + _MOST_PIECES, len(pieces)) + 1):
                joined = "".join(pieces[at:end])
                if joined in self._marks or (len(joined) >= SHORTEST_NUMBER and joined in self.short):
                    return True
        return False

    def _misspelt_in(self, text: str) -> bool:
        """Whether a word that is no term is a name with a letter wrong, without its vowels, turned by thirteen letters
        or with figures that look like letters; or a number with letters that look like figures.
        """
        form = plain(text)
        words = {_letters(word) for word in _WITH_LOOKALIKES.findall(form)} | {_letters(form)}
        unknown = {word for word in words if len(word) >= SHORTEST and word not in vocabulary()}
        candidates = unknown | {word.translate(_LOOKALIKES) for word in unknown if not word.isdigit()}
        turned = {codecs.encode(word, "rot13") for word in candidates}
        if not self.names.isdisjoint(candidates | turned) or not self._skeletons.isdisjoint(candidates):
            return True
        if any(self.figures_in(word.translate(_LIKE_FIGURES)) for word in words if sum(map(str.isdigit, word)) > 2):
            return True
        return any(_one_apart(word, name) for word in candidates for name in self.names)

    def _disguised_in(self, text: str) -> bool:
        squeezed = _letters(plain(text))
        return any(form in squeezed for form in self._disguises)

    def packed_in(self, value: bytes) -> bool:
        """Whether bytes hold an identifier as a binary number: of four or eight bytes, in either order, two figures a
        byte, or as floating point.
        """
        return any(number in value for number in self._packed)

    def numbered_in(self, values: list[str]) -> bool:
        """Whether a number is an identifier, or an identifier's figures stand in it or are spread over several."""
        if not self.short.isdisjoint(values) or not self._written_numbers.isdisjoint(map(_whole_number, values)):
            return True
        return self.figures_in("".join(values))

    def figures_in(self, text: str) -> bool:
        """Whether the figures of a text, whatever stands between them, hold a number or a date of the file."""
        whole = "".join(c for c in text if c.isdigit())
        return any(figures in whole for figures in self._figures)

    def spelled_in(self, codes: Sequence[float]) -> bool:
        """Whether numbers are the codes of letters that name somebody: 84, 114, 101 ... as macros write them."""
        if len(codes) < SHORTEST or any(code != code // 1 or not 1 <= code <= 0xFF for code in codes):
            return False
        letters = bytes(map(int, codes))
        if max(letters) <= 26:  # places in the alphabet
            return self.named_in(bytes(place + 64 for place in letters).decode("ascii"))
        if min(letters) < 0x20:
            return False
        return self.named_in(letters.decode("latin-1")) or self.named_in(letters.decode("utf-8", "replace"))

    def _damaged_in(self, form: str) -> bool:
        """A name whose accents did not come through whole: B?langer, B&eacute;langer, BÃ©langer, B%C3%A9langer."""
        return any(pattern.search(form) for pattern in self._patterns)

    def _hidden(self, words: list[str]) -> bool:
        """Identifiers written with other separators, or none: 411 85 92, O Neill, TREM-BLAY."""
        whole = "".join(words)
        return any(form in whole for form in self._squeezed)

    def stand_in(self, raw: bytes | memoryview) -> bool:
        """Whether an identifier stands in these bytes, in an encoding that a DICOM file may hold it in."""
        if len(raw) < SHORTEST:
            return False
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
        return any(needle in (lines if len(needle) < 6 else searched) for needle in self._needles)

    def stand_in_ends(self, raw: bytes | memoryview) -> bool:
        """The same of the first and last bytes of long pixel data: there streams keep comments and tables, and what no
        decoder reads may follow.
        """
        if len(raw) <= _BEGINNING + _END:
            return self.stand_in_pixels(raw)
        return self.stand_in_pixels(raw[:_BEGINNING]) or self.stand_in_pixels(raw[-_END:])


def _letters(text: str) -> str:
    """Letters and figures alone."""
    return text if text.isalnum() else "".join(WORDS.findall(text))


def _spelt_out(form: str) -> list[str]:
    """Runs of four and more single letters: C-O-T-E."""
    return [_letters(run) for run in _SPELT_OUT.findall(form)]


def _unescaped(text: str) -> set[str]:
    """What a text with the escapes of addresses, pages, mail or programs stands for."""
    if _ESCAPES.isdisjoint(text):
        return set()
    found = set()
    if "%" in text:
        found.add(unquote(text))
    if "&" in text:
        found.add(html.unescape(text))
    if "\\" in text:
        found.add(_ESCAPE.sub(lambda code: chr(int(code[1] or code[2], 16)), text))
    if "=" in text:
        found.add(quopri.decodestring(text.encode("latin-1", "replace")).decode("latin-1"))
    return found - {text}


_ESCAPES = frozenset("%&\\=")
_ESCAPE = re.compile(r"\\(?:[uU]\{?0*([0-9A-Fa-f]{2,4})\}?|[xX']?([0-9A-Fa-f]{2})\\?)")


def _disguises_of(name: str) -> set[str]:
    """Capitals and figures by which a name (plain letters) stands in base64, base32 and hexadecimal."""
    found = {name.encode("utf-16-be").hex().upper()}
    for form in (name, name.title(), name.lower()):
        raw = form.encode("utf-8")
        found |= {raw.hex().upper(), base64.b32encode(raw)[: len(raw) * 8 // 5].decode()}
        for before, start in ((0, 0), (1, 2), (2, 3)):  # bytes in front of the name move its letters
            coded = base64.b64encode(bytes(before) + raw)[start : (before + len(raw)) * 8 // 6]
            found.add(_letters(coded.decode()).upper())
    return {form for form in found if len(form) >= SHORTEST}


def _packings(number: int) -> set[bytes]:
    found = {struct.pack("<d", number), struct.pack("<f", number)} if number < 1 << 64 else set()
    decimal = int(str(number), 16)
    for whole in (number, decimal):
        if whole < 1 << 32:
            high, low = divmod(whole, 1 << 16)
            found |= {struct.pack("<L", whole), struct.pack(">L", whole), struct.pack("<HH", high, low)}
        elif whole < 1 << 64:
            found |= {struct.pack("<Q", whole), struct.pack(">Q", whole)}
    return found


def _alike(word: str, name: str) -> int:
    """How many letters two words have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(word, name, strict=False)) if a != b), min(len(word), len(name)))


def _one_apart(word: str, name: str) -> bool:
    """Whether two words differ by one letter more, less or other, or by two that changed places. Of names of four
    letters, to which many words are near, two must have changed places or one be doubled.
    """
    if abs(len(word) - len(name)) > 1:
        return False
    before = _alike(word, name)
    left, right = word[before:], name[before:]
    behind = _alike(left[::-1], right[::-1])
    left, right = left[: len(left) - behind], right[: len(right) - behind]
    if len(left) == 2 and left == right[::-1]:
        return True
    if len(name) <= SHORTEST:
        return bool(left) and not right and left == word[before - 1]
    return max(len(left), len(right)) <= 1


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
