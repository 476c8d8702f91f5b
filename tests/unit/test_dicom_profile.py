"""Table E.1-1 under every option, every attribute, at depths 0, 1 and 3. Expected: the table, read anew."""

from __future__ import annotations

import csv
from importlib.resources import files
from itertools import chain, product

import pytest
from pydicom.datadict import dictionary_VR

from radia.dicom.clean import Cleaner
from radia.dicom.container import Dataset, Element, vr_of
from radia.dicom.dates import shift_date, shift_datetime
from radia.dicom.identifiers import Identifiers
from radia.dicom.profile import OPTIONS, Profile, safe_private, table_sha256
from radia.dicom.pseudonyms import Pseudonymizer
from radia.settings import DeidentifySettings

ROWS = list(csv.DictReader((files("radia.dicom") / "rules" / "ps3_15_table_e1_1.csv").read_text().splitlines()))
PSEUDONYMS = Pseudonymizer(bytes(range(32)))
OURS = {"00100010", "00100020", "00100030", "00080005", "00120062", "00120063", "00120064", "00280301", "00280303"}
# what a compound action comes to for CR and DX (PS3.15 E.3: X unless the IOD requires otherwise)
COMPOUND = {"X/D": "X", "X/Z": "X", "X/Z/D": "X", "Z/D": "Z", "X/Z/U*": "U"}
VALUES = {
    "PN": b"Tremblay^Luc", "LO": b"THORAX", "SH": b"THORAX", "ST": b"THORAX", "LT": b"THORAX", "UT": b"THORAX",
    "UC": b"THORAX", "CS": b"CHEST", "AE": b"PACS1 ", "UI": b"1.2.3.4.5.6", "DA": b"20240229", "TM": b"235959.5",
    "DT": b"20240229235959.5", "IS": b"7 ", "DS": b"7.5 ", "AS": b"045Y", "UR": b"http://x", "US": b"\7\0",
    "UL": b"\7\0\0\0", "SS": b"\7\0", "SL": b"\7\0\0\0", "FL": b"\0\0\x80?", "FD": b"\0\0\0\0\0\0\xf0?",
    "OB": b"\1\2", "OW": b"\1\2", "UN": b"\1\2", "AT": b"\x10\0\x10\0", "OF": b"\0\0\x80?", "OL": b"\1\0\0\0",
    "OD": b"\0\0\0\0\0\0\xf0?", "SV": b"\7\0\0\0\0\0\0\0", "UV": b"\7\0\0\0\0\0\0\0",
}  # fmt: skip


def options_alone(option: str | None) -> DeidentifySettings:
    off = dict.fromkeys(OPTIONS, False)
    return DeidentifySettings(**{**off, **({option: True} if option else {})})


CLEANERS = {
    option: Cleaner(Profile(options_alone(option)), PSEUDONYMS, "PBCDF", Identifiers(["Tremblay"]))
    for option in (None, *OPTIONS)
}


def sample(tag: int) -> Element:
    vr = vr_of(tag)
    if vr == "SQ":
        item = Dataset()
        item.add(Element(0x00080060, "CS", b"DX"))
        return Element(tag, "SQ", items=[item])
    return Element(tag, vr, VALUES[vr])


def nested(element: Element, depth: int) -> Dataset:
    """The element inside `depth` sequences that are kept."""
    dataset = Dataset()
    dataset.add(element)
    for _ in range(depth):
        outer = Dataset()
        outer.add(Element(0x00082218, "SQ", items=[dataset]))
        dataset = outer
    return dataset


def found(dataset: Dataset, tag: int, depth: int) -> Element | None:
    for _ in range(depth):
        sequence = dataset.elements.get(0x00082218)
        if sequence is None or not sequence.items:
            return None
        dataset = sequence.items[0]
    return dataset.elements.get(tag)


