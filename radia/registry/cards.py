"""The words on a version: as much of its model card as MLflow takes, notes added to it, and an override of the gate.

What a model card says is `radia.card`'s; the whole of it is an artefact of the version's run.
"""

from __future__ import annotations

from radia.registry import connection
from radia.registry.names import version_of
from radia.workspace import Workspace

NOTE = "\n\n---\n**Note, added afterwards.** "
"""What begins a note on a card; the record's digest covers the card up to there."""

CARD_LETTERS, CARD_ROOM = 3900, 5000
"""What stands of a card on its version, and what MLflow's PostgreSQL takes: the rest is for words before it and notes.

SQLite takes any length, a server refuses the whole registration.
"""

REST_OF_CARD = "\n\n… The whole card is the artefact `model_card.md` of this version's run."

AGAINST_THE_GATE = "🔴 **Approved against the gate.**"
"""What the card of a model in use begins with where a person overrode the gate."""

OVERRIDE_LETTERS = 500


def note_on_card(site: Workspace, name: str, version: str, text: str) -> None:
    """Adds a note to a version's card (a withdrawal, for one), once."""
    with connection.client(site) as client:
        card = version_of(client, name, version).card
        if text not in card:
            client.update_model_version(name, version, description=noted(card, text))


def shortened(card: str) -> str:
    """What stands of a card on its version: all of it, or as many lines as fit and where the rest is."""
    if len(card) <= CARD_LETTERS:
        return card
    lines = card[: CARD_LETTERS - len(REST_OF_CARD)]
    return lines[: lines.rfind("\n")].rstrip() + REST_OF_CARD


def noted(card: str, text: str) -> str:
    """The card with one more note; where there is no room, older notes give way: the ledger has them all."""
    plain, *notes = card.split(NOTE)
    notes.append(text[: max(0, CARD_ROOM - len(plain) - len(NOTE))])
    while len(notes) > 1 and len(NOTE.join([plain, *notes])) > CARD_ROOM:
        notes.pop(0)
    return NOTE.join([plain, *notes])


def with_override(card: str, *, approver: str, override: str) -> str:
    """The card with, as its first words, who overrode the gate and why; without them where nobody did."""
    _, opened, rest = card.partition(AGAINST_THE_GATE)
    plain = rest.partition("\n\n")[2] if opened else card
    if not override:
        return plain
    said = " ".join(override.split())
    return f"{AGAINST_THE_GATE} {approver}: {said[:OVERRIDE_LETTERS]}\n\n{plain}"
