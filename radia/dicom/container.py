"""The DICOM container: bytes to elements and back, strictly.

What belongs here: PS3.5 and PS3.10 encoding (transfer syntaxes, sequences, encapsulated pixel data). What does not:
any opinion about what an element means. Every value is held as little-endian bytes whatever the source's byte order,
so that rules look at one form only. What is written is always explicit VR little endian with a new group 2.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from pydicom.datadict import dictionary_VR

from radia.errors import Reason, Refusal

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"

NATIVE = frozenset({IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN})
JPEG_FAMILY = frozenset({JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1})
JPEG_LS_FAMILY = frozenset({JPEG_LS, JPEG_LS_NEAR})
JPEG_2000_FAMILY = frozenset({JPEG_2000_LOSSLESS, JPEG_2000})
SUPPORTED = NATIVE | JPEG_FAMILY | JPEG_LS_FAMILY | JPEG_2000_FAMILY | {RLE}

PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_SHORT_VRS = frozenset(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FD",
        "FL",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "TM",
        "UI",
        "UL",
        "US",
    ]
)
_WORD = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4}
_WORD |= {"FD": 8, "OD": 8, "SV": 8, "UV": 8, "OV": 8}
_MAX_DEPTH = 64
_MOST_ELEMENTS = 200_000
"""A radiograph's header has some hundreds; a file made to exhaust a reader has millions."""
_MOST_INFLATED = 1 << 29
_SPACES = b"\0 "

Buffer = bytes | memoryview


@dataclass(slots=True)
class Element:
    """One data element. Exactly one of `value`, `items`, `fragments` says what it holds."""

    tag: int
    vr: str
    value: Buffer = b""
    items: list[Dataset] | None = None
    fragments: list[Buffer] | None = None  # encapsulated pixel data, without the offset table

    @property
    def raw(self) -> bytes:
        """The value as bytes, without padding."""
        return bytes(self.value).rstrip(_SPACES)


@dataclass(slots=True)
class Dataset:
    """Elements by tag. `doubled` holds earlier ones of a tag given twice, which are never written."""

    elements: dict[int, Element] = field(default_factory=dict)
    doubled: list[Element] = field(default_factory=list)

    def add(self, element: Element) -> None:
        """Takes an element; of two with one tag the later stands."""
        earlier = self.elements.get(element.tag)
        if earlier is not None:
            self.doubled.append(earlier)
        self.elements[element.tag] = element

    def text(self, tag: int) -> str:
        """The first value of a text element in the default repertoire, stripped; empty where there is none."""
        element = self.elements.get(tag)
        if element is None or element.items is not None or element.fragments is not None:
            return ""
        return element.raw.decode("latin-1").split("\\")[0].strip()

    def number(self, tag: int, default: int | None = None) -> int | None:
        """The first value of a US, SS, UL or IS element."""
        element = self.elements.get(tag)
        if element is None or not len(element.value):
            return default
        raw = bytes(element.value)
        if element.vr in ("US", "SS") and len(raw) >= 2:
            return int.from_bytes(raw[:2], "little", signed=element.vr == "SS")
        if element.vr in ("UL", "SL") and len(raw) >= 4:
            return int.from_bytes(raw[:4], "little", signed=element.vr == "SL")
        try:
            return int(float(raw.split(b"\\")[0].strip(_SPACES)))
        except ValueError:
            return default

    def walk(self) -> Iterator[Element]:
        """Every element at every depth, doubled ones included."""
        for element in (*self.elements.values(), *self.doubled):
            yield element
            for item in element.items or ():
                yield from item.walk()


@dataclass(slots=True)
class Part10:
    """A file as parsed: group 2, the data set, the transfer syntax its pixels are in."""

    meta: Dataset
    dataset: Dataset
    syntax: str


