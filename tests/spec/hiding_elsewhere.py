"""Hard files of hospitals elsewhere: other countries' numbers and addresses, other makers' habits, other disguises.

Registers its kinds beside those of `hidden_places`; whoever imports KINDS from here has them all. They were written
before the code was tried on them.
"""

from __future__ import annotations

import base64
import codecs
import random
import struct
from collections.abc import Callable

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from radia.dicom import container
from radia.dicom.text import plain
from tests.spec.hard_files import KINDS, HardFile, Person, _code, _reference, _text, pixels, put_raw
from tests.spec.hidden_places import RENAMING, SYNTAXES, _called, _kind, _known_before, _renaming, _said, build, leaked

__all__ = ["KINDS", "RENAMING", "SYNTAXES", "build", "leaked", "pixels"]


# --- the patient, in a disguise ---------------------------------------------------------------------------------------


def _initials(p: Person) -> str:
    return plain(p.first)[0] + plain(p.last)[0]


def _ramq(p: Person) -> str:
    """A Quebec health insurance number as it is formed from the name, the birth date and, of women, 50 months."""
    letters = "".join(c for c in plain(p.last) if c.isalpha())
    return f"{letters[:3]}{plain(p.first)[0]}{p.birth[2:4]}{int(p.birth[4:6]) + 50}{p.birth[6:]}16"


def _julian(p: Person) -> str:
    from datetime import date

    born = date(int(p.birth[:4]), int(p.birth[4:6]), int(p.birth[6:]))
    return f"{born.year}{born.timetuple().tm_yday:03d}"


def _misspelt(name: str) -> str:
    """Two letters exchanged, as typing does."""
    letters = [c for c in plain(name) if c.isalpha()]
    letters[2], letters[3] = letters[3], letters[2]
    return "".join(letters)


