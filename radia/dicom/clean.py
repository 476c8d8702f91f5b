"""Cleaning a data set by the rules of its profile, element by element, at every depth.

What belongs here: what each action means for each kind of value. What does not: which action (that is `profile`), which
text may stand (`text`), pixels (`burned_in`, `codestream`).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from pydicom._uid_dict import UID_dictionary

from radia.dicom.container import PIXEL_DATA, Buffer, Dataset, Element, encode_element, vr_of
from radia.dicom.dates import shift_date, shift_datetime, valid_time, years_between
from radia.dicom.harvest import decoded, encodings_of
from radia.dicom.identifiers import Identifiers
from radia.dicom.profile import Action, Profile, Rule, safe_private
from radia.dicom.pseudonyms import Pseudonymizer
from radia.dicom.text import few_figures, in_vocabulary, passes_scan

_PATIENT_ID, _PATIENT_NAME, _CHARSET = 0x00100020, 0x00100010, 0x00080005
_AGE, _BIRTH_DATE, _STUDY_DATE = 0x00101010, 0x00100030, 0x00080020
_LUT, _LUT_DATA = 0x00283002, 0x00283006
_CODE_VALUE, _CODE_SCHEME, _CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
_CODE_VALUES = (_CODE_VALUE, 0x00080119, 0x00080120)  # short, long, or a URN
_CONCEPT_NAME, _VALUE_TYPE, _TEXT_VALUE, _VERIFYING_OBSERVER = 0x0040A043, 0x0040A040, 0x0040A160, 0x0040A073
_PERFORMED_STEP = 0x00081111
_STANDARD_CODES = {
    scheme: re.compile(form)
    for schemes, form in (
        ("SCT", r"[1-9]\d{5,17}"), ("SRT SNM3", r"[A-Z]{1,2}\d?-[0-9A-F]{4,6}"), ("DCM", r"\d{6}"),
        ("LN", r"(?:LA|LP)?\d{1,7}-\d"), ("RADLEX", r"RP?ID\d{1,6}"), ("RADELEMENT", r"RDES?\d{1,5}(?:\.\d{1,2})?"),
        ("FMA", r"\d{2,6}"), ("NCIt", r"C\d{3,6}"), ("UMLS", r"C\d{7}"), ("UCUM", r"[A-Za-z%{}\[\]()/.*'^0-9+-]{1,16}"),
        ("I9", r"[EV]?\d{2,3}(?:\.\d{1,2})?"), ("I10 ICD10", r"[A-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,4})?"),
    )
    for scheme in schemes.split()
}  # fmt: skip
"""Schemes that name no local thing, and the form of their codes; other text under their name is one of theirs only
where DICOM itself uses it."""
_OLDEST = 90
_NUMBER = {
    "IS": re.compile(rb" *[+-]?\d{1,12} *\Z"),
    "DS": re.compile(rb" *[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})? *\Z"),
}
_BINARY = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "SV": 8, "UV": 8, "AT": 4}
_COUNTED = {
    "US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "SV": "q", "UV": "Q", "AT": "L"
}  # fmt: skip
_SMALLEST = 4  # bytes that can hold a number of six figures, or four letters
_COUNTABLE = 64  # numbers whose figures are read one after the other; a histogram has more
_WHOLE_FIGURES = 8  # of a number: more than any measure of a radiograph has; a date or a telephone number has them
_FIGURES_OF_TERMS = 1  # of the numbers in a term of the vocabulary that cannot be a year or a day of birth
_WRITABLE = 256  # bytes of numbers that are also read as letters
_SPLIT_TEXT = frozenset(["LO", "SH", "PN", "AE", "CS", "UC"])
_WHOLE_TEXT = frozenset(["ST", "LT", "UT", "UR"])
_AGE_FORM = re.compile(r"(\d{3})([DWMY])\Z")
_CODE_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-_]{0,63}\Z")
_UID_FORM = re.compile(rb"(?:[0-9.]{1,64}\\)*[0-9.]{1,64}\Z")
_DUMMIES = {
    "AE": b"REMOVED", "AS": b"000Y", "CS": b"REMOVED", "DA": b"19000101", "DS": b"0", "DT": b"19000101000000",
    "IS": b"0", "LO": b"REMOVED", "LT": b"REMOVED", "PN": b"REMOVED", "SH": b"REMOVED", "ST": b"REMOVED",
    "TM": b"000000", "UC": b"REMOVED", "UR": b"REMOVED", "UT": b"REMOVED",
}  # fmt: skip
# An element sent with another of these VRs than the dictionary's holds the same kind of value.
_KINDS = ({"US", "SS", "OW"}, {"OB", "OW"}, {"LO", "SH", "ST", "LT", "UT", "UC", "PN", "CS", "AE"}, {"DS", "IS"})


@dataclass
class Cleaner:
    """Cleans the data set of one file. `actions` says what was done, by the path of tags, without values."""

    profile: Profile
    pseudonymizer: Pseudonymizer
    patient: str
    identifiers: Identifiers
    actions: dict[str, str] = field(default_factory=dict)
    made: set[bytes] = field(default_factory=set)
    """Values of our own: names, new UIDs, moved dates. By chance they may resemble an identifier."""

    def __post_init__(self) -> None:
        self.days = self.pseudonymizer.date_offset(self.patient)
        self.made.add(self.patient.encode())
        self._keeps_private = "retain_safe_private" in self.profile.options

    def clean(self, dataset: Dataset, *, pixels: bool = True) -> Dataset:
        """The top level: the same rules as everywhere, and what tells of the cleaning (PS3.15 E.1.1)."""
        kept = self._dataset(dataset, ["iso8859"], "")
        self._identity(kept, dataset)
        self._age(kept, dataset)
        self._says_cleaned(kept, pixels=pixels)
        if not pixels and _PERFORMED_STEP in dataset.elements:
            kept.elements[_PERFORMED_STEP] = Element(_PERFORMED_STEP, "SQ", items=[])  # reports require it, if empty
        return kept

    # --- any level

    def _dataset(self, dataset: Dataset, inherited: list[str], path: str) -> Dataset:
        encodings = encodings_of(dataset, inherited)
        kept = Dataset()
        for tag, element in dataset.elements.items():
            if tag in (_CHARSET, PIXEL_DATA):
                continue
            if tag & 0x10000 and self._keeps_private and self._safe_private(element, dataset, kept):
                self.actions[f"{path}{tag:08X}"] = Action.CLEAN
                continue
            rule = self.profile.rule(tag)
            result, did = self._element(element, rule, encodings, path)
            if tag & 0xFFFF:  # group lengths go without saying
                self.actions[f"{path}{tag:08X}"] = did
            if result is not None:
                kept.elements[tag] = result
        return kept

    def _element(self, element: Element, rule: Rule, encodings: list[str], path: str) -> tuple[Element | None, Action]:
        vr = vr_of(element.tag)
        action = rule.action
        if action is Action.REMOVE:
            return None, action
        if not _same_kind(element, vr):
            return (Element(element.tag, vr), Action.EMPTY) if action is Action.EMPTY else (None, Action.REMOVE)
        if action is Action.EMPTY:
            return Element(element.tag, vr, items=[] if vr == "SQ" else None), action
        if action is Action.DUMMY:
            return self._dummy(element, vr, encodings, path), action
        if vr == "SQ":
            return self._sequence(element, encodings, path), action
        if action is Action.NEW_UID:
            return self._new_uids(element), action
        value = self._value(element, vr, rule, encodings)
        if rule.dummy and not value and len(element.value):
            return self._dummy(element, vr, encodings, path), Action.DUMMY
        if value is None:
            return None, Action.REMOVE
        return Element(element.tag, _real_vr(element, vr), value), action

    def _safe_private(self, element: Element, dataset: Dataset, kept: Dataset) -> bool:
        """Keeps a private number or term that is known to be safe, with its creator. Bytes and prose go even so."""
        block = element.tag >> 8 & 0xFF
        if block < 0x10:
            return False
        creator_tag = element.tag & 0xFFFF0000 | block
        creator = dataset.text(creator_tag)
        vr = safe_private().get((creator, element.tag >> 16, element.tag & 0xFF))
        if vr is None or element.vr not in (vr, "UN"):
            return False
        value = self._value(Element(element.tag, vr, element.value), vr, Rule(Action.KEEP, "term"), ["iso8859"])
        if not value:
            return False
        kept.elements[creator_tag] = Element(creator_tag, "LO", creator.encode())
        kept.elements[element.tag] = Element(element.tag, vr, value)
        return True

    def _content_item(self, item: Dataset) -> bool:
        """Whether an item of structured content may stay, by its concept; inside, each attribute has its own rule."""
        concept = item.elements.get(_CONCEPT_NAME)
        if concept is None:
            return True  # no content item: the rules of its attributes suffice
        named = (concept.items or [Dataset()])[0]
        value_type = item.text(_VALUE_TYPE)
        action = self.profile.content_action(named.text(_CODE_VALUE), named.text(_CODE_SCHEME), value_type)
        if action is Action.REMOVE:
            return False
        if "clean_structured_content" in self.profile.options:
            return True
        return action is not Action.DUMMY and value_type in ("NUM", "CODE", "NUMERIC")

    def _sequence(self, element: Element, encodings: list[str], path: str) -> Element:
        path = f"{path}{element.tag:08X}/"
        kept = []
        for item in element.items or ():
            if not self._content_item(item):
                continue
            cleaned = self._dataset(item, encodings, path)
            if cleaned.elements and _usable_lut(cleaned) and self._whole_code(item, cleaned):
                self._mend_content(item, cleaned)
                kept.append(cleaned)
        return Element(element.tag, "SQ", items=kept)

    def _whole_code(self, item: Dataset, kept: Dataset) -> bool:
        """Whether an item is no code, or still one. A meaning that may not stand becomes the code's known one."""
        if not any(tag in item.elements for tag in _CODE_VALUES):
            return True
        value = next((kept.text(tag) for tag in _CODE_VALUES if kept.text(tag)), "")
        scheme = kept.text(_CODE_SCHEME)
        if not value or (item.text(_CODE_SCHEME) and not scheme):
            return False
        form = _STANDARD_CODES.get(scheme)
        if form is None and not passes_scan(value, self.identifiers):
            return False
        if form is not None and not form.fullmatch(value) and (scheme, value) not in _known_meanings():
            return False
        if _CODE_MEANING in item.elements and not kept.text(_CODE_MEANING):
            meaning = _known_meanings().get((scheme, value), value)
            kept.add(Element(_CODE_MEANING, "LO", meaning.encode()))
        return True

    def _mend_content(self, item: Dataset, kept: Dataset) -> None:
        """A text of structured content that may not stand becomes a dummy: without one the item would be invalid."""
        if item.text(_VALUE_TYPE) == "TEXT" and not kept.text(_TEXT_VALUE):
            kept.add(Element(_TEXT_VALUE, "UT", _DUMMIES["UT"]))

    def _new_uids(self, element: Element) -> Element:
        values = element.raw.decode("latin-1").split("\\")
        mapped = [value if value in UID_dictionary or not value else self.pseudonymizer.uid(value) for value in values]
        self.made.update(value.encode() for value in mapped if value)
        return Element(element.tag, "UI", "\\".join(mapped).encode())

    def _dummy(self, element: Element, vr: str, encodings: list[str], path: str) -> Element | None:
        if vr == "SQ":
            if element.tag == _VERIFYING_OBSERVER:  # whoever verified: each attribute in it has a dummy of its own
                return self._sequence(element, encodings, path)
            return Element(element.tag, "SQ", items=[Dataset()])
        if element.tag in (_PATIENT_ID, _PATIENT_NAME):
            return Element(element.tag, vr, self.patient.encode())
        if vr == "UI":
            return self._new_uids(element)
        size = _BINARY.get(vr)
        if size:
            return Element(element.tag, vr, bytes(size))
        return Element(element.tag, vr, _DUMMIES.get(vr, b"\0\0"))

    # --- kept values

    def _value(self, element: Element, vr: str, rule: Rule, encodings: list[str]) -> bytes | memoryview | None:
        """The value as it may stand, or None where it may not."""
        if not len(element.value):
            return b""
        if vr in ("DA", "DT", "TM"):
            return self._temporal(element, vr, rule)
        if vr == "AS":
            return _capped_age(element.raw)
        if vr == "UI":
            return self._kept_uids(element, rule)
        if vr in _NUMBER:
            return self._numbers(element.raw, vr)
        if vr in _BINARY:
            return element.value if self._harmless(element.value, vr) else None
        if vr in ("OW", "OB"):
            acceptable = rule.check == "lut" and _is_curve(element.value)
            return element.value if acceptable and not self.identifiers.stand_in(element.value) else None
        if vr in _SPLIT_TEXT or vr in _WHOLE_TEXT:
            return self._text(decoded(element.raw, encodings), vr, rule)
        return None

    def _harmless(self, value: Buffer, vr: str) -> bool:
        """Whether binary numbers are whole, spell no identifier and are none."""
        if len(value) % _BINARY[vr]:
            return False
        if len(value) < _SMALLEST:
            return True
        if self.identifiers.stand_in(value):
            return False
        start = bytes(value[:_WRITABLE])
        if self._spells(start) or self._spells(np.frombuffer(start, ">u2").astype("<u2").tobytes()):
            return False  # in the order of this file, and in that of another
        if not self.identifiers.numbers:
            return True
        held = struct.unpack(f"<{len(value) // _BINARY[vr]}{_COUNTED[vr]}", value)
        if vr in ("UL", "SL", "FL", "FD", "SV", "UV") and not self.identifiers.numbers.isdisjoint(held):
            return False
        figures = [f"{number:.7g}" if vr == "FL" else repr(number) for number in held[:_COUNTABLE]]
        if self.identifiers.packed_in(start) or any(map(self.identifiers.figures_in, figures)):
            return False
        if len(held) <= _COUNTABLE and self.identifiers.figures_in("".join(figures)):
            return False
        return not self.identifiers.spelled_in(held)

    def _spells(self, raw: bytes) -> bool:
        """Whether bytes that read as letters name somebody."""
        letters = raw.replace(b"\0", b"").decode("latin-1")
        if len(letters) <= 3 or not letters.isprintable():
            return False
        return self.identifiers.named_in(letters) or self.identifiers.abbreviated_in(letters)

    def _numbers(self, raw: bytes, vr: str) -> bytes | None:
        parts = raw.split(b"\\")
        for part in parts:
            number = part.strip()
            if number and (not _NUMBER[vr].match(part) or len(number.split(b".")[0].lstrip(b"+-0")) >= _WHOLE_FIGURES):
                return None
        written = [part.decode().strip() for part in parts]
        if self.identifiers.numbered_in(written):
            return None
        return None if self.identifiers.spelled_in([float(value) for value in written if value]) else raw

    def _temporal(self, element: Element, vr: str, rule: Rule) -> bytes | None:
        values = element.raw.decode("latin-1").split("\\")
        if vr == "TM":
            valid = all(map(valid_time, values)) and not self.identifiers.numbered_in(values)
            return element.raw if valid else None
        if rule.action is Action.KEEP and not rule.check:
            valid = all((shift_date if vr == "DA" else shift_datetime)(value, 0) is not None for value in values)
            return element.raw if valid else None
        moved = [(shift_date if vr == "DA" else shift_datetime)(value, self.days) for value in values]
        if None in moved or (vr == "DT" and self.identifiers.numbered_in([value[8:] for value in values])):
            return None
        self.made.update(value.encode() for value in map(str, moved) if value)
        return "\\".join(map(str, moved)).encode()

    def _kept_uids(self, element: Element, rule: Rule) -> bytes:
        if rule.action is Action.KEEP and not rule.check and _UID_FORM.match(element.raw):  # the table's K: retain UIDs
            return element.raw
        return bytes(self._new_uids(element).value)

    def _text(self, text: str, vr: str, rule: Rule) -> bytes | None:
        values = [text] if vr in _WHOLE_TEXT else text.split("\\")
        if len(values) > 1 and not self._together(text, rule):
            return None
        good = [value.strip() if self._may_stand(value.strip(), rule) else "" for value in values]
        if not any(good):
            return b""
        return "\\".join(good).encode("utf-8")

    def _together(self, text: str, rule: Rule) -> bool:
        """Whether values may stand side by side: a name or a number can be spread over several."""
        joined = text.replace("\\", " ")
        if self.identifiers.named_in(text) or self.identifiers.named_in(joined):
            return False
        return rule.check not in ("term", "words") or few_figures(joined)

    def _may_stand(self, value: str, rule: Rule) -> bool:
        if not value:
            return True
        if self.identifiers.named_in(value):
            return False
        if in_vocabulary(value):
            return few_figures(value, _FIGURES_OF_TERMS) or not self.identifiers.marked_in(value)
        if rule.action is Action.KEEP and not rule.check:
            return True  # the table's K: what the option keeps stays as it is
        if rule.check in ("term", "words"):
            return False
        if rule.check == "code":
            return bool(_CODE_FORM.match(value)) and not self.identifiers.hinted_in(value)
        return passes_scan(value, self.identifiers, of_a_maker=rule.check == "vendor")

    # --- the top level

    def _identity(self, kept: Dataset, source: Dataset) -> None:
        for tag in (_PATIENT_ID, _PATIENT_NAME):
            kept.add(Element(tag, vr_of(tag), self.patient.encode()))
            self.actions[f"{tag:08X}"] = Action.DUMMY
        if _BIRTH_DATE in source.elements:
            kept.add(Element(_BIRTH_DATE, "DA"))

    def _age(self, kept: Dataset, source: Dataset) -> None:
        if not self.profile.settings.retain_patient_characteristics or _AGE in kept.elements:
            return
        years = years_between(source.text(_BIRTH_DATE), source.text(_STUDY_DATE))
        if years is not None:
            kept.add(Element(_AGE, "AS", f"{min(years, _OLDEST):03d}Y".encode()))

    def _says_cleaned(self, kept: Dataset, *, pixels: bool) -> None:
        settings = self.profile.settings
        kept.add(Element(_CHARSET, "CS", b"ISO_IR 192"))
        kept.add(Element(0x00120062, "CS", b"YES"))
        kept.add(Element(0x00120063, "LO", b"RADIA, DICOM PS3.15 Annex E"))
        methods = [_code(value, meaning) for value, meaning in self.profile.methods(pixels=pixels)]
        kept.add(Element(0x00120064, "SQ", items=methods))
        self.made.update(b"".join(encode_element(kept.elements[tag])) for tag in (0x00120062, 0x00120063, 0x00120064))
        dates = (
            "UNMODIFIED" if settings.retain_full_dates else "MODIFIED" if settings.retain_modified_dates else "REMOVED"
        )
        kept.add(Element(0x00280303, "CS", dates.encode()))
        if settings.clean_pixels and pixels:
            kept.add(Element(0x00280301, "CS", b"NO"))


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    for tag, vr, text in ((0x00080100, "SH", value), (0x00080102, "SH", "DCM"), (0x00080104, "LO", meaning)):
        item.add(Element(tag, vr, text.encode()))
    return item