def parse(raw: bytes, *, most_inflated: int = _MOST_INFLATED) -> Part10:
    """A DICOM file's bytes as elements.

    Reads files with and without preamble and group 2. Stops after the pixel data of the top level: what follows is
    never part of an image. most_inflated: bytes that a deflated data set may have. Raises Refusal (EMPTY_FILE,
    NOT_DICOM, TRUNCATED, UNREADABLE, UNSUPPORTED_SYNTAX).
    """
    if not raw[:1024].strip(b"\0") and not raw.strip(b"\0"):
        raise Refusal(Reason.EMPTY_FILE)
    meta, position = _group_2(raw)
    syntax = meta.text(0x00020010)
    body = memoryview(raw)
    if not syntax:
        syntax = EXPLICIT if _looks_explicit(raw, position) else IMPLICIT
    if syntax not in SUPPORTED:
        raise Refusal(Reason.UNSUPPORTED_SYNTAX)
    if syntax == DEFLATED:
        body, position = memoryview(_inflate(raw[position:], most_inflated)), 0
    try:
        dataset = _Parser(body, explicit=syntax != IMPLICIT, little=syntax != BIG_ENDIAN).dataset(position)
    except (struct.error, IndexError) as error:
        raise Refusal(Reason.TRUNCATED) from error
    except RecursionError as error:
        raise Refusal(Reason.UNREADABLE, "sequences nested too deep") from error
    if not dataset.elements:
        raise Refusal(Reason.TRUNCATED)
    return Part10(meta, dataset, syntax)


def _group_2(raw: bytes) -> tuple[Dataset, int]:
    if raw[128:132] == b"DICM":
        start = 132
    elif raw[:2] in (b"\x02\0", b"\x08\0") and raw[3:4] == b"\0" and _plausible_start(raw):
        start = 0  # a data set kept without its preamble, as some archives do
    elif len(raw) < 132 and b"DICM".startswith(raw[128:]) and not raw[:128].strip(b"\0"):
        raise Refusal(Reason.TRUNCATED)
    else:
        raise Refusal(Reason.NOT_DICOM)
    meta = Dataset()
    position = start
    parser = _Parser(memoryview(raw), explicit=True, little=True)
    try:
        while raw[position : position + 2] == b"\x02\0":
            element, position = parser.element(position, 0, len(raw))
            meta.add(element)
    except (struct.error, IndexError) as error:
        raise Refusal(Reason.TRUNCATED) from error
    if position >= len(raw):
        raise Refusal(Reason.TRUNCATED)
    return meta, position


def _plausible_start(raw: bytes) -> bool:
    explicit = raw[4:6].decode("latin-1") in _SHORT_VRS | _LONG_VRS
    return len(raw) > 16 and (explicit or int.from_bytes(raw[4:8], "little") < 1024)


def _looks_explicit(raw: bytes, position: int) -> bool:
    return raw[position + 4 : position + 6].decode("latin-1") in _SHORT_VRS | _LONG_VRS