_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
DISGUISES: dict[str, Callable[[Person], str]] = {
    "initials and birth year": lambda p: f"{_initials(p)}{p.birth[:4]}",
    "initials with points and birth year": lambda p: f"{_initials(p)[0]}.{_initials(p)[1]}. {p.birth[:4]}",
    "initials and birth day": lambda p: f"{_initials(p)[::-1]}{p.birth[2:]}",
    "initials and short birth year": lambda p: f"{_initials(p)}-{p.birth[2:4]} thorax",
    "insurance number made of name and birth": _ramq,
    "insurance number in pairs": lambda p: f"{_ramq(p)[:4]} {_ramq(p)[4:6]} {_ramq(p)[6:8]} {_ramq(p)[8:10]} 16",
    "insurance number of dots": lambda p: f"{_ramq(p)[:4]}.{_ramq(p)[4:8]}.{_ramq(p)[8:]}",
    "insurance number of underscores": lambda p: f"{_ramq(p)[:4]}_{_ramq(p)[4:8]}_{_ramq(p)[8:]}",
    "insurance number, letter by letter": lambda p: " ".join(_ramq(p)),
    "insurance number in small letters": lambda p: f"nam:{_ramq(p).lower()}",
    "insurance number without its end": lambda p: _ramq(p)[:8],
    "insurance number's letters": lambda p: f"thorax {_ramq(p)[:4]}",
    "insurance number behind a slash": lambda p: f"{_ramq(p)[:4]}/{_ramq(p)[4:8]}/{_ramq(p)[8:]}",
    "name turned by thirteen letters": lambda p: codecs.encode(plain(p.last), "rot13"),
    "name in base64 of capitals": lambda p: base64.b64encode(plain(p.last).encode()).decode().rstrip("="),
    "name in base64 behind other bytes": lambda p: base64.b64encode(b"x" + plain(p.last).encode()).decode().rstrip("="),
    "name in base32": lambda p: base64.b32encode(plain(p.last).encode()).decode().rstrip("="),
    "name in hexadecimal of utf-16": lambda p: plain(p.last).encode("utf-16-be").hex(" "),
    "name in hexadecimal with colons": lambda p: plain(p.last).lower().encode().hex(":"),
    "name in percent signs throughout": lambda p: "".join(f"%{b:02X}" for b in plain(p.last).encode()),
    "name in numbers of html throughout": lambda p: "".join(f"&#{b};" for b in plain(p.last).encode()),
    "name in escapes of a program": lambda p: "".join(f"\\u{ord(c):04x}" for c in plain(p.last)),
    "first letter as a number of html": lambda p: f"&#x{ord(plain(p.last)[0]):x};{plain(p.last)[1:]}",
    "name with a letter like a figure": lambda p: plain(p.last).replace("O", "0").replace("E", "3").replace("A", "4"),
    "name with two letters exchanged": lambda p: _misspelt(p.last),
    "name with a letter too few": lambda p: plain(p.last)[:4] + plain(p.last)[5:] if len(p.last) > 6 else p.last,
    "name with a letter doubled": lambda p: plain(p.last)[:3] + plain(p.last)[2:],
    "name with soft hyphens": lambda p: "\u00ad".join(p.last),
    "name with spaces of no width": lambda p: "\u200b".join(p.last),
    "name struck through": lambda p: "".join(c + "\u0336" for c in plain(p.last)),
    "name in circled letters": lambda p: "".join(
        chr(0x24B6 + ord(c) - 65) if c.isalpha() else c for c in plain(p.last)
    ),
    "name in mathematical letters": lambda p: "".join(
        chr(0x1D400 + ord(c) - 65) if c.isalpha() else c for c in plain(p.last)
    ),
    "name written from right to left": lambda p: "\u202e" + p.last[::-1],
    "name between dashes": lambda p: "-".join(plain(p.last)),
    "name between stars": lambda p: "*".join(plain(p.last)),
    "name as an account": lambda p: (plain(p.first)[0] + plain(p.last)).lower(),
    "name as an account with figures": lambda p: f"{plain(p.last).lower()}{plain(p.first)[0].lower()}01",
    "name as an address without its sign": lambda p: f"{plain(p.first).lower()}.{plain(p.last).lower()} at exemple.ca",
    "name and title in small letters": lambda p: f"mme {plain(p.last).lower()}",
    "name in the plural": lambda p: f"les {p.last}s",
    "first name alone": lambda p: p.first,
    "first name without accents": lambda p: f"thorax {plain(p.first).lower()}",
    "first name reversed": lambda p: plain(p.first)[::-1],
    "half of each name": lambda p: plain(p.last).replace("'", "")[:4] + plain(p.first)[:3],
    "number reversed": lambda p: p.record[::-1],
    "number in roman of a list": lambda p: "-".join(p.record),
    "number in full width figures": lambda p: "".join(chr(0xFF10 + int(c)) for c in p.record),
    "number in arabic figures": lambda p: "".join(chr(0x660 + int(c)) for c in p.record),
    "number in hexadecimal": lambda p: f"0x{int(p.record):X}",
    "number in letters": lambda p: "".join("JABCDEFGHI"[int(c)] for c in p.record),
    "number behind a letter": lambda p: f"M{p.record}",
    "number with its thousands": lambda p: f"{int(p.record):,}",
    "number in quotes of thousands": lambda p: f"{int(p.record):,}".replace(",", "'"),
    "number with thin spaces": lambda p: "\u2009".join((p.record[:3], p.record[3:5], p.record[5:])),
    "telephone with points": lambda p: p.phone.replace("-", "."),
    "telephone with slashes": lambda p: p.phone.replace("-", "/"),
    "telephone with stars": lambda p: p.phone.replace("-", "*"),
    "telephone with long dashes": lambda p: p.phone.replace("-", "–"),
    "telephone with spaces that do not break": lambda p: p.phone.replace("-", "\u00a0"),
    "telephone of the country": lambda p: f"+1 ({p.phone[:3]}) {p.phone[4:]}",
    "telephone of the world": lambda p: f"001{p.phone.replace('-', '')}",
    "local telephone": lambda p: p.phone[4:].replace("-", " "),
    "local telephone without a mark": lambda p: p.phone[4:].replace("-", ""),
    "street and number alone": lambda p: " ".join(p.address.split()[:3]),
    "street in capitals": lambda p: p.address.split()[2].upper(),
    "accession number without its letter": lambda p: p.accession[1:],
    "accession number in groups": lambda p: f"{p.accession[1:4]}.{p.accession[4:6]}.{p.accession[6:]}",
    "accession number behind a word": lambda p: f"acc{p.accession.lower()}",
    "study identifier in the description": lambda p: f"thorax {p.accession[-5:]}",
    "birth date in roman months": lambda p: f"{p.birth[6:]}.{_ROMAN[int(p.birth[4:6]) - 1]}.{p.birth[:4]}",
    "birth month": lambda p: f"{p.birth[4:6]}/{p.birth[:4]}",
    "birth date of the year's days": lambda p: _julian(p),
    "birth date of the year's days with a dash": lambda p: f"{_julian(p)[:4]}-{_julian(p)[4:]}",
    "birth date without its century": lambda p: f"{p.birth[6:]} {p.birth[4:6]} {p.birth[2:4]}",
    "birth date, underlined": lambda p: f"{p.birth[:4]}_{p.birth[4:6]}_{p.birth[6:]}",
    "birth date in letters of a list": lambda p: f"D{p.birth[6:]}M{p.birth[4:6]}Y{p.birth[:4]}",
    "study date, turned": lambda p: f"{p.date[6:]}{p.date[4:6]}{p.date[:4]}",
    "study date with a long dash": lambda p: f"{p.date[:4]}–{p.date[4:6]}–{p.date[6:]}",
    "age of a very old person": lambda p: "97 Y",
    "age of a very old person in french": lambda p: "103 a.",
    "UID of the study": lambda p: p.study,
    "end of the UID": lambda p: p.study.rsplit(".", 1)[1],
    "serial number without its letters": lambda p: p.serial[2:],
    "doctor without title": lambda p: p.doctor.split()[1],
    "doctor behind a word": lambda p: f"ref {p.doctor.split()[1].lower()}",
    "name and its owner": lambda p: f"{p.last}'s chest",
    "name, comma, initial": lambda p: f"{p.last},{p.first[0]}",
    "name as a path of an export": lambda p: f"{plain(p.last)}_{plain(p.first)[0]}",
    "name without its vowels": lambda p: "".join(c for c in plain(p.last) if c.isalpha() and c not in "AEIOU"),
    "three letters of each name": lambda p: (plain(p.first)[:3] + plain(p.last).replace("'", "")[:3]).lower(),
    "five letters and a figure": lambda p: f"{plain(p.last)[:5]}1",
    "name and birth year in small letters": lambda p: f"{p.last.lower()} {p.first.lower()} {p.birth[:4]}",
    "name in a message of a laboratory": lambda p: f"PID|1||{p.record}||{p.last}^{p.first}",
    "name in marks of a page": lambda p: f"<pn>{p.last}</pn>",
    "address of mail in words": lambda p: f"{plain(p.last).lower()}(a)chum(point)ca",
    "number with letters like figures": lambda p: p.record.replace("1", "l").replace("5", "S"),
    "number with zeros before": lambda p: p.record.zfill(10),
    "number in two groups": lambda p: f"MRN: {p.record[:3]}-{p.record[3:]}",
    "initials and number": lambda p: f"{_initials(p)}{p.record}",
    "last figures of the number": lambda p: f"RX {p.record[-4:]}",
    "day of birth": lambda p: f"fete {p.birth[6:]}/{p.birth[4:6]}",
    "birth date of the american order": lambda p: f"DOB:{p.birth[4:]}{p.birth[2:4]}",
    "end of the instance's UID": lambda p: p.instance[-8:],
    "station named after the hospital": lambda p: "salle-verdun-2",
    "hospital of the header": lambda p: "RX Verdun",
    "hospital without accents": lambda p: "HOPITAL DE VERDUN",
}  # fmt: skip


def _disguises() -> None:
    for name, text in DISGUISES.items():

        def put(file: HardFile, text: Callable[[Person], str] = text) -> None:
            _said(file, text(file.person))

        KINDS[name] = put


_disguises()


# --- somebody of whom the header says nothing else --------------------------------------------------------------------

