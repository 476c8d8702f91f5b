"""Compressed pixel streams: what is not image goes (comments, application data, bytes after the end).

What belongs here: the syntax of JPEG, JPEG-LS and JPEG 2000 streams, and an encoder of lossless JPEG, which no package
has. What does not: decoding (the packages do that).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from radia.errors import Reason, Refusal

_EOI, _SOS, _LSE = 0xD9, 0xDA, 0xF8
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
# What a decoder needs: frame headers, tables (DHT, DAC, DQT, JPEG-LS presets), DNL, DRI, SOS. All else goes.
_EXACT = {0xDC: 4, 0xDD: 4}  # DNL, DRI: segments of one length (T.81 B.2)
_NEEDED = _FRAME_HEADERS | {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xF8, _SOS}
_J2K_SOT, _J2K_SOD, _J2K_EOC = 0xFF90, 0xFF93, 0xFFD9
# CAP, SIZ, COD, COC, CPF, QCD, QCC, RGN, POC, PPM, PPT. Comments go, and the optional lengths of parts with them.
_J2K_NEEDED = frozenset({0xFF50, 0xFF51, 0xFF52, 0xFF53, 0xFF59, *range(0xFF5C, 0xFF62)})


def without_comments(stream: bytes, *, jpeg_2000: bool) -> bytes:
    """One frame's code stream with the image alone. Raises Refusal where the stream is not whole."""
    try:
        return _jpeg_2000(stream) if jpeg_2000 else _jpeg(stream)
    except (struct.error, IndexError) as error:
        raise Refusal(Reason.TRUNCATED, "pixel data") from error


def precision(stream: bytes, *, jpeg_2000: bool) -> int:
    """Bits of a sample, as the code stream of `without_comments` has it. Raises Refusal where it does not say."""
    if jpeg_2000:  # SIZ comes first: the depth of the first component (A.5.1)
        return (stream[42] & 0x7F) + 1
    at = 2
    while at + 4 < len(stream):
        marker = stream[at + 1]
        if marker in _FRAME_HEADERS:
            return stream[at + 4]
        at += 2 if marker in _BARE else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise Refusal(Reason.UNREADABLE_PIXELS, "no frame header")


def _jpeg(stream: bytes) -> bytes:
    """JPEG (ITU T.81) and JPEG-LS (T.87) share markers. Of what a decoder does not need, colour transforms stay."""
    at = stream.find(b"\xff\xd8")
    if at < 0:
        raise Refusal(Reason.UNREADABLE_PIXELS, "no start of image")
    lossless_ls = False
    pieces = [b"\xff\xd8"]
    at += 2
    while True:
        while stream[at] == 0xFF and stream[at + 1] == 0xFF:
            at += 1
        if stream[at] != 0xFF:
            raise Refusal(Reason.UNREADABLE_PIXELS, "marker expected")
        marker = stream[at + 1]
        if marker == _EOI:
            return b"".join([*pieces, b"\xff\xd9"])
        if marker in _BARE:
            pieces.append(stream[at : at + 2])
            at += 2
            continue
        (length,) = struct.unpack_from(">H", stream, at + 2)
        segment = stream[at : at + 2 + length]
        lossless_ls |= marker == 0xF7
        at += 2 + length
        if marker in _NEEDED:
            pieces.append(_whole(marker, segment))
        elif marker == 0xEE and segment[4:9] == b"Adobe":
            pieces.append(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + segment[15:16])
        elif marker == 0xE8 and segment[4:8] == b"mrfx" and length == 7:
            pieces.append(segment)  # the colour transform of HP's JPEG-LS
        if marker == _SOS:
            end = _end_of_scan(stream, at, lossless_ls)
            pieces.append(stream[at:end])
            at = end


def _whole(marker: int, segment: bytes) -> bytes:
    """A segment that a decoder needs, no longer than it may be (T.81 B.2, T.87 C.2): there would be room for text."""
    if marker in _EXACT:
        return segment[:2] + _EXACT[marker].to_bytes(2, "big") + segment[4 : 2 + _EXACT[marker]]
    if marker == _LSE:
        if segment[4] in (2, 3, 4):
            raise Refusal(Reason.UNREADABLE_PIXELS, "a palette inside the stream")
        return segment if segment[4] == 1 and len(segment) == 15 else b""
    longest = (
        10 + 3 * segment[9] if marker in _FRAME_HEADERS else 8 + 2 * segment[4] if marker == _SOS else len(segment)
    )
    if len(segment) > longest:
        raise Refusal(Reason.UNREADABLE_PIXELS, "a segment longer than it can be")
    return segment


def _end_of_scan(stream: bytes, at: int, lossless_ls: bool) -> int:
    """Where the entropy-coded data end. After FF, JPEG stuffs a zero byte and JPEG-LS a zero bit."""
    while True:
        at = stream.find(b"\xff", at)
        if at < 0 or at + 1 >= len(stream):
            raise Refusal(Reason.TRUNCATED, "pixel data")
        following = stream[at + 1]
        stuffed = following < 0x80 if lossless_ls else following == 0
        if not stuffed and not 0xD0 <= following <= 0xD7:
            return at
        at += 2