def _inflate(deflated: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(deflated, most)
    except zlib.error as error:
        raise Refusal(Reason.UNREADABLE, "deflated data set") from error
    if inflater.unconsumed_tail:
        raise Refusal(Reason.UNREADABLE, f"deflated data set of more than {most >> 20} MB")
    if not inflater.eof:
        raise Refusal(Reason.TRUNCATED)
    return plain


class _Parser:
    """Recursive descent over one buffer."""

    def __init__(self, body: memoryview, *, explicit: bool, little: bool, left: Iterator[int] | None = None) -> None:
        self.body, self.explicit, self.little = body, explicit, little
        # shared with parsers of what is inside, for what cannot be read in one way is tried in another
        self.left = iter(range(_MOST_ELEMENTS)) if left is None else left
        mark = "<" if little else ">"
        self.tag_of = struct.Struct(f"{mark}HH").unpack_from
        self.head_of = struct.Struct(f"{mark}HH2sH").unpack_from
        self.long_of = struct.Struct(f"{mark}L").unpack_from

    def dataset(self, position: int) -> Dataset:
        """The top level: ends with the pixel data, with the buffer, or where only padding is left."""
        found, end = Dataset(), len(self.body)
        before = -1
        while position < end:
            if end - position < 8:
                if bytes(self.body[position:]).strip(b"\0"):
                    raise Refusal(Reason.TRUNCATED)
                break
            group, number = self.tag_of(self.body, position)
            tag = group << 16 | number
            if tag == 0 and not bytes(self.body[position:]).strip(b"\0"):
                break  # padded with zeros to a block size
            if group == 0xFFFE or (tag < before and group < before >> 16 and group == 0):
                raise Refusal(Reason.UNREADABLE, "elements out of place")
            element, position = self.element(position, 0, end)
            found.add(element)
            before = tag
            if tag == PIXEL_DATA:
                break
        return found

    def element(self, position: int, depth: int, end: int) -> tuple[Element, int]:
        """The element at `position` and where the next one starts."""
        self._count()
        if self.explicit:
            group, number, code, length = self.head_of(self.body, position)
            vr = code.decode("latin-1")
            tag = group << 16 | number
            if vr in _SHORT_VRS:
                position += 8
            elif vr in _LONG_VRS:
                (length,) = self.long_of(self.body, position + 8)
                position += 12
            else:
                return self._implicit(tag, position, depth, end, unknown=True)
            return self._value(tag, vr, length, position, depth, end)
        group, number = self.tag_of(self.body, position)
        return self._implicit(group << 16 | number, position, depth, end)

    def _implicit(self, tag: int, position: int, depth: int, end: int, *, unknown: bool = False) -> tuple[Element, int]:
        (length,) = self.long_of(self.body, position + 4)
        if unknown and not (length == _UNDEFINED or position + 8 + length <= end):
            raise Refusal(Reason.UNREADABLE, "unknown value representation")
        return self._value(tag, vr_of(tag), length, position + 8, depth, end, implicit=True)

    def _value(
        self, tag: int, vr: str, length: int, position: int, depth: int, end: int, *, implicit: bool = False
    ) -> tuple[Element, int]:
        if length == _UNDEFINED:
            if tag == PIXEL_DATA and vr != "SQ":
                return self._encapsulated(tag, position)
            if vr == "UN" or (implicit and self.explicit):  # CP-246: implicit VR little endian inside
                return self._of_unknown_length(tag, position, depth)
            return self.sequence(tag, position, None, depth)
        stop = position + length
        if stop > end or stop > len(self.body):
            raise Refusal(Reason.TRUNCATED)
        if vr == "UN" and not tag >> 16 & 1:
            return self._known_as(tag, position, stop, depth), stop
        if vr == "SQ":
            parser = self._inner(implicit_little=True) if implicit and self.explicit else self
            return parser.sequence_or_bytes(tag, position, stop, depth), stop
        return Element(tag, vr, self._ordered(self.body[position:stop], vr)), stop

    def _known_as(self, tag: int, position: int, stop: int, depth: int) -> Element:
        """A public element sent as UN: its value is implicit VR little endian (PS3.5 6.2.2)."""
        vr = vr_of(tag)
        if vr == "SQ":
            return self._inner(implicit_little=True).sequence_or_bytes(tag, position, stop, depth)
        return Element(tag, vr, self.body[position:stop])

    def _of_unknown_length(self, tag: int, position: int, depth: int) -> tuple[Element, int]:
        """UN of undefined length: implicit VR inside (CP-246), but some write it as the file around it."""
        try:
            return self._inner(implicit_little=True).sequence(tag, position, None, depth)
        except (Refusal, struct.error, IndexError):
            return self.sequence(tag, position, None, depth)

    def _inner(self, *, implicit_little: bool) -> _Parser:
        return _Parser(self.body, explicit=not implicit_little, little=True, left=self.left)

    def _count(self) -> None:
        if next(self.left, None) is None:
            raise Refusal(Reason.UNREADABLE, f"more than {_MOST_ELEMENTS:,} elements")

    def _ordered(self, value: memoryview, vr: str) -> Buffer:
        size = _WORD.get(vr)
        if self.little or size is None or len(value) % size:
            return value
        return np.frombuffer(value, f">u{size}").astype(f"<u{size}").tobytes()

    def sequence_or_bytes(self, tag: int, position: int, stop: int, depth: int) -> Element:
        """A sequence of defined length; where something else stands in its place, bytes that no rule keeps."""
        try:
            return self.sequence(tag, position, stop, depth)[0]
        except (Refusal, struct.error, IndexError):
            return Element(tag, "UN", self.body[position:stop])

    def sequence(self, tag: int, position: int, stop: int | None, depth: int) -> tuple[Element, int]:
        """A sequence of defined (`stop`) or undefined length."""
        if depth > _MAX_DEPTH:
            raise Refusal(Reason.UNREADABLE, "sequences nested too deep")
        items: list[Dataset] = []
        while stop is None or position < stop:
            group, number = self.tag_of(self.body, position)
            (length,) = self.long_of(self.body, position + 4)
            position += 8
            mark = group << 16 | number
            if mark == _SEQUENCE_END:
                break
            if mark != _ITEM:
                raise Refusal(Reason.UNREADABLE, "sequence without items")
            item, position = self._item(position, None if length == _UNDEFINED else position + length, depth)
            items.append(item)
        return Element(tag, "SQ", items=items), position if stop is None else stop

    def _item(self, position: int, stop: int | None, depth: int) -> tuple[Dataset, int]:
        self._count()
        item = Dataset()
        end = len(self.body) if stop is None else stop
        if end > len(self.body):
            raise Refusal(Reason.TRUNCATED)
        while stop is None or position < stop:
            group, number = self.tag_of(self.body, position)
            if group == 0xFFFE:
                if number != 0xE00D:
                    raise Refusal(Reason.UNREADABLE, "item without end")
                position += 8
                break
            element, position = self.element(position, depth + 1, end)
            item.add(element)
        return item, position

    def _encapsulated(self, tag: int, position: int) -> tuple[Element, int]:
        fragments: list[Buffer] = []
        while True:
            group, number = self.tag_of(self.body, position)
            (length,) = self.long_of(self.body, position + 4)
            position += 8
            mark = group << 16 | number
            if mark == _SEQUENCE_END:
                break
            if mark != _ITEM:
                raise Refusal(Reason.UNREADABLE, "pixel fragments without items")
            self._count()
            if position + length > len(self.body):
                raise Refusal(Reason.TRUNCATED)
            fragments.append(self.body[position : position + length])
            position += length
        return Element(tag, "OB", fragments=fragments[1:]), position


_VR_CACHE: dict[int, str] = {}


def vr_of(tag: int) -> str:
    """The dictionary's VR of a public tag, `UN` where it has none. Of several: US before SS, OW before OB."""
    vr = _VR_CACHE.get(tag)
    if vr is None:
        vr = _VR_CACHE[tag] = _look_up(tag)
    return vr


def _look_up(tag: int) -> str:
    if tag & 0xFFFF == 0:
        return "UL"
    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UN"
    if "OW" in vr:
        return "OW"
    return vr.split(" or ")[0]


# --- writing ----------------------------------------------------------------------------------------------------------

_SHORT = struct.Struct("<HH2sH").pack
_LONG = struct.Struct("<HH2sHL").pack
_MARK = struct.Struct("<HHL").pack
IMPLEMENTATION_UID = b"2.25.288837246013586371205219573412869414"
IMPLEMENTATION_NAME = b"RADIA 1"


def encode(dataset: Dataset) -> bytes:
    """A data set as explicit VR little endian. Sequences have defined lengths."""
    return b"".join(_encoded(dataset))


def encode_element(element: Element) -> list[Buffer]:
    """One element as pieces of explicit VR little endian."""
    tag, vr = element.tag, element.vr
    group, number = tag >> 16, tag & 0xFFFF
    if element.fragments is not None:
        pieces: list[Buffer] = [_LONG(group, number, b"OB", 0, _UNDEFINED), _MARK(0xFFFE, 0xE000, 0)]
        for fragment in element.fragments:
            odd = len(fragment) & 1
            pieces += [_MARK(0xFFFE, 0xE000, len(fragment) + odd), fragment, b"\0" * odd]
        return [*pieces, _MARK(0xFFFE, 0xE0DD, 0)]
    if element.items is not None:
        inner: list[Buffer] = []
        for item in element.items:
            content = encode(item)
            inner += [_MARK(0xFFFE, 0xE000, len(content)), content]
        return [_LONG(group, number, b"SQ", 0, sum(map(len, inner))), *inner]
    value = element.value
    odd = len(value) & 1
    padding = (b"\0" if vr in ("UI", "OB", "UN") else b" ") * odd
    if vr in _LONG_VRS:
        return [_LONG(group, number, vr.encode(), 0, len(value) + odd), value, padding]
    return [_SHORT(group, number, vr.encode(), len(value) + odd), value, padding]


def _encoded(dataset: Dataset) -> list[Buffer]:
    pieces: list[Buffer] = []
    for tag in sorted(dataset.elements):
        pieces += encode_element(dataset.elements[tag])
    return pieces


def encode_header(sop_class: str, sop_instance: str, syntax: str) -> bytes:
    """An empty preamble and a new group 2 that names nobody (PS3.10 7.1)."""
    meta = Dataset()
    for tag, vr, value in (
        (0x00020001, "OB", b"\0\1"),
        (0x00020002, "UI", sop_class.encode()),
        (0x00020003, "UI", sop_instance.encode()),
        (0x00020010, "UI", syntax.encode()),
        (0x00020012, "UI", IMPLEMENTATION_UID),
        (0x00020013, "SH", IMPLEMENTATION_NAME),
    ):
        meta.add(Element(tag, vr, value))
    body = encode(meta)
    return bytes(128) + b"DICM" + _SHORT(2, 0, b"UL", 4) + struct.pack("<L", len(body)) + body