STRANGERS = {
    "social security number": "SSN 123-45-6789",
    "social security number without marks": "123 45 6789",
    "national health service number": "943 476 5919",
    "national insurance number": "QQ 12 34 56 C",
    "french social security number": "1 85 05 78 006 084 36",
    "corsican social security number": "2 85 05 2A 006 084 36",
    "italian fiscal code": "RSSMRA85M01H501Z",
    "spanish identity number": "12345678Z",
    "german insurance number": "A123456789",
    "swedish personal number": "850501-1234",
    "belgian national number": "85.05.01-123.45",
    "swiss insurance number": "756.1234.5678.97",
    "brazilian number": "123.456.789-09",
    "ontario health card": "1234-567-890-AB",
    "indian health account": "91-1234-5678-9012",
    "british postal code": "SW1A 1AA",
    "american postal code": "Boston MA 02115-1234",
    "dutch postal code": "1012 AB Amsterdam",
    "german address": "Hauptstr. 12, Köln",
    "american address": "12 elm st",
    "french address": "14 bis allee des tilleuls",
    "box of the post": "c.p. 412 succ. B",
    "french telephone": "06 12 34 56 78",
    "british telephone": "020 7946 0018",
    "german telephone": "+49 (0)30/901820",
    "extension of a telephone": "ext. 4412",
    "address of a page without a scheme": "facebook.com/quesnel.luc",
    "account of a network": "insta: quesnel_l",
    "address of a computer": "10.41.18.59",
    "address of a network card": "00:1B:44:11:3A:B7",
    "licence plate": "plaque F42 KLM",
    "two names in small letters": "quesnel lucette",
    "name behind for": "POUR QUESNEL",
    "name behind a colon": "ref: quesnel",
    "name in parentheses behind known words": "RX poumons (Quesnel)",
    "initials alone": "L.Q.",
    "name behind with": "thorax avec Quesnel",
    "german doctor": "Überweisender Arzt Schmidt",
    "spanish lady": "Sra. Quesnel",
    "german gentleman": "Herr Quesnel",
    "italian doctor": "Dott. Quesnel",
    "doctor behind the name": "Quesnel, M.D.",
    "parent": "maman Quesnel",
    "resident": "R3 Quesnel",
    "nurse and initials": "inf. L.Q.",
    "extension in short": "p.4431",
    "address of a computer of the new kind": "fe80::21b:44ff:fe11:3ab7",
    "two names in capitals": "QUESNEL LUCIE",
    "birthday of another country": "geb. 03.02.61",
    "birthday in spanish": "nacido el 3 de febrero de 1961",
    "birthday in german": "3. Februar 1961",
    "birthday in italian": "3 febbraio 61",
    "birthday in chinese": "1961年2月3日",
    "birthday in the hour": "1961-02-03T10:15",
}  # fmt: skip


def _strangers() -> None:
    for name, text in STRANGERS.items():

        def put(file: HardFile, text: str = text) -> None:
            _said(file, text)

        KINDS[name] = put


_strangers()


# --- names of other peoples -------------------------------------------------------------------------------------------


