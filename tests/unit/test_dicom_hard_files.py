"""No identifier comes through, wherever it hides; no valid file is refused for it."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radia.dicom.deidentify import Engine
from radia.errors import Reason, Refusal
from radia.settings import DeidentifySettings
from tests.spec.hard_files import KINDS, SYNTAXES, build, leaked, pixels

ENGINE = Engine(bytes(range(32)), DeidentifySettings(clean_pixels=False))
ALL_OPTIONS = Engine(
    bytes(range(32)),
    DeidentifySettings(
        clean_pixels=False, retain_safe_private=True, clean_descriptors=True, clean_structured_content=True,
        clean_graphics=True,
    ),
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def clean(raw: bytes, engine: Engine = ENGINE) -> bytes:
    return b"".join(map(bytes, engine.deidentify_file(raw, "0" * 64).pieces))


def test_there_are_sixty_kinds_and_more() -> None:
    assert len(KINDS) >= 60
    assert len(SYNTAXES) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaks_and_pixels_stay(kind: str) -> None:
    place = list(KINDS).index(kind)
    for syntax in list(SYNTAXES)[place % 3 :: 3]:
        raw, secrets = build([kind], syntax, place)
        out = clean(raw)
        assert leaked(out, secrets) == []
        image = pydicom.dcmread(BytesIO(out))
        if not kind.startswith(("secret at the end", "overlay in unused")):
            assert np.array_equal(image.pixel_array, pixels(place))


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=5, unique=True),
    syntax=st.sampled_from(sorted(SYNTAXES)),
    seed=st.integers(0, 10**6),
    options=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_nothing_leaks_from_several_places_at_once(kinds: list[str], syntax: str, seed: int, options: bool) -> None:
    raw, secrets = build(kinds, syntax, seed)
    if options:
        secrets -= {""}
    try:
        out = clean(raw, ALL_OPTIONS if options else ENGINE)
    except Refusal as refusal:
        if refusal.reason is not Reason.RESIDUAL_IDENTIFIER:  # refused rather than passed
            raise
        return
    assert leaked(out, secrets) == []


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_file_cut_anywhere_is_refused_or_whole(syntax: str) -> None:
    raw, _ = build(["references", "private nested"], syntax, 1)
    whole = clean(raw)
    for cut in range(0, len(raw) - 8, 97):
        try:
            out = clean(raw[:cut])
        except Refusal:
            continue
        assert out == whole


@given(st.data())
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_damaged_bytes_end_in_a_refusal_or_a_clean_file_and_nothing_else(data: st.DataObject) -> None:
    raw, _ = build(["original attributes"], data.draw(st.sampled_from(sorted(SYNTAXES))), 2)
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Refusal):
        assert clean(bytes(damaged))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"\0" * 4096, Reason.EMPTY_FILE),
        (b"notes de la semaine\n" * 40, Reason.NOT_DICOM),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 400, Reason.NOT_DICOM),
        (bytes(128) + b"DICM", Reason.TRUNCATED),
    ],
)
def test_what_is_no_image_is_refused_by_name(raw: bytes, reason: Reason) -> None:
    with pytest.raises(Refusal) as refused:
        clean(raw)
    assert refused.value.reason is reason


def test_a_refusal_quotes_nothing_of_the_file() -> None:
    raw, secrets = build(["plain"], "explicit", 4)
    with pytest.raises(Refusal) as refused:
        clean(raw.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    assert leaked(str(refused.value).encode(), secrets) == []
