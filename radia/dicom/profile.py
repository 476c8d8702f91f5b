"""What DICOM PS3.15 annex E says of each attribute, under the options chosen.

What belongs here: the tables (data in `rules/`) and which action follows for a tag. What does not: doing it.
An attribute that neither the table nor the keep-list knows goes: deny by default.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from radia.dicom.container import vr_of
from radia.settings import DeidentifySettings

OPTIONS = (
    "retain_safe_private",
    "retain_uids",
    "retain_device_identity",
    "retain_institution_identity",
    "retain_patient_characteristics",
    "retain_full_dates",
    "retain_modified_dates",
    "clean_descriptors",
    "clean_structured_content",
    "clean_graphics",
)
# CID 7050 (PS3.16): how the output says what was done
_METHODS = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "clean_pixels": ("113101", "Clean Pixel Data Option"),
    "clean_graphics": ("113103", "Clean Graphics Option"),
    "clean_structured_content": ("113104", "Clean Structured Content Option"),
    "clean_descriptors": ("113105", "Clean Descriptors Option"),
    "retain_full_dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "retain_modified_dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "retain_patient_characteristics": ("113108", "Retain Patient Characteristics Option"),
    "retain_device_identity": ("113109", "Retain Device Identity Option"),
    "retain_uids": ("113110", "Retain UIDs Option"),
    "retain_safe_private": ("113111", "Retain Safe Private Option"),
    "retain_institution_identity": ("113112", "Retain Institution Identity Option"),
}


class Action(StrEnum):
    """The action codes of PS3.15 E.3 table E.1-1a, compound ones resolved."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    KEEP = "K"
    CLEAN = "C"
    NEW_UID = "U"


@dataclass(frozen=True)
class Row:
    """One attribute of table E.1-1: its basic action and what each option changes."""

    tag: str
    name: str
    basic: str
    options: dict[str, str]


@dataclass(frozen=True)
class Rule:
    """What to do with one attribute. `check` says which values of a kept one are acceptable; empty: by its VR.

    `dummy`: the attribute needs a value; where its own may not stand, a dummy does.
    """

    action: Action
    check: str = ""
    dummy: bool = False


_GONE = Rule(Action.REMOVE)
# "X unless D is required" and the like (PS3.15 E.3): what CR and DX require of these attributes (PS3.3 A.2, A.26).
_REQUIRED_EMPTY = frozenset({0x00400555})  # Acquisition Context Sequence: type 2
_REPEATING = ((0x50000000, "50xxxxxx"), (0x60004000, "60xx4000"), (0x60003000, "60xx3000"))


def _read(name: str) -> str:
    return (files("radia.dicom") / "rules" / name).read_text(encoding="utf-8")


@cache
def table() -> tuple[Row, ...]:
    """Table E.1-1, every attribute with all ten option columns."""
    return tuple(
        Row(row["tag"], row["name"], row["basic"], {option: row[option] for option in OPTIONS if row[option]})
        for row in csv.DictReader(_read("ps3_15_table_e1_1.csv").splitlines())
    )


@cache
def keep_list() -> dict[int, str]:
    """Attributes outside the table that are kept: tag -> which values are acceptable."""
    return {int(row["tag"], 16): row["check"] for row in csv.DictReader(_read("keep.csv").splitlines())}


@dataclass(frozen=True)
class ContentItem:
    """One concept of table E.3.4-1."""

    basic: str
    options: dict[str, str]


@cache
def content_items() -> dict[tuple[str, str, str], ContentItem]:
    """Table E.3.4-1 (Clean Structured Content): what becomes of a content item, by its concept's code and scheme and by
    the type of its value.
    """
    rows = csv.DictReader(_read("ps3_15_table_e3_4_1.csv").splitlines())
    return {
        (row["code"], row["scheme"], row["value_type"]): ContentItem(
            row["basic"], {option: row[option] for option in OPTIONS if row.get(option)}
        )
        for row in rows
    }


@cache
def safe_private() -> dict[tuple[str, int, int], str]:
    """Table E.3.10-1, numbers and short text: creator, group and last byte of the element -> VR."""
    return {
        (row["creator"], int(row["group"], 16), int(element, 16)): row["vr"]
        for row in csv.DictReader(_read("safe_private.csv").splitlines())
        for element in row["elements"].split()
    }