def _names() -> None:
    named: dict[str, tuple[str, str, str, str | list[str]]] = {
        "two short names in one": ("Roy", "Ana", "ROYANA", "ISO_IR 100"),
        "short name and initial in one": ("Roy", "Ana", "AROY", "ISO_IR 100"),
        "vietnamese": ("Nguyễn", "Thị Hồng", "NGUYEN THI HONG", "ISO_IR 192"),
        "name of two letters": ("Ng", "Wei", "NG WEI", "ISO_IR 100"),
        "particle left out": ("de la Fontaine", "Luc", "LAFONTAINE", "ISO_IR 100"),
        "particle in one": ("Van den Berg", "Piet", "VANDENBERG", "ISO_IR 100"),
        "scottish, in two": ("McDonald", "Iain", "MC DONALD", "ISO_IR 100"),
        "saint written out": ("St-Onge", "Luc", "SAINT ONGE", "ISO_IR 100"),
        "married, second half": ("Tremblay-Roy", "Marie", "M ROY", "ISO_IR 100"),
        "maiden, in parentheses": ("Tremblay (Quesnel)", "Marie", "QUESNEL", "ISO_IR 100"),
        "icelandic": ("Þórðarson", "Guðmundur", "THORDARSON", "ISO_IR 192"),
        "hungarian": ("Szőke", "Győző", "SZOKE", "ISO_IR 101"),
        "czech, as another set": ("Dvořák", "Jiří", "DVORAK", "ISO_IR 101"),
        "russian, in latin letters": ("Иванов", "Пётр", "IVANOV", "ISO_IR 144"),
        "greek, in latin letters": ("Παππάς", "Νίκος", "PAPPAS", "ISO_IR 126"),
        "thai": ("สมชาย", "ใจดี", "สมชาย", "ISO_IR 166"),
        "halfwidth japanese": ("ﾔﾏﾀﾞ", "ﾀﾛｳ", "ヤマダ", "ISO_IR 13"),
        "japanese by its sound": ("Yamada", "Tarou", "YAMADA", ["", "ISO 2022 IR 87"]),
        "korean, three groups": ("Hong", "Gildong", "홍길동", ["", "ISO 2022 IR 149"]),
        "gbk": ("张", "小东", "张小东", "GBK"),
        "utf-8 said to be latin 1": ("Bélanger", "Noé", "belanger", "ISO_IR 100"),
    }
    for name, (last, first, text, charset) in named.items():

        def put(
            file: HardFile, last: str = last, first: str = first, text: str = text, charset: str | list[str] = charset
        ) -> None:
            _called(file, last, first)
            file.person.relative = text
            if isinstance(charset, list) or charset != "ISO_IR 192":
                file.image.SpecificCharacterSet = charset
                for keyword in ("InstitutionName", "ReferringPhysicianName", "PatientAddress", "OtherPatientNames"):
                    file.image[keyword].value = plain(str(file.image[keyword].value))
            groups = {"홍길동": "Hong^Gildong=洪^吉洞=홍^길동", "YAMADA": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
            file.image.PatientName = groups.get(text, f"{last}^{first}")
            _said(file, text)

        KINDS[f"other people's name: {name}"] = put
        RENAMING.add(f"other people's name: {name}")


_names()


@_renaming
def _utf_8_where_nothing_is_declared(file: HardFile) -> None:
    """Bytes of UTF-8 in a file that declares no character set."""
    _called(file, "Bélanger", "Noé")
    del file.image.OtherPatientNames
    for keyword in ("InstitutionName", "ReferringPhysicianName", "PatientAddress"):
        file.image[keyword].value = plain(str(file.image[keyword].value))
    file.image.SpecificCharacterSet = "ISO_IR 100"
    file.image.PatientName = "B!!langer^Noe"
    file.raw.append(
        lambda raw: raw.replace(b"B!!langer^Noe", "Bélanger^Noe".encode()).replace(b"ISO_IR 100", b" " * 10)
    )
    _said(file, "THORAX BELANGER")


@_kind
def _escape_sequence_that_is_not_declared(file: HardFile) -> None:
    file.raw.append(lambda raw: raw.replace(b"FUJIFILM", b"\x1b$B;3EDa") if raw.count(b"FUJIFILM") == 1 else raw)
    file.never.append(b"\x1b$B;3EDa")


@_kind
def _name_and_number_in_one_value(file: HardFile) -> None:
    p = file.person
    file.image.PatientName = f"{p.last}^{p.first}^^^^"
    _said(file, f"{plain(p.last)}{p.record}")


# --- numbers ----------------------------------------------------------------------------------------------------------


@_kind
def _number_in_pairs_of_shorts(file: HardFile) -> None:
    """A number of 32 bits as the two of 16 that a US of two values is."""
    number = struct.pack("<L", int(file.person.record))
    file.image.add_new(0x00280106, "US", list(struct.unpack("<2H", number)))
    file.never.append(number)


@_kind
def _number_in_pairs_of_shorts_high_first(file: HardFile) -> None:
    high, low = divmod(int(file.person.record), 1 << 16)
    file.image.add_new(0x00280106, "US", [high, low])
    file.never.append(struct.pack("<2H", high, low))


@_kind
def _number_in_a_tag(file: HardFile) -> None:
    number = struct.pack("<L", int(file.person.record))
    file.image.add_new(0x00280009, "AT", int.from_bytes(number[:2] + number[2:], "little"))
    high, low = struct.unpack("<2H", number)
    file.never += [number, struct.pack("<2H", low, high)]


@_kind
def _number_in_decimal_bytes(file: HardFile) -> None:
    """Two figures a byte."""
    coded = int(file.person.record.zfill(8), 16)
    file.image.add_new(0x00700041, "UL", coded)
    file.never.append(struct.pack("<L", coded))


@_kind
def _number_a_figure_a_value(file: HardFile) -> None:
    figures = list(map(int, file.person.record))
    file.image.add_new(0x00603020, "UL", figures)
    file.image.add_new(0x00280108, "US", figures)
    file.never += [struct.pack(f"<{len(figures)}L", *figures), struct.pack(f"<{len(figures)}H", *figures)]


@_kind
def _number_with_a_fraction(file: HardFile) -> None:
    value = int(file.person.record) / 1000
    file.image.add_new(0x00409225, "FD", value)
    file.image.add_new(0x00700022, "FL", [1.0, value])
    file.never.append(struct.pack("<d", value))


@_kind
def _number_reversed_in_a_count(file: HardFile) -> None:
    _text(file.image, "SeriesNumber", file.person.record[::-1])
    file.never.append(file.person.record[::-1].encode())


@_kind
def _local_telephone_in_a_count(file: HardFile) -> None:
    local = file.person.phone[4:].replace("-", "")
    _text(file.image, "ExposureIndex", local)
    file.never.append(local.encode())


@_kind
def _study_date_in_numbers(file: HardFile) -> None:
    d = file.person.date
    file.image.add_new(0x00700041, "UL", int(d))
    file.image.add_new(0x00409224, "FD", float(d))
    _text(file.image, "ExposureIndex", f"{d[:4]}.{d[4:]}")
    _text(file.image, "FieldOfViewOrigin", f"{d[:4]}\\{d[4:]}")
    file.never += [struct.pack("<L", int(d)), struct.pack("<d", float(d)), f"{d[:4]}.{d[4:]}".encode()]
    file.never.append(f"{d[:4]}\\{d[4:]}".encode())


@_kind
def _study_date_as_a_version(file: HardFile) -> None:
    item = _code("RX1", "99HVD", "Thorax")
    item.CodingSchemeVersion = file.person.date
    file.image.ProcedureCodeSequence = Sequence([item])


@_kind
def _number_behind_a_time(file: HardFile) -> None:
    """What no clock shows, in the place of hours, and of a time zone."""
    figures = f"77{file.person.record[:4]}"
    _text(file.image, "AcquisitionDateTime", f"{file.person.date}{figures}")
    _text(file.image, "ContentTime", figures)
    file.never += [figures.encode()]


@_renaming
def _short_number_in_a_time_zone(file: HardFile) -> None:
    _known_before(file)
    file.image.PatientID = "4718"
    _text(file.image, "AcquisitionDateTime", f"{file.person.date}101112+4718")
    _text(file.image, "TimezoneOffsetFromUTC", "+4718")
    file.never.append(b"+4718")


@_kind
def _name_in_shorts_of_the_other_order(file: HardFile) -> None:
    text = plain(file.person.last).encode().ljust(12)[:12]
    values = list(struct.unpack(">6H", text))
    file.image.add_new(0x00280106, "US", values)
    file.never.append(struct.pack("<6H", *values))


@_kind
def _name_in_floats(file: HardFile) -> None:
    text = plain(file.person.last).encode().ljust(16)[:16]
    file.image.add_new(0x00409224, "FD", list(struct.unpack("<2d", text)))
    file.image.add_new(0x00700022, "FL", list(struct.unpack("<4f", text)))


@_kind
def _name_as_codes_of_another_order(file: HardFile) -> None:
    """The place in the alphabet: 20, 18, 5 ..."""
    places = [ord(c) - 64 for c in plain(file.person.last) if c.isalpha()]
    _text(file.image, "FieldOfViewOrigin", "\\".join(map(str, places)))
    file.never.append("\\".join(map(str, places)).encode())


@_kind
def _number_in_standard_codes(file: HardFile) -> None:
    """A local number under the name of a standard scheme."""
    file.image.ProcedureCodeSequence = Sequence([_code(_ramq(file.person), "SCT", "Chest")])
    file.image.ViewCodeSequence = Sequence([_code(file.person.birth[2:], "DCM", "PA")])
    file.image.AnatomicRegionSequence = Sequence([_code("123-45-6789", "SRT", "Chest")])
    file.never += [_ramq(file.person).encode(), b"123-45-6789", file.person.birth[2:].encode()]


@_kind
def _number_in_a_context_group(file: HardFile) -> None:
    item = _code("399348003", "SCT", "PA")
    item.ContextIdentifier, item.MappingResource = file.person.accession, plain(file.person.last)[:16]
    item.ContextGroupVersion, item.ContextUID = file.person.birth, f"1.2.{file.person.record}"
    item.ContextGroupLocalVersion, item.ContextGroupExtensionCreatorUID = file.person.birth, f"1.2.{file.person.record}"
    file.image.ViewCodeSequence = Sequence([item])


# --- the container ----------------------------------------------------------------------------------------------------


@_kind
def _whole_dicom_file_in_a_private_element(file: HardFile) -> None:
    inner = bytes(128) + b"DICM" + struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 30) + file.said.encode().ljust(30)[:30]
    block = file.image.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x09, "OB", inner)
    file.image.private_block(0x0177, "RadWorksTBR", create=True).add_new(0x11, "UN", inner)


