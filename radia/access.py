"""Who used which information (Quebec's Act respecting health information): drawn from the ledger, which keeps it.

An entry says who, under which account, when, what kind of use it was in DICOM's words (PS3.15 A.5.3), and which
pseudonyms it was about. Nothing here identifies a patient, and nothing is recorded here: the steps and pages that use
information write the events.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date

from radia.ledger import Action, Event, Ledger

KINDS = {
    Action.INTAKE: ("110104", "DICOM Instances Transferred"),
    Action.IMPORTED: ("110107", "Import"),
    Action.DEIDENTIFY: ("110103", "DICOM Instances Accessed"),
    Action.ACCESSED: ("110103", "DICOM Instances Accessed"),
    Action.READ: ("110103", "DICOM Instances Accessed"),
    Action.PREDICT: ("110103", "DICOM Instances Accessed"),
    Action.QUERIED: ("110112", "Query"),
    Action.EXPORTED: ("110106", "Export"),
    Action.BUNDLE: ("110106", "Export"),
    Action.RESTORE: ("110106", "Export"),
    Action.REIDENTIFY: ("110110", "Patient Record"),
    Action.WITHDRAW: ("110110", "Patient Record"),
    Action.ERASE: ("110105", "DICOM Study Deleted"),
}
"""Uses of information, with DICOM's code and name for each kind (PS3.16, DCM 110100 to 110114)."""

_SAID = ("what", "screen", "purpose", "reason", "pacs", "role")
"""Parameters of an event that say what the information was used for."""


@dataclass(frozen=True)
class Use:
    """One use. at: UTC. person: who; account: who wrote it down. about: pseudonyms, batches. event: its number."""

    at: str
    person: str
    account: str
    code: str
    kind: str
    action: str
    purpose: str
    about: tuple[str, ...]
    event: int


def uses(
    ledger: Ledger,
    *,
    about: Iterable[str] | None = None,
    person: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> Iterator[Use]:
    """Every recorded use that meets all conditions, in order; never all at once.

    about: any of these terms (a pseudonym, a batch). person: who used it, or on whose word. since, until: days in UTC,
    both included.
    """
    first = since.isoformat() if since else ""
    last = until.isoformat() if until else "9999"
    for event in _events(ledger, about, person):
        if first <= event.at[:10] <= last:
            yield _use(event)


def to_csv(found: Iterable[Use]) -> Iterator[str]:
    """The log as CSV (RFC 4180), a line at a time, the head first; many pseudonyms stand in one field with spaces."""
    yield _line(list(Use.__dataclass_fields__))
    for use in found:
        yield _line([" ".join(value) if isinstance(value, tuple) else str(value) for value in asdict(use).values()])


def _line(values: list[str]) -> str:
    # a field that a spreadsheet would take for a formula is led by an apostrophe
    safe = [f"'{value}" if value[:1] in ("=", "+", "-", "@") else value for value in values]
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(safe)
    return text.getvalue()


def _events(ledger: Ledger, about: Iterable[str] | None, person: str | None) -> Iterator[Event]:
    actions = [str(action) for action in KINDS]
    if about is not None:
        found = {event.sequence: event for term in about for event in ledger.each(action=actions, term=term)}
        chosen: Iterable[Event] = (found[number] for number in sorted(found))
    else:
        chosen = ledger.each(action=actions)
    return (event for event in chosen if person is None or person == event.actor or person in event.people)


def _use(event: Event) -> Use:
    code, kind = KINDS[event.action]
    said = [str(event.parameters[name]) for name in _SAID if event.parameters.get(name)]
    batches = [name for name in event.outputs if event.action in (Action.INTAKE, Action.DEIDENTIFY)]
    return Use(
        at=event.at,
        person=", ".join(event.people) or event.actor,
        account=event.actor,
        code=code,
        kind=kind,
        action=str(event.action),
        purpose="; ".join(said),
        about=(*event.subjects, *batches),
        event=event.sequence,
    )
