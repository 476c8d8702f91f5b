"""What a header and a code stream announce of an image, bounded before anything of it is decoded.

A decoder believes the stream and makes room for what that says: six hundred bytes can ask for eight gigabytes. What
belongs here: sizes as streams have them, and what no radiograph has. What does not: decoding.
"""

from __future__ import annotations

import struct

from radia.errors import Reason, Refusal

MAX_PIXELS = 40_000_000
"""Of a frame. The finest detectors for a chest have 18 million."""
MAX_CHANNELS, MAX_SCANS = 4, 100


def check_size(rows: int, columns: int) -> None:
    """Raises Refusal where a frame would have no pixel, or more than an image has."""
    if rows <= 0 or columns <= 0:
        raise Refusal(Reason.UNREADABLE_PIXELS, "no size is given")
    if rows * columns > MAX_PIXELS:
        raise too_large()


def too_large() -> Refusal:
    """The refusal of an image that has more than an image has."""
    return Refusal(Reason.UNREADABLE_PIXELS, f"more than {MAX_PIXELS:,} pixels, or too deep")


def check_stream(stream: bytes, *, jpeg_2000: bool) -> None:
    """Raises Refusal where one frame's code stream announces more than an image has, or nothing."""
    try:
        rows, columns, channels = _size_of_jpeg_2000(stream) if jpeg_2000 else _size_of_jpeg(stream)
    except (struct.error, IndexError) as error:
        raise Refusal(Reason.TRUNCATED, "pixel data") from error
    check_size(rows, columns)
    if not 0 < channels <= MAX_CHANNELS:
        raise Refusal(Reason.UNREADABLE_PIXELS, "a number of channels that no image has")
    if not jpeg_2000 and stream.count(b"\xff\xda") > MAX_SCANS:
        raise Refusal(Reason.UNREADABLE_PIXELS, f"more than {MAX_SCANS} scans")


def _size_of_jpeg_2000(stream: bytes) -> tuple[int, int, int]:
    """Rows, columns and channels of the SIZ segment (T.800 A.5.1); its tiles may be no more than the standard has."""
    at = stream.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise Refusal(Reason.UNREADABLE_PIXELS, "no start of code stream")
    right, bottom, left, top, wide, high, x, y, channels = struct.unpack_from(">8LH", stream, at + 8)
    if not (wide > 0 and high > 0 and left < right and top < bottom):
        raise Refusal(Reason.UNREADABLE_PIXELS, "a size that cannot be")
    if (-(-(right - x) // wide)) * (-(-(bottom - y) // high)) > 65535:
        raise Refusal(Reason.UNREADABLE_PIXELS, "more tiles than can be")
    return bottom - top, right - left, channels


def _size_of_jpeg(stream: bytes) -> tuple[int, int, int]:
    """Rows, columns and channels of the greatest frame header (T.81 B.2.2, T.87 C.2.2)."""
    at = stream.find(b"\xff\xd8") + 2
    found = (0, 0, 0)
    while at >= 2 and at + 4 <= len(stream):
        if stream[at] != 0xFF:
            break
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            break
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns, channels = struct.unpack_from(">HHB", stream, at + 5)
            found = max(found, (rows, columns, channels), key=lambda size: size[0] * size[1] * size[2])
        at += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    if not found[2]:
        raise Refusal(Reason.UNREADABLE_PIXELS, "no frame header")
    return found