def expected_action(row: dict[str, str], option: str | None) -> str:
    changed = row[option] if option else ""
    basic = "Z" if row["tag"] == "00400555" else COMPOUND.get(row["basic"], row["basic"])
    return changed or basic


def problem(row: dict[str, str], option: str | None, depth: int) -> str | None:
    """What is wrong with one attribute under one option at one depth; None where all is right."""
    tag = int(row["tag"], 16)
    before = sample(tag)
    after = found(CLEANERS[option].clean(nested(before, depth)), tag, depth)
    action, vr = expected_action(row, option), vr_of(tag)
    empty = after is not None and not len(after.value) and not after.items
    wrong = {
        "X": after is not None,
        "Z": not empty,
        "D": after is None or empty or bytes(after.value) == bytes(before.value),
        "U": after is None or not after.raw.startswith(b"2.25."),
    }
    if vr == "SQ":
        wrong |= {
            "D": after is None or after.items is None or len(after.items) != 1,
            "U": after is None or not after.items,
        }
    if action in wrong:
        return f"{action}: {after}" if wrong[action] else None
    if vr == "PN":  # the option keeps the attribute, but the sample's name is this patient's
        return None if after is None or not after.raw else "the patient's name was kept"
    if vr == "SQ" or vr in ("UN", "OB", "OW"):
        return None if vr != "SQ" or (after is not None and after.items) else "sequence lost"
    if vr == "UR":
        return None if after is None or not after.raw else "an address was kept"
    if action == "C" and vr in ("DA", "DT"):
        days = PSEUDONYMS.date_offset("PBCDF")
        moved = (shift_date if vr == "DA" else shift_datetime)(VALUES[vr].decode(), days)
        return None if after is not None and after.raw.decode() == moved else "date not moved"
    return None if after is not None and after.raw == before.raw.strip() else f"{action}: not kept"


@pytest.mark.parametrize("row", [r for r in ROWS if r["tag"].isalnum() and len(r["tag"]) == 8 and "x" not in r["tag"]],
                         ids=lambda row: row["tag"])  # fmt: skip
def test_each_attribute_follows_the_table_under_each_option_at_each_depth(row: dict[str, str]) -> None:
    if row["tag"] in OURS or row["tag"].startswith("0002") or row["tag"].startswith("0000"):
        pytest.skip("rewritten by the engine itself; see test_dicom_clean.py")
    cases = chain.from_iterable(((option, depth) for depth in (0, 1, 3)) for option in (None, *OPTIONS))
    problems = {case: found for case in cases if (found := problem(row, *case))}
    assert problems == {}