def _usable_lut(item: Dataset) -> bool:
    return _LUT not in item.elements or _LUT_DATA in item.elements


def _is_curve(value: Buffer) -> bool:
    """Whether bytes are entries of a table that rises or falls, as tables of shades do. Writing does neither."""
    if len(value) > 1 << 18:
        return False
    for width in ("<u2", "u1"):
        if len(value) % np.dtype(width).itemsize:
            continue
        steps = np.diff(np.frombuffer(value, width).astype(np.int32))
        if (steps >= 0).all() or (steps <= 0).all():
            return True
    return False


@cache
def _known_meanings() -> dict[tuple[str, str], str]:
    """What the codes of DICOM's context groups mean, by scheme and value (PS3.16)."""
    from pydicom.sr import _concepts_dict

    schemes: dict[str, dict[str, dict[str, tuple[str, list[int]]]]] = _concepts_dict.concepts  # type: ignore[assignment]
    return {
        (scheme, value): meaning
        for scheme, terms in schemes.items()
        for codes in terms.values()
        for value, (meaning, _) in codes.items()
    }


def _same_kind(element: Element, vr: str) -> bool:
    if (element.items is not None) != (vr == "SQ"):
        return False
    return element.vr == vr or any(element.vr in kind and vr in kind for kind in _KINDS)


def _real_vr(element: Element, vr: str) -> str:
    """The dictionary's VR; of US or SS, and of OB or OW, the one that the source used."""
    return element.vr if {element.vr, vr} in ({"US", "SS"}, {"US", "OW"}, {"OB", "OW"}) else vr


def _capped_age(raw: bytes) -> bytes | None:
    found = _AGE_FORM.match(raw.decode("latin-1").strip())
    if not found:
        return None
    count, unit = int(found[1]), found[2]
    return f"{_OLDEST:03d}Y".encode() if unit == "Y" and count > _OLDEST else f"{count:03d}{unit}".encode()