@_kind
def _headers_of_siemens(file: HardFile) -> None:
    p = file.person
    block = file.image.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    field = b"PatientName".ljust(64, b"\0") + struct.pack("<L4sLLL", 1, b"PN\0\0", 27, 6, 77)
    block.add_new(0x10, "OB", b"SV10\4\3\2\1" + struct.pack("<LL", 1, 77) + field + p.last.encode().ljust(80, b"\0"))
    block.add_new(0x20, "OB", f"### ASCCONV BEGIN ###\ntPatientName = {p.last}\n".encode().ljust(200)[:200])
    other = file.image.private_block(0x0019, "SIEMENS MED SMS USG ANTARES", create=True)
    other.add_new(0x00, "DS", p.record)
    third = file.image.private_block(0x0021, "SIEMENS MED NM", create=True)
    third.add_new(0x01, "SS", 5)
    third.add_new(0x02, "LT", file.said)


@_kind
def _blocks_that_the_standard_calls_safe(file: HardFile) -> None:
    """Safe attributes of table E.3.10-1 that are used for something else."""
    ge = file.image.private_block(0x0019, "GEMS_ACQU_01", create=True)
    for number in (0x23, 0x24, 0x27, 0x9E, 0xA0):
        ge.add_new(number, "LO", file.said)
    gray = file.image.private_block(0x0043, "GEMS_PARM_01", create=True)
    for number in (0x01, 0x27, 0x39, 0x6F):
        gray.add_new(number, "SH", plain(file.person.last)[:16])
    philips = file.image.private_block(0x2001, "Philips Imaging DD 001", create=True)
    for number in (0x03, 0x04, 0x06, 0x0B, 0x20):
        philips.add_new(number, "CS", plain(file.person.last).replace("'", "")[:16])
    siemens = file.image.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    for number in (0x08, 0x0A, 0x0C, 0x0D):
        siemens.add_new(number, "LO", file.person.record)
    fuji = file.image.private_block(0x0021, "FUJI PHOTO FILM Co., ltd.", create=True)
    fuji.add_new(0x10, "CS", plain(file.person.last).replace("'", "")[:16])
    fuji.add_new(0x70, "LO", file.person.record)


@_kind
def _blocks_of_radiography_makers(file: HardFile) -> None:
    p = file.person
    makers = {
        "FDMS 1.0": (0x0009, 0x80), "FFP DATA": (0x0009, 0x01), "KONICAMINOLTA": (0x0009, 0x20), "ISI": (0x0009, 0x01),
        "AGFA_ADC_Compact": (0x0019, 0x05), "AGFA-AG_HPState": (0x0071, 0x18), "CARESTREAM_OTHER": (0x0011, 0x10),
        "DR Systems, Inc.": (0x4453, 0x0C), "KODAK": (0x0029, 0x15), "SHIMADZU": (0x0019, 0x11),
        "GEMS_IDEN_01": (0x0009, 0x31), "SECTRA_Ident_01": (0x0009, 0x01), "MERGE TECHNOLOGIES, INC.": (0x0009, 0x00),
        "ACUSON": (0x0009, 0x10), "TOSHIBA_MEC": (0x0009, 0x01), "VEPRO BROKER 1.0": (0x0055, 0x20),
        "INTELERAD MEDICAL SYSTEMS": (0x3F01, 0x01), "PACSGEAR": (0x0015, 0x01), "dcm4che/archive": (0x4343, 0x20),
        "EMAGEON JPEG2K INFO": (0x0009, 0x00), "GEHC_CT_ADVAPP_001": (0x0053, 0x40),
    }  # fmt: skip
    for creator, (group, number) in makers.items():
        block = file.image.private_block(group, creator[:64], create=True)
        nested = Dataset()
        nested.PatientName, nested.PatientBirthDate = file.said, p.birth
        block.add_new(number, "SQ", Sequence([nested]))
        block.add_new(number + 1, "UI", f"1.2.3.{p.record}")
        block.add_new(number + 2, "DA", p.birth)
        block.add_new(number + 3, "UT", f"<patient name='{p.last}' id='{p.record}'/>")
        block.add_new(number + 4, "OW", file.said.encode("utf-16-le").ljust(80, b"\0"))
        block.add_new(number + 5, "OF", p.last.encode().ljust(40)[:40])


@_kind
def _private_block_without_its_creator_in_an_item(file: HardFile) -> None:
    item = _code("51185008", "SCT", "Chest")
    item.add_new(0x00291018, "LO", file.said)
    item.add_new(0x0029FF18, "LO", file.said)
    item.add_new(0x00290005, "LO", file.said)
    file.image.AnatomicRegionSequence = Sequence([item])


