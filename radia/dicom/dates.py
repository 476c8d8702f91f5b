"""Moving dates by a whole number of days (DA, DT and their older and ranged forms). Times of day stay as they are.

With whole days every interval of a patient is kept, across midnight too. A value that is no date is answered with None.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})\Z")
_OLD_DATE = re.compile(r"(\d{4})[.\-/](\d{2})[.\-/](\d{2})\Z")  # ACR-NEMA wrote 1997.07.04
_CLOCK = r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?"
_ZONE = r"[+\-](?:0\d|1[0-4])[0-5]\d"  # PS3.5 6.2: from -1200 to +1400
_DATETIME = re.compile(rf"(\d{{4}})(\d{{2}})?(\d{{2}})?({_CLOCK})?({_ZONE})?\Z")
_TIME = re.compile(r"(?:[01]\d|2[0-3])(?::?[0-5]\d(?::?(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?\Z")
_EARLIEST = date(1, 1, 1)


def shift_date(value: str, days: int) -> str | None:
    """A DA value, or a range of two, moved. Output has the form YYYYMMDD."""
    text = value.strip(" \0")
    if not text:
        return ""
    if "-" in text and not _OLD_DATE.match(text):
        ends = [shift_date(end, days) for end in text.split("-")]
        return None if len(ends) != 2 or None in ends else "-".join(str(end) for end in ends)
    found = _DATE.match(text) or _OLD_DATE.match(text)
    if not found:
        return None
    moved = _moved(int(found[1]), int(found[2]), int(found[3]), days)
    return moved.strftime("%Y%m%d").zfill(8) if moved else None


def shift_datetime(value: str, days: int) -> str | None:
    """A DT value moved. Keeps its precision and its time; a month or year alone moves by its middle."""
    text = value.strip(" \0")
    if not text:
        return ""
    found = _DATETIME.match(text)
    if not found:
        return _shift_range(text, days)
    year, month, day, time, zone = found.groups()
    moved = _moved(int(year), int(month or 7), int(day or (15 if month else 1)), days)
    if moved is None:
        return None
    digits = moved.strftime("%Y%m%d").zfill(8)
    kept = 8 if day else 6 if month else 4
    return digits[:kept] + (time or "") + (zone or "")


def _shift_range(text: str, days: int) -> str | None:
    for at in range(1, len(text) - 1):
        if text[at] == "-" and _DATETIME.match(text[:at]) and _DATETIME.match(text[at + 1 :]):
            return f"{shift_datetime(text[:at], days)}-{shift_datetime(text[at + 1 :], days)}"
    return None


def valid_time(value: str) -> bool:
    """Whether a TM value (or a range, or the older form with colons) is one."""
    parts = value.strip(" \0").split("-")
    return len(parts) <= 2 and all(not part or _TIME.match(part) for part in parts)


def _moved(year: int, month: int, day: int, days: int) -> date | None:
    try:
        moved = date(year, month, day) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return moved if moved > _EARLIEST else None


def years_between(born: str, on: str) -> int | None:
    """Whole years from one DA value to another; None where either is no date."""
    first, second = _DATE.match(born.strip(" \0")), _DATE.match(on.strip(" \0"))
    if not first or not second:
        return None
    try:
        a, b = (date(int(found[1]), int(found[2]), int(found[3])) for found in (first, second))
    except ValueError:
        return None
    years = b.year - a.year - ((b.month, b.day) < (a.month, a.day))
    return years if 0 <= years <= 130 else None