PATTERNS = {
    "50xxxxxx": (0x50003000, 0x50000022, 0x501E2500),
    "60xx3000": (0x60003000, 0x60FE3000),
    "60xx4000": (0x60004000, 0x601E4000),
    "private": (0x00291010, 0x00090010, 0x7FE11001, 0x00331008),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_repeating_group_and_private_attribute_follows_the_table_too(pattern: str) -> None:
    """Under Clean Graphics their text is scanned as all text is, and their bits stay only after a look at the plane;
    private attributes stay under Safe Private alone, and only those that are known to be safe.
    """
    row = next(row for row in ROWS if row["tag"] == pattern)
    asked = {option for option in OPTIONS if row[option]}
    assert row["basic"] == "X"
    assert asked == ({"retain_safe_private"} if pattern == "private" else {"clean_graphics"})
    for tag, option, depth in product(PATTERNS[pattern], (None, *OPTIONS), (0, 1, 3)):
        for said in (b"THORAX", b"Tremblay"):
            vr = {"4000": "LT", "0022": "LO", "2500": "LO", "1010": "LO"}.get(f"{tag & 0xFFFF:04X}", "OW")
            after = found(CLEANERS[option].clean(nested(Element(tag, vr, said), depth)), tag, depth)
            may_stay = option == "clean_graphics" and option in asked and vr != "OW" and said == b"THORAX"
            assert after is None or not after.raw or may_stay, (hex(tag), option, depth)


class TestTheTable:
    def test_has_every_attribute_and_all_ten_option_columns(self) -> None:
        assert len(ROWS) == 657
        assert set(OPTIONS) < set(ROWS[0])
        assert {r["tag"] for r in ROWS} >= {"00100010", "00100020", "0020000D", "private", "60xx3000"}

    def test_names_only_known_actions(self) -> None:
        assert {r["basic"] for r in ROWS} == {"X", "Z", "D", "U", *COMPOUND}
        assert {r[option] for r in ROWS for option in OPTIONS} == {"", "K", "C"}

    def test_covers_every_person_name_of_the_dictionary_by_removing_it(self) -> None:
        from pydicom.datadict import DicomDictionary

        names = [tag for tag, entry in DicomDictionary.items() if entry[0] == "PN"]
        rule = CLEANERS[None].profile.rule
        kept = [tag for tag in names if rule(tag).action in ("K", "C") and dictionary_VR(tag) == "PN"]
        assert kept == []

    def test_has_a_digest_that_every_outcome_records(self) -> None:
        assert len(table_sha256()) == 64


class TestWhatNoRuleKnows:
    def test_goes(self) -> None:
        rule = CLEANERS[None].profile.rule
        assert {rule(tag).action for tag in (0x00189FFE, 0x00091010, 0x77770010, 0x00080000)} == {"X"}


class TestSafePrivateAttributes:
    """Table E.3.10-1: kept under their creator alone, and only what is a number or a term."""

    @staticmethod
    def private(creator: str, group: int, number: int, vr: str, value: bytes, block: int = 0x10) -> Dataset:
        dataset = Dataset()
        dataset.add(Element(group << 16 | block, "LO", creator.encode()))
        dataset.add(Element(group << 16 | block << 8 | number, vr, value))
        return dataset

    def test_each_is_kept_with_its_creator_and_without_it_goes(self) -> None:
        cleaner = CLEANERS["retain_safe_private"]
        wrong = []
        for (creator, group, number), vr in safe_private().items():
            value = b"CHEST" if vr in ("CS", "LO", "SH") else VALUES[vr]
            tags = {group << 16 | 0x11, group << 16 | 0x1100 | number}
            kept = cleaner.clean(self.private(creator, group, number, vr, value, 0x11)).elements
            other = cleaner.clean(self.private("ACME", group, number, vr, value, 0x11)).elements
            if not tags <= set(kept) or tags & set(other):
                wrong.append((creator, hex(group), hex(number)))
        assert wrong == []
        assert len(safe_private()) == 387

    def test_of_the_list_go_without_the_option(self) -> None:
        dataset = self.private("GEMS_PARM_01", 0x0043, 0x6F, "DS", b"1.5 ")
        assert not any(tag >> 16 & 1 for tag in CLEANERS[None].clean(dataset).elements)

    @pytest.mark.parametrize(
        ("vr", "value"),
        [("LO", b"Tremblay"), ("LO", b"de la voisine"), ("OB", b"Tremblay"), ("DS", b"Tremblay"), ("DS", b"20240229")],
    )
    def test_that_hold_something_else_go(self, vr: str, value: bytes) -> None:
        for creator, group, number in (("GEMS_ACQU_01", 0x0019, 0x9E), ("GEMS_PARM_01", 0x0043, 0x6F)):
            dataset = self.private(creator, group, number, vr, value)
            kept = CLEANERS["retain_safe_private"].clean(dataset).elements
            assert not any(tag >> 16 & 1 for tag in kept)


def test_a_date_that_two_options_keep_is_moved_with_the_others() -> None:
    both = Profile(DeidentifySettings(retain_device_identity=True, retain_modified_dates=True))
    full = Profile(DeidentifySettings(retain_device_identity=True, retain_full_dates=True))
    assert both.rule(0x00181200).action == "C"
    assert full.rule(0x00181200).action == "K"