@_kind
def _documents_inside_an_image(file: HardFile) -> None:
    item = Dataset()
    said = file.said.encode("latin-1", "replace")
    pdf = b"%PDF-1.4\n1 0 obj<</Author(" + said + b")>>endobj\n%%EOF"
    item.add_new(0x00420011, "OB", pdf + b" " * (len(pdf) % 2))
    item.DocumentTitle, item.MIMETypeOfEncapsulatedDocument = file.said, "application/pdf"
    item.add_new(0x00420013, "SQ", Sequence([Dataset()]))
    cda = Dataset()
    xml = f"<ClinicalDocument><recordTarget>{file.said}</recordTarget></ClinicalDocument>".encode()
    cda.add_new(0x00420011, "OB", xml + b" " * (len(xml) % 2))
    stl = Dataset()
    stl.add_new(0x00420011, "OB", file.said.encode().ljust(80)[:80] + bytes(4))
    file.image.ReferencedInstanceSequence = Sequence([item, cda, stl])
    file.image.add_new(0x00880904, "LO", file.said)


@_kind
def _content_of_reports_in_kept_sequences(file: HardFile) -> None:
    item = _code("399348003", "SCT", "PA")
    item.add_new(0x0040A160, "UT", f"vu par {file.person.doctor}")
    item.add_new(0x0040A123, "PN", file.said)
    item.add_new(0x0040A124, "UI", file.person.study)
    item.add_new(0x0040A121, "DA", file.person.date)
    item.add_new(0x0040DB00, "CS", file.person.accession)
    item.add_new(0x0040A30A, "DS", file.person.record)
    file.image.ViewCodeSequence = Sequence([item])


@_kind
def _references_to_people_of_other_objects(file: HardFile) -> None:
    p, item = file.person, _reference(file.person.instance)
    item.add_new(0x0040A07A, "SQ", Sequence([_code(p.record, "99X", p.doctor)]))
    item.add_new(0x00081052, "SQ", Sequence([_code(p.record, "99X", p.doctor)]))
    item.add_new(0x0040E025, "SQ", Sequence([Dataset()]))
    item.add_new(0x0040E010, "UR", f"http://pacs.verdun.ca/wado?patientID={p.record}")
    item.add_new(0x00081190, "UR", f"http://pacs.verdun.ca/studies/{p.study}")
    item.add_new(0x0040E022, "UI", f"1.2.3.{p.record}")
    file.image.ReferencedImageSequence = Sequence([item])
    file.image.ReferencedInstanceSequence = Sequence([item])


@_kind
def _plans_and_structures_of_radiotherapy(file: HardFile) -> None:
    item = Dataset()
    item.add_new(0x30060026, "LO", f"PTV {file.said}")
    item.add_new(0x300A0002, "SH", file.person.last[:16])
    item.add_new(0x300E0008, "PN", file.said)
    item.add_new(0x300A0004, "ST", file.said)
    file.image.add_new(0x30060020, "SQ", Sequence([item]))
    file.image.add_new(0x300A00B0, "SQ", Sequence([item]))
    file.image.add_new(0x300E0008, "PN", file.said)
    file.image.add_new(0x30020002, "SH", file.person.record)


@_kind
def _structured_display_and_protocol(file: HardFile) -> None:
    item = Dataset()
    item.add_new(0x00720424, "SQ", Sequence([Dataset()]))
    item.add_new(0x00720002, "SH", file.said[:16])
    item.add_new(0x00720006, "LO", file.said)
    item.add_new(0x00720064, "IS", file.person.record)
    item.add_new(0x00720070, "UT", file.said)
    for number, vr in ((0x66, "LO"), (0x6A, "PN"), (0x6C, "SH"), (0x68, "LT"), (0x6E, "ST")):
        item.add_new(0x00720000 | number, vr, file.said[:16])
    file.image.add_new(0x00720400, "SQ", Sequence([item]))
    file.image.add_new(0x00720008, "PN", file.said)


@_kind
def _explanations_of_tables(file: HardFile) -> None:
    item = Dataset()
    item.add_new(0x00283002, "US", [4096, 0, 12])
    item.add_new(0x00283003, "LO", file.said)
    item.add_new(0x00283004, "LO", plain(file.person.last))
    item.add_new(0x00283006, "OW", np.arange(4096, dtype="<u2").tobytes())
    file.image.ModalityLUTSequence = Sequence([item])
    file.image.add_new(0x00281055, "LO", [file.said, "NORMAL"])
    file.image.add_new(0x20500010, "SQ", Sequence([item]))


@_kind
def _descriptor_of_a_table(file: HardFile) -> None:
    text = plain(file.person.last).encode().ljust(6)[:6]
    item = Dataset()
    item.add_new(0x00283002, "US", list(struct.unpack("<3H", text)))
    item.add_new(0x00283006, "OW", np.arange(64, dtype="<u2").tobytes())
    file.image.VOILUTSequence = Sequence([item])
    if text.strip().isalpha() and len(text.strip()) >= 4:
        file.never.append(text.strip())


@_kind
def _overlay_drawn_and_named(file: HardFile) -> None:
    """A plane of its own that is good, with words around it."""
    plane = np.zeros((40, 40), np.uint8)
    plane[10:30, 10:30] = np.eye(20, dtype=np.uint8)
    for group in (0x6000, 0x6004):
        tag = group << 16
        file.image.add_new(tag | 0x0010, "US", 40)
        file.image.add_new(tag | 0x0011, "US", 40)
        file.image.add_new(tag | 0x0040, "CS", "G")
        file.image.add_new(tag | 0x0045, "LO", file.said)
        file.image.add_new(tag | 0x0050, "SS", [1, 1])
        file.image.add_new(tag | 0x0022, "LO", file.said)
        file.image.add_new(tag | 0x1500, "LO", file.said)
        packed = np.packbits(plane.ravel(), bitorder="little").tobytes()
        file.image.add_new(tag | 0x3000, "OW", packed + file.said.encode().ljust(40)[:40])