def _jpeg_2000(stream: bytes) -> bytes:
    """A JPEG 2000 code stream (T.800 annex A), taken out of its JP2 boxes where it has them. COM segments go."""
    at = stream.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise Refusal(Reason.UNREADABLE_PIXELS, "no start of code stream")
    head, at = _j2k_segments(stream, at + 2, (_J2K_SOT,))
    pieces = [b"\xff\x4f", *head]
    while True:
        (marker,) = struct.unpack_from(">H", stream, at)
        if marker == _J2K_EOC:
            return b"".join([*pieces, b"\xff\xd9"])
        if marker != _J2K_SOT:
            raise Refusal(Reason.UNREADABLE_PIXELS, "tile expected")
        index, size = struct.unpack_from(">HL", stream, at + 4)
        end = at + size if size else stream.rfind(b"\xff\xd9")
        part_head, data_at = _j2k_segments(stream, at + 12, (_J2K_SOD,))
        if end > len(stream) or end < data_at:
            raise Refusal(Reason.TRUNCATED, "pixel data")
        body = b"".join([*part_head, stream[data_at:end]])
        pieces += [struct.pack(">HHHLBB", _J2K_SOT, 10, index, len(body) + 12, *stream[at + 10 : at + 12]), body]
        at = end


def _j2k_segments(stream: bytes, at: int, until: tuple[int, ...]) -> tuple[list[bytes], int]:
    kept: list[bytes] = []
    while True:
        (marker,) = struct.unpack_from(">H", stream, at)
        if marker in until:
            return kept, at
        if marker < 0xFF00:
            raise Refusal(Reason.UNREADABLE_PIXELS, "marker expected")
        (length,) = struct.unpack_from(">H", stream, at + 2)
        if marker in _J2K_NEEDED:
            kept.append(stream[at : at + 2 + length])
        at += 2 + length


# --- lossless JPEG, process 14, selection value 1 (T.81 annex H) -----------------------------------------------------

# Lengths of the codes of difference categories 0 to 16: short where differences of radiographs are frequent.
_CATEGORIES = bytes([4, 3, 2, 5, 1, 0, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])


def encode_jpeg_lossless(pixels: NDArray[np.unsignedinteger], bits: int) -> bytes:
    """Gray pixels [rows, cols] of at most 16 bits as lossless JPEG with first-order prediction. Bit-exact."""
    rows, cols = pixels.shape
    differences = _differences(pixels.astype(np.int32), bits)
    magnitude = np.abs(differences)
    category = np.zeros(magnitude.shape, np.int64)
    for bit in range(17):
        category += magnitude >= (1 << bit)
    order, lengths, codes = _huffman(np.bincount(category, minlength=17))
    extra = np.where(differences >= 0, differences, differences + (1 << category) - 1)
    extra_bits = np.where(category == 16, 0, category)
    extra = np.where(category == 16, 0, extra)
    scan = _packed((codes[category] << extra_bits) | extra, lengths[category] + extra_bits)
    counts = bytes(int((lengths[list(order)] == n).sum()) for n in range(1, 17))
    table = counts + bytes(order)
    return b"".join(
        [
            b"\xff\xd8",
            b"\xff\xc3" + struct.pack(">HBHHB", 11, bits, rows, cols, 1) + b"\1\x11\0",
            b"\xff\xc4" + struct.pack(">HB", 3 + len(table), 0) + table,
            b"\xff\xda\0\x08\1\1\0\1\0\0",
            scan,
            b"\xff\xd9",
        ]
    )


def _differences(pixels: NDArray[np.int32], bits: int) -> NDArray[np.int64]:
    predicted = np.empty_like(pixels)
    predicted[:, 1:] = pixels[:, :-1]
    predicted[1:, 0] = pixels[:-1, 0]
    predicted[0, 0] = 1 << (bits - 1)
    wrapped = (pixels - predicted) & 0xFFFF  # modulo 2^16 (H.1.2.1)
    return np.where(wrapped > 0x8000, wrapped - 0x10000, wrapped).astype(np.int64).ravel()


def _huffman(counts: NDArray[np.int64]) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]]:
    """Categories by falling frequency, and the length and the code of each: a canonical code, no word all ones."""
    order = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    lengths = np.zeros(17, np.int64)
    codes = np.zeros(17, np.int64)
    # Fifteen lengths 2, 3, 3, 3, 4, 5, 6 ... as the standard's luminance DC table; it suits any peaked distribution.
    pattern = [2, 3, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    code, length = 0, pattern[0]
    for place, category in enumerate(order):
        code <<= pattern[place] - length
        length = pattern[place]
        lengths[category], codes[category] = length, code
        code += 1
    return bytes(order), lengths, codes


def _packed(words: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    """Words of up to 32 bits written one after the other, the last byte filled with ones, FF stuffed with 00."""
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    bits = np.ones((total + 7) // 8 * 8, np.uint8)
    starts = ends - lengths
    for bit in range(int(lengths.max())):
        chosen = lengths > bit
        bits[starts[chosen] + bit] = (words[chosen] >> (lengths[chosen] - 1 - bit)) & 1
    return np.packbits(bits).tobytes().replace(b"\xff", b"\xff\0")
