"""The check after cleaning: an independent look at what would be written.

What belongs here: parsing the output anew (by pydicom, not by our own parser) and searching it for the source's
identifiers. What does not: repairing. Any failure refuses the file.
"""

from __future__ import annotations

from io import BytesIO

import pydicom

from radia.dicom.container import Buffer, Element
from radia.dicom.profile import Action, Profile
from radia.dicom.text import Identifiers
from radia.errors import Reason, Refusal

_HEAD = 2048  # bytes of the pixel data that are searched as well: there a stream keeps its comments
_STATED = frozenset(
    {0x00080005, 0x00100010, 0x00100020, 0x00100030, 0x00101010, 0x00280301, 0x00280303}
    | {0x00120062, 0x00120063, 0x00120064, 0x7FE00010}
)


def verify(
    pieces: list[Buffer], pixels: Element, identifiers: Identifiers, profile: Profile, *, made: list[bytes]
) -> None:
    """Raises Refusal (RESIDUAL_IDENTIFIER) where an element may not stand or an identifier is still in the bytes."""
    bulk = [pixels.value, *(pixels.fragments or ())]
    header = b"".join(piece[:_HEAD] if any(piece is part for part in bulk) else piece for piece in pieces)
    dataset = pydicom.dcmread(BytesIO(header), stop_before_pixels=True)
    _allowed(dataset, profile)
    for piece in made:  # pseudonyms, new UIDs and our own statements may resemble an identifier by chance
        header = header.replace(piece, b"")
    if identifiers.stand_in(header):
        raise Refusal(Reason.RESIDUAL_IDENTIFIER)


def _allowed(dataset: pydicom.Dataset, profile: Profile) -> None:
    for key in list(dataset.keys()):
        tag = int(key)
        if tag & 0x10000 and "retain_safe_private" in profile.options:
            continue
        if tag >> 24 == 0x60 and "clean_graphics" in profile.options:
            continue
        if tag not in _STATED and profile.rule(tag).action is Action.REMOVE:
            raise Refusal(Reason.RESIDUAL_IDENTIFIER, "an element that may not stand")
        if dataset.get_item(key).VR == "SQ":  # the others stay raw: nobody needs them decoded
            for item in dataset[key].value:
                _allowed(item, profile)
