"""Along the ledger: which event made what another took, who decided, and which models came of a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from radia.errors import UnknownId
from radia.ledger import Action, Event, Ledger
from radia.trace.tree import unknown

CANDIDATE = "cxr-candidate"

_MAKING = [str(action) for action in Action if action not in {"accessed", "queried", "predict", "read", "bundle"}]
"""Steps that make something from something: what lineage is followed along."""


def candidate_of(ledger: Ledger, version: str) -> tuple[str, str]:
    """The full name of a model version, and that of the candidate which it is or was copied from."""
    name = version if "/" in version else f"{CANDIDATE}/{version}"
    promoted = None if name.startswith(CANDIDATE) else ledger.last(Action.PROMOTE, term=name)
    origins = (made for made in promoted.inputs if made.startswith(CANDIDATE)) if promoted else iter(())
    return name, next(origins, name)


def registration_of(ledger: Ledger, name: str, origin: str) -> Event:
    """The event that registered a candidate. Raises UnknownId."""
    registered = ledger.last(Action.REGISTER, term=origin)
    if registered is None:
        raise UnknownId(unknown("model version", "the ledger", name, registered_names(ledger)))
    return registered


def behind(ledger: Ledger, event: Event) -> Iterator[Event]:
    """Every event that made something an event took, and so on back, in the order in which they happened."""
    found: dict[int, Event] = {}
    waiting = [event]
    while waiting:
        taken = waiting.pop()
        for digest in set(taken.inputs.values()):
            if not is_digest(digest):
                continue
            for maker in ledger.events(term=digest, action=_MAKING, newest_first=True):
                if maker.sequence < taken.sequence and digest in maker.outputs.values():
                    if maker.sequence not in found:
                        found[maker.sequence] = maker
                        waiting.append(maker)
                    break
    return iter([found[sequence] for sequence in sorted(found)])


def beside(ledger: Ledger, made: Sequence[Event]) -> list[Event]:
    """What judged the same material without being on the way: the newest check of each kind, and the suspects."""
    found: dict[tuple[str, int], Event] = {}
    for event in made:
        if event.action != Action.SNAPSHOT:
            continue
        digests = {*filter(is_digest, event.inputs.values()), event.outputs.get("snapshot", "")}
        for digest in digests - {""}:
            for action in (Action.CHECK, Action.QUALITY, Action.SUSPECTS):
                for judged in ledger.events(action=action, term=digest, newest_first=True):
                    if action == Action.SUSPECTS or judged.sequence < event.sequence:
                        key = (str(action), event.sequence)
                        found[key] = max(judged, found.get(key, judged), key=lambda one: one.sequence)
                        break
    return list({event.sequence: event for event in found.values()}.values())


def is_digest(text: str) -> bool:
    """Whether text is an MD5 or a SHA-256 in hex digits."""
    return len(text) in (32, 64) and all(character in "0123456789abcdef" for character in text)


def snapshots_of(registered: Event, made: Sequence[Event]) -> list[str]:
    """The snapshots behind a registration, the one that it names first."""
    named = [registered.inputs[name] for name in ("snapshot",) if name in registered.inputs]
    return list(dict.fromkeys([*named, *(e.outputs["snapshot"] for e in made if "snapshot" in e.outputs)]))


def models_of(ledger: Ledger, snapshot: str) -> list[tuple[Event, str]]:
    """The registrations whose model was trained on a snapshot, each with the model's name."""
    registered = ledger.events(action=Action.REGISTER, term=snapshot)
    return [(event, name) for event in registered for name in event.outputs if "/" in name]


def registered_names(ledger: Ledger) -> list[str]:
    """The newest model versions, as the nearest to one that is not known."""
    newest = ledger.events(action=[Action.REGISTER, Action.PROMOTE], newest_first=True, limit=50)
    return list(dict.fromkeys(name for event in newest for name in event.outputs if "/" in name))


def withdrawn_patients(ledger: Ledger) -> frozenset[str]:
    """The pseudonyms of the patients who withdrew."""
    return frozenset(subject for event in ledger.events(action=Action.WITHDRAW) for subject in event.subjects)


def events_behind(ledger: Ledger, model: str) -> list[Event]:
    """The events that stand behind a model version (named as in `trace_model`), in order: what made it, judged it,
    registered it, and what was decided about it. Raises UnknownId.
    """
    name, origin = candidate_of(ledger, model)
    registered = registration_of(ledger, name, origin)
    made = list(behind(ledger, registered))
    decisions = ledger.events(action=[Action.PROMOTE, Action.REJECT, Action.ROLLBACK], term=origin)
    found = {event.sequence: event for event in [*made, *beside(ledger, made), registered, *decisions]}
    return [found[sequence] for sequence in sorted(found)]