@_kind
def _overlay_of_letters(file: HardFile) -> None:
    """A plane whose bits are letters."""
    text = (plain(file.person.last) + " ").encode() * 40
    file.image.add_new(0x60000010, "US", 40)
    file.image.add_new(0x60000011, "US", 40)
    file.image.add_new(0x60000040, "CS", "G")
    file.image.add_new(0x60000050, "SS", [1, 1])
    file.image.add_new(0x60000100, "US", 1)
    file.image.add_new(0x60000102, "US", 0)
    file.image.add_new(0x60003000, "OW", text[:200])


@_kind
def _text_in_the_high_bits(file: HardFile) -> None:
    """A letter in the four unused bits of every two pixels."""
    if file.syntax in (container.EXPLICIT, container.IMPLICIT):
        text = (file.said + " ").encode() * 200
        nibbles = np.array([half for byte in text[:800] for half in (byte >> 4, byte & 15)], "u2").reshape(40, 40)
        marked = pixels(1) | nibbles << 12
        file.image.PixelData, file.image["PixelData"].VR = marked.tobytes(), "OW"
        file.never.append(marked.tobytes()[:40])


@_kind
def _second_frame_that_is_not_counted(file: HardFile) -> None:
    if file.syntax in (container.EXPLICIT, container.IMPLICIT):
        text = file.said.encode().ljust(64) * 50
        file.image.PixelData, file.image["PixelData"].VR = pixels(1).tobytes() + text, "OW"
        file.image.NumberOfFrames = 1


@_kind
def _thumbnails_of_several_makers(file: HardFile) -> None:
    icon = Dataset()
    icon.SamplesPerPixel, icon.PhotometricInterpretation, icon.Rows, icon.Columns = 1, "PALETTE COLOR", 8, 8
    icon.BitsAllocated = icon.BitsStored = 8
    icon.add_new(0x00281101, "US", [32, 0, 16])
    icon.add_new(0x00281201, "OW", file.said.encode().ljust(64)[:64])
    icon.PixelData, icon["PixelData"].VR = file.said.encode().ljust(64)[:64], "OB"
    file.image.IconImageSequence = Sequence([icon])
    view = Dataset()
    view.IconImageSequence = Sequence([icon])
    file.image.ViewCodeSequence = Sequence([view])
    file.image.private_block(0x0009, "GEIIS", create=True).add_new(0x10, "SQ", Sequence([icon]))


@_kind
def _colour_profile_in_an_item(file: HardFile) -> None:
    item = Dataset()
    item.add_new(0x00282000, "OB", (b"\0\0\x02\x0c" + b"cprt" + file.said.encode()).ljust(120, b"\0"))
    item.add_new(0x00282002, "CS", plain(file.person.last).replace("'", "")[:16])
    file.image.add_new(0x00480105, "SQ", Sequence([item]))
    file.image.add_new(0x00282002, "CS", plain(file.person.last).replace("'", "")[:16])


@_kind
def _waveform_with_notes(file: HardFile) -> None:
    group, note, channel = Dataset(), Dataset(), Dataset()
    channel.add_new(0x003A0203, "SH", file.said[:16])
    group.add_new(0x003A0200, "SQ", Sequence([channel]))
    group.add_new(0x54001010, "OW", file.person.record.encode().ljust(20))
    note.UnformattedTextValue = file.said
    note.add_new(0x0040A132, "UL", int(file.person.record))
    file.image.add_new(0x54000100, "SQ", Sequence([group]))
    file.image.add_new(0x0040B020, "SQ", Sequence([note]))


@_kind
def _elements_out_of_order(file: HardFile) -> None:
    """The patient's name once more behind the image's description."""
    name = file.said.encode()
    name += b" " * (len(name) % 2)
    if file.syntax != container.IMPLICIT:
        for tag in ((0x0010, 0x0010), (0x0008, 0x0090)):
            element = struct.pack("<HH2sH", *tag, b"PN", len(name)) + name
            file.raw.append(lambda raw, element=element: put_raw(raw, element))


@_kind
def _texts_of_the_wrong_kind(file: HardFile) -> None:
    """Numbers, dates and codes that are sent as text, and text that is sent as numbers."""
    name = file.said.encode("latin-1", "replace")[:30]
    name += b" " * (len(name) % 2)
    if file.syntax != container.IMPLICIT:
        for group, number, vr in (
            (0x0018, 0x1411, b"LO"), (0x0028, 0x1050, b"LO"), (0x0018, 0x1152, b"PN"), (0x0008, 0x0021, b"LO"),
            (0x0028, 0x0107, b"LO"), (0x0018, 0x1164, b"ST"), (0x0008, 0x0060, b"DS"), (0x0018, 0x0015, b"DA"),
        ):  # fmt: skip
            element = struct.pack("<HH2sH", group, number, vr, len(name)) + name
            file.raw.append(lambda raw, element=element: put_raw(raw, element))


@_kind
def _sequence_of_unknown_values_three_deep(file: HardFile) -> None:
    if file.syntax == container.IMPLICIT:
        return
    name = file.said.encode()
    name += b" " * (len(name) % 2)
    held = struct.pack("<HHL", 0x0008, 0x0104, len(name)) + name
    for tag in ((0x0008, 0x2228), (0x0008, 0x2220), (0x0008, 0x2218)):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(held)) + held
        held = struct.pack("<HHL", *tag, len(item)) + item
    element = held[:4] + b"UN\0\0" + held[4:8] + held[8:]
    file.raw.append(lambda raw: put_raw(raw, element))


@_kind
def _request_with_addresses_and_staff(file: HardFile) -> None:
    item, person = Dataset(), Dataset()
    person.PersonAddress, person.PersonTelephoneNumbers = file.person.address, file.person.phone
    person.add_new(0x00401101, "SQ", Sequence([_code(file.person.record, "99X", file.person.doctor)]))
    item.RequestedProcedureComments = file.said
    item.add_new(0x00321031, "SQ", Sequence([person]))
    item.add_new(0x00401400, "LT", f"{file.person.address} {file.person.phone}")
    item.add_new(0x00402009, "SH", file.person.last[:16])
    file.image.RequestAttributesSequence = Sequence([item])
    file.image.add_new(0x00080096, "SQ", Sequence([person]))
    file.image.add_new(0x00081084, "SQ", Sequence([_code(file.person.record, "99X", file.said)]))
    file.image.add_new(0x00400555, "SQ", Sequence([item]))
    file.image.add_new(0x0008009C, "PN", file.said)