@cache
def table_sha256() -> str:
    """The digest of all rules: both tables of the standard, the keep-list and the vocabulary."""
    tables = ("ps3_15_table_e1_1.csv", "ps3_15_table_e3_4_1.csv", "keep.csv", "safe_private.csv")
    names = (*tables, "vocabulary.txt", "markers.txt")
    return hashlib.sha256("\0".join(_read(name) for name in names).encode()).hexdigest()


class Profile:
    """The Basic Profile under one choice of options."""

    def __init__(self, settings: DeidentifySettings) -> None:
        self.options = tuple(option for option in OPTIONS if getattr(settings, option))
        self.settings = settings
        self._rules: dict[int, Rule] = {tag: Rule(Action.KEEP, check) for tag, check in keep_list().items()}
        self._repeating: dict[str, Rule] = {}
        for row in table():
            rule = Rule(resolve(row, self.options), _described(row, self.options), dummy=row.basic == "D")
            if len(row.tag) == 8 and "x" not in row.tag:
                self._rules[int(row.tag, 16)] = rule
            else:
                self._repeating[row.tag] = rule

    @property
    def name(self) -> str:
        """The profile and its options in one line, for the audit."""
        chosen = [*self.options, *(["clean_pixels"] if self.settings.clean_pixels else [])]
        return "+".join(["basic", *chosen])

    def methods(self, *, pixels: bool = True) -> list[tuple[str, str]]:
        """De-identification Method codes and meanings of what this profile does to a file with or without pixels."""
        chosen = ["basic", *(["clean_pixels"] if self.settings.clean_pixels and pixels else []), *self.options]
        if "retain_full_dates" in chosen and "retain_modified_dates" in chosen:
            chosen.remove("retain_modified_dates")
        return sorted(_METHODS[name] for name in chosen)

    def rule(self, tag: int) -> Rule:
        """What to do with a tag. Unknown, private and group-length elements go."""
        rule = self._rules.get(tag)
        if rule is not None:
            return rule
        if tag >> 28 in (5, 6):
            for pattern, name in _REPEATING:
                if tag & 0xFF00FFFF == pattern or (name == "50xxxxxx" and tag & 0xFF000000 == pattern):
                    return self._repeating[name]
        return _GONE

    def content_action(self, code: str, scheme: str, value_type: str) -> Action | None:
        """What to do with a content item of structured content; None where table E.3.4-1 does not know the concept."""
        item = content_items().get((code, scheme, value_type))
        if item is None:
            return None
        return resolve(Row("", "", item.basic, item.options), self.options)

    def digest(self) -> str:
        """Tells one way of cleaning from another: rules and options."""
        return hashlib.sha256(json.dumps([self.name, table_sha256()]).encode()).hexdigest()


def _described(row: Row, options: tuple[str, ...]) -> str:
    """What may stand in an attribute kept for what it says of a patient in general: it must not say who that is."""
    option = "retain_patient_characteristics"
    if option not in options or row.options.get(option) != "K" or not row.tag.isalnum() or "x" in row.tag:
        return ""
    return {"CS": "term", "SH": "scan", "LO": "scan"}.get(vr_of(int(row.tag, 16)), "")


def resolve(row: Row, options: tuple[str, ...]) -> Action:
    """The one action for an attribute. Keeping wins over cleaning, both over the basic action."""
    chosen = [option for option in options if option in row.options]
    if "retain_modified_dates" in chosen and "retain_full_dates" not in chosen:
        return Action.CLEAN  # a date that another option keeps is moved like all others
    changes = {row.options[option] for option in chosen}
    if "K" in changes:
        return Action.KEEP
    if "C" in changes:
        return Action.CLEAN
    return _basic(row)


def _basic(row: Row) -> Action:
    codes = row.basic.rstrip("*").split("/")
    if len(codes) == 1:
        return Action(codes[0])
    if "U" in codes:
        return Action.NEW_UID
    if codes[0] == "Z" or (row.tag.isalnum() and "x" not in row.tag and int(row.tag, 16) in _REQUIRED_EMPTY):
        return Action.EMPTY
    return Action.REMOVE
