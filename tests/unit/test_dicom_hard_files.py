"""No identifier comes through, wherever it hides; no valid file is refused for it."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from io import BytesIO

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radia.dicom.deidentify import Engine
from radia.errors import Reason, Refusal
from radia.settings import DeidentifySettings
from tests.spec.hiding_elsewhere import KINDS, RENAMING, SYNTAXES, build, leaked, pixels

ENGINE = Engine(bytes(range(32)), DeidentifySettings(clean_pixels=False))
ALL_OPTIONS = Engine(
    bytes(range(32)),
    DeidentifySettings(
        clean_pixels=False, retain_safe_private=True, clean_descriptors=True, clean_structured_content=True,
        clean_graphics=True,
    ),
)  # fmt: skip
CLEANING = (
    "retain_safe_private", "retain_patient_characteristics", "retain_modified_dates", "clean_descriptors",
    "clean_structured_content", "clean_graphics",
)  # fmt: skip


@cache
def engine(options: frozenset[str]) -> Engine:
    chosen = {option: option in options for option in CLEANING}
    return Engine(bytes(range(32)), DeidentifySettings(clean_pixels=False, **chosen))


OF_OTHER_PIXELS = frozenset(
    [
        "secret at the end of the pixels",
        "overlay in unused bits",
        "text in the high bits",
        "second frame that is not counted",
    ]
)


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def clean(raw: bytes, engine: Engine = ENGINE) -> bytes:
    return b"".join(map(bytes, engine.deidentify_file(raw, "0" * 64).pieces))


def test_there_are_sixty_kinds_and_more() -> None:
    assert len(KINDS) >= 60
    assert len(SYNTAXES) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaks_and_pixels_stay(kind: str) -> None:
    place = list(KINDS).index(kind)
    for number, syntax in enumerate(SYNTAXES):  # with the KINDS, close to three thousand files
        seed = place * 12 + number
        raw, secrets = build([kind], syntax, seed)
        for chosen in (ENGINE, ALL_OPTIONS):
            out = clean(raw, chosen)
            assert leaked(out, secrets) == []
            if kind not in OF_OTHER_PIXELS:
                assert np.array_equal(pydicom.dcmread(BytesIO(out)).pixel_array, pixels(seed))


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS.keys() - RENAMING)), min_size=2, max_size=6, unique=True),
    syntax=st.sampled_from(sorted(SYNTAXES)),
    seed=st.integers(0, 10**6),
    options=st.sets(st.sampled_from(CLEANING)),
)
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_nothing_leaks_and_nothing_is_refused_of_several_places_under_several_options(
    kinds: list[str], syntax: str, seed: int, options: set[str]
) -> None:
    raw, secrets = build(kinds, syntax, seed)
    assert leaked(clean(raw, engine(frozenset(options))), secrets) == []


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