@_kind
def _pet_names_and_fonts(file: HardFile) -> None:
    """Attributes that are seldom seen and often forgotten."""
    for tag, vr in (
        (0x00102292, "LO"), (0x00102297, "PN"), (0x00102299, "LO"), (0x00104000, "LT"), (0x00120040, "LO"),
        (0x00120071, "LO"), (0x00180010, "LO"), (0x00181030, "LO"), (0x00181078, "DT"), (0x00200010, "SH"),
        (0x00203401, "CS"), (0x00204000, "LT"), (0x00324000, "LT"), (0x00380500, "LO"), (0x00384000, "LT"),
        (0x0040030E, "SQ"), (0x00400310, "ST"), (0x00401010, "PN"), (0x00402016, "LO"), (0x00402400, "LT"),
        (0x0040A088, "SQ"), (0x40000010, "LT"), (0x40080040, "SH"), (0x40080114, "PN"), (0x40080119, "SQ"),
        (0x00700084, "PN"), (0x00700306, "CS"), (0x00880140, "UI"), (0x01000420, "DT"), (0x20300020, "LO"),
        (0x22000002, "LO"), (0x22000005, "LT"), (0x300C0113, "LO"), (0x00281199, "UI"), (0x00189074, "DT"),
    ):  # fmt: skip
        value: object = file.said[:16]
        if vr == "SQ":
            held = Dataset()
            held.PatientName, held.TextValue = file.said, file.said
            value = Sequence([held])
        elif vr == "UI":
            value = f"1.2.3.{file.person.record}"
        elif vr == "DT":
            value = file.person.birth
        file.image.add(DataElement(tag, vr, value, validation_mode=0))


# --- streams ----------------------------------------------------------------------------------------------------------


@_kind
def _text_behind_the_last_pixel_of_the_scan(file: HardFile) -> None:
    """In front of the end mark, where a decoder has all it needs."""

    def put(frame: bytes) -> bytes:
        text = file.said.encode().ljust(40)
        if frame[:2] == b"\xff\xd8":
            at = frame.rfind(b"\xff\xd9")
            return frame[:at] + text + frame[at:]
        return frame

    if file.syntax == container.JPEG_LOSSLESS_SV1:
        file.stream = put


@_kind
def _table_of_codes_that_nobody_uses(file: HardFile) -> None:
    """A Huffman table under a number that no scan names: its symbols are letters."""

    def put(frame: bytes) -> bytes:
        text = (file.said + " " * 80).encode()[:40]
        counts = bytes([0, 0, 0, 0, 0, 40, *[0] * 10])
        table = struct.pack(">HHB", 0xFFC4, 3 + 16 + 40, 0x03) + counts + text
        return frame[:2] + table + frame[2:] if frame[:2] == b"\xff\xd8" else frame

    if file.syntax == container.JPEG_LOSSLESS_SV1:
        file.stream = put


@_kind
def _table_of_another_kind_of_stream(file: HardFile) -> None:
    """A quantisation table in a lossless stream, and an interval of restarts that is too long."""

    def put(frame: bytes) -> bytes:
        text = (file.said + " " * 80).encode()[:64]
        table = struct.pack(">HHB", 0xFFDB, 67, 0x02) + text
        interval = struct.pack(">HHH", 0xFFDD, 44, 0) + text[:40]
        return frame[:2] + table + interval + frame[2:] if frame[:2] == b"\xff\xd8" else frame

    if file.syntax == container.JPEG_LOSSLESS_SV1:
        file.stream = put


@_kind
def _thumbnail_and_copyright_of_a_picture(file: HardFile) -> None:
    def put(frame: bytes) -> bytes:
        text = file.said.encode()
        if frame[:2] == b"\xff\xd8":
            small = b"\xff\xd8\xff\xfe" + struct.pack(">H", len(text) + 2) + text + b"\xff\xd9"
            jfif = b"JFIF\0\1\2\0\0\1\0\1\0\0"
            jfxx = b"JFXX\0\x10" + small
            spiff = b"SPIFF\0" + text
            held = ((0xFFE0, jfif), (0xFFE0, jfxx), (0xFFE8, spiff), (0xFFE1, b"http://ns.adobe.com/xap/1.0/\0" + text))
            return frame[:2] + b"".join(struct.pack(">HH", m, len(b) + 2) + b for m, b in held) + frame[2:]
        if frame[:2] == b"\xff\x4f":  # behind the end of the code stream, and as a box of metadata around it
            uuid = struct.pack(">L4s", len(text) + 24, b"uuid") + bytes(16) + text
            return b"\0\0\0\x0cjP  \r\n\x87\n" + uuid + struct.pack(">L4s", len(frame) + 8, b"jp2c") + frame + uuid
        return frame

    file.stream = put


@_kind
def _fill_between_segments(file: HardFile) -> None:
    """Marks repeated, reserved marks, and comments between them in two encodings."""

    def put(frame: bytes) -> bytes:
        if frame[:2] != b"\xff\xd8":
            return frame
        text = file.said.encode("utf-16-le")
        other = file.said.encode("cp850", "replace")
        held = struct.pack(">HH", 0xFFFE, len(text) + 2) + text + b"\xff\xff\xff" + b"\xff\xfd"[:1]
        held += b"\xfe" + struct.pack(">H", len(other) + 2) + other
        return frame[:2] + held + frame[2:]

    file.stream = put


@_kind
def _chance_of_all(file: HardFile) -> None:
    """Three disguises at once, in attributes drawn anew for each patient."""
    chance = random.Random(file.person.record)
    keywords = [
        "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "StudyDescription", "SeriesDescription",
        "ProtocolName", "ImageComments", "DetectorManufacturerName", "ConvolutionKernel", "PatientComments",
    ]  # fmt: skip
    chosen = chance.sample(sorted(DISGUISES), 3)
    for keyword, name in zip(chance.sample(keywords, 3), chosen, strict=True):
        text = DISGUISES[name](file.person)
        _text(file.image, keyword, text)
        file.never += [text.encode()] if len(text) >= 4 else []
