"""The append-only record of who did what to which data, and the proof that it was not changed afterwards.

An event is one line of canonical JSON. The chain is `hash = SHA-256(previous hash ‖ SHA-256(event))`, so an excerpt can
prove an event's place with the digests of its neighbours alone, without showing them. Where the site has a ledger key,
each hash also carries an HMAC: who can write to the database but does not hold the key cannot write a new chain.
`Anchor`s (a sequence number and its hash), kept anywhere else, show that the tail was not cut.

One event stands for a batch, a snapshot or a model, never for one image: events carry the digests of the Parquet files
whose rows are the images. What the events mean together is `radia.trace`'s to say. Nothing here quotes a patient's
values: ids in events are pseudonyms and digests.
"""

from __future__ import annotations

from radia.ledger.code import code_version
from radia.ledger.events import FORMAT, GENESIS, Action, Anchor, Event, canonical, chain
from radia.ledger.site import file_digests, open_ledger, rekey, verify_artefacts
from radia.ledger.store import Ledger
from radia.ledger.verification import Verification

__all__ = [
    "FORMAT",
    "GENESIS",
    "Action",
    "Anchor",
    "Event",
    "Ledger",
    "Verification",
    "canonical",
    "chain",
    "code_version",
    "file_digests",
    "open_ledger",
    "rekey",
    "verify_artefacts",
]
