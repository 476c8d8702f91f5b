"""The check after cleaning: an independent look at what would be written.

What belongs here: reading the output anew, by a reader of its own that knows the one form we write and nothing else,
and searching it for the source's identifiers. What does not: repairing. Any failure refuses the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache

from radia.dicom.container import Buffer, Element
from radia.dicom.identifiers import Identifiers
from radia.dicom.profile import Action, Profile, safe_private
from radia.errors import Reason, Refusal

_FEW = 16  # fewer bytes than that are looked at together with the header
_STATED = frozenset(
    {0x00080005, 0x00100010, 0x00100020, 0x00100030, 0x00101010, 0x00280301, 0x00280303}
    | {0x00120062, 0x00120063, 0x00120064, 0x7FE00010}
)
_PREAMBLE = bytes(128) + b"DICM"
_PIXEL_DATA = 0x7FE00010
_META = frozenset({0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013})
_LONG = frozenset([b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"])
_element = struct.Struct("<HH2sH").unpack_from
_length = struct.Struct("<L").unpack_from
_item = struct.Struct("<LL").unpack_from
_ITEM = 0xE000FFFE


def verify(
    pieces: list[Buffer],
    pixels: Element | None,
    identifiers: Identifiers,
    profile: Profile,
    *,
    made: Iterable[bytes],
    methods: list[str],
) -> None:
    """Raises Refusal (RESIDUAL_IDENTIFIER) where an element may not stand or an identifier is still in the bytes.

    pieces: the file to be; pixels: its pixel data; made: our own values (pseudonyms, new UIDs, moved dates), which may
    resemble an identifier by chance; methods: the codes of what was done, which the file must state, no more, no less.
    """
    bulk = [] if pixels is None else [part for part in (pixels.value, *(pixels.fragments or ())) if len(part) > _FEW]
    large = set(map(id, bulk))
    header = b"".join(piece for piece in pieces if id(piece) not in large)
    if header[:132] != _PREAMBLE:
        raise Refusal(Reason.RESIDUAL_IDENTIFIER, "the preamble is not empty")
    _Walk(header, profile).file(with_pixels=pixels is not None, methods=methods)
    if identifiers.stand_in(header):
        for value in sorted(made, key=len, reverse=True):
            header = header.replace(value, b"")
        if identifiers.stand_in(header):
            raise Refusal(Reason.RESIDUAL_IDENTIFIER, "in the header")
    if any(map(identifiers.stand_in_ends, bulk)):
        raise Refusal(Reason.RESIDUAL_IDENTIFIER, "in the pixel data")


class _Walk:
    """Explicit VR little endian with sequences of defined length, every byte of it accounted for."""

    def __init__(self, header: bytes, profile: Profile) -> None:
        self.header, self.profile = header, profile
        self.private_allowed = "retain_safe_private" in profile.options
        self.graphics_allowed = "clean_graphics" in profile.options

    def file(self, *, with_pixels: bool, methods: list[str]) -> None:
        header = self.header
        position, end = len(_PREAMBLE), len(header)
        before = 0
        stated: list[str] = []
        try:
            while position < end:
                tag, vr, start, length = self._next(position)
                if tag <= before:
                    raise _odd()
                before = tag
                if tag == _PIXEL_DATA:
                    break
                if tag >> 16 == 2:
                    if tag not in _META:
                        raise _odd()
                else:
                    self._judge(tag, length)
                    if vr == b"SQ":
                        self._sequence(start, start + length)
                    if tag == 0x00120064:
                        stated = self._codes(start, start + length)
                position = start + length
        except struct.error as error:
            raise _odd() from error
        if (before == _PIXEL_DATA) != with_pixels or (before != _PIXEL_DATA and position != end):
            raise _odd()
        if stated != methods:
            raise Refusal(Reason.RESIDUAL_IDENTIFIER, "the methods stated are not those applied")

    def _next(self, position: int) -> tuple[int, bytes, int, int]:
        group, number, vr, length = _element(self.header, position)
        if vr in _LONG:
            return group << 16 | number, vr, position + 12, _length(self.header, position + 8)[0]
        return group << 16 | number, vr, position + 8, length

    def _sequence(self, position: int, end: int) -> None:
        while position < end:
            mark, length = _item(self.header, position)
            position += 8
            if mark != _ITEM or position + length > end:
                raise _odd()
            self._elements(position, position + length)
            position += length

    def _elements(self, position: int, end: int) -> None:
        while position < end:
            tag, vr, start, length = self._next(position)
            self._judge(tag, length)
            position = start + length
            if position > end:
                raise _odd()
            if vr == b"SQ":
                self._sequence(start, position)

    def _judge(self, tag: int, length: int) -> None:
        if not length or tag in _STATED or self.profile.rule(tag).action is not Action.REMOVE:
            return
        if tag & 0x10000 and self.private_allowed and (tag & 0xFF00 == 0 or (tag >> 16, tag & 0xFF) in _safe_places()):
            return
        if tag >> 24 == 0x60 and self.graphics_allowed:
            return
        raise Refusal(Reason.RESIDUAL_IDENTIFIER, "an element that may not stand")

    def _codes(self, position: int, end: int) -> list[str]:
        """The code values in the items of a code sequence."""
        found = []
        while position < end:
            _, length = _item(self.header, position)
            tag, _, start, size = self._next(position + 8)
            if tag == 0x00080100:
                found.append(self.header[start : start + size].decode("latin-1").strip())
            position += 8 + length
        return found


@cache
def _safe_places() -> frozenset[tuple[int, int]]:
    """Groups and last bytes of the private attributes that are known to be safe."""
    return frozenset((group, number) for _, group, number in safe_private())


def _odd() -> Refusal:
    return Refusal(Reason.RESIDUAL_IDENTIFIER, "the output is not of the form that is written")
