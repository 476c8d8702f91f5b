"""What one event of the ledger is: its fields, its canonical text, its hash, and what it may hold."""

import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from radia.errors import LedgerError

FORMAT = 2
"""The version of the tables and of the events. A ledger of a later one is refused, not guessed at.

Since 2 an event is also found by the people that its parameters name; events of format 1 stay as they are.
"""

ROLES = ("approver", "reader", "person")
"""Parameters that name a person: by whose word something happened, where a service account wrote it down."""

GENESIS = "0" * 64
"""The hash before the first event."""


class Action(StrEnum):
    """What an event records: the steps of the pipeline, what people do, and DICOM's audit event types.

    `imported`, `exported`, `accessed` and `queried` mirror DICOM PS3.15 A.5.3 (DICOM Instances Transferred, Export,
    DICOM Instances Accessed, Query): from them a hospital's log of who used which information can be drawn.
    """

    INTAKE = "intake"
    DEIDENTIFY = "deidentify"
    CONTRADICTION = "contradiction"
    IMAGES = "images"
    LABELS = "labels"
    CHECK = "check"
    QUALITY = "quality"
    SNAPSHOT = "snapshot"
    BASE_MODEL = "base-model"
    TRAIN_BASE = "train-base"
    SUSPECTS = "suspects"
    QUEUE = "queue"
    READ = "read"
    NOISE = "noise"
    FINETUNE = "finetune"
    EVALUATE = "evaluate"
    GATE = "gate"
    REGISTER = "register"
    PROMOTE = "promote"
    REJECT = "reject"
    ROLLBACK = "rollback"
    PREDICT = "predict"
    MONITOR = "monitor"
    WITHDRAW = "withdraw"
    ERASE = "erase"
    REIDENTIFY = "reidentify"
    RESTORE = "restore"
    BUNDLE = "bundle"
    REKEY = "rekey"
    BACKUP = "backup"
    RETENTION = "retention"
    IMPORTED = "imported"
    EXPORTED = "exported"
    ACCESSED = "accessed"
    QUERIED = "queried"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place in the chain, to be kept where the ledger's administrator cannot write."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The anchor of its text `<sequence>:<hash>`. Raises LedgerError."""
        if not (match := re.fullmatch(r"(\d+):([0-9a-f]{64})", text.strip())):
            raise LedgerError("an anchor is not `<sequence>:<64 hex digits>`")
        return cls(int(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class Event:
    """One entry. `body` is the canonical JSON that `hash` covers; every other field is read from it."""

    sequence: int
    at: str
    action: Action
    actor: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    parameters: Mapping[str, Any]
    subjects: tuple[str, ...]
    files: Mapping[str, str | None]
    code: str
    once: str | None
    previous: str
    hash: str
    body: str = field(repr=False)

    @property
    def anchor(self) -> Anchor:
        """This event's place in the chain."""
        return Anchor(self.sequence, self.hash)

    @property
    def people(self) -> list[str]:
        """The people that it names beside the account that wrote it: an approver, a reader, who asked."""
        return _people_in(self.parameters)


def canonical(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces, UTF-8. Raises LedgerError for what JSON cannot hold exactly.

    Floats are written by Python's shortest text that reads back as the same double; NaN and infinity are refused, and
    so are keys that are not text, because JSON would change them without a word.
    """
    _check_exact(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LedgerError("an event holds text that is not valid Unicode") from error
    return text


def chain(previous: str, body: str) -> str:
    """The hash of an event that follows `previous`."""
    return hashlib.sha256(bytes.fromhex(previous) + hashlib.sha256(body.encode()).digest()).hexdigest()


def mac_of(key: bytes | None, hash_: str) -> str | None:
    """HMAC-SHA256 of an event's hash (64 hex digits), where there is a key."""
    return hmac.digest(key, bytes.fromhex(hash_), "sha256").hex() if key is not None else None


def terms_of(entry: Mapping[str, Any]) -> list[str]:
    """The terms by which an event is found, each once, in a fixed order."""
    terms = set(entry.get("subjects", ()))
    for table in (entry.get("inputs"), entry.get("outputs")):
        if table:
            terms.update(table)
            terms.update(table.values())
    if entry["format"] >= 2:
        terms.update(_people_in(entry.get("parameters", {})))
    return sorted(terms)


def _people_in(parameters: Mapping[str, Any]) -> list[str]:
    named = (parameters.get(role) for role in ROLES)
    return list(dict.fromkeys(person for person in named if isinstance(person, str) and person))


def event_of(body: str, previous: str, hash_: str) -> Event:
    """The event of a row."""
    entry = json.loads(body)
    return Event(
        sequence=entry["sequence"],
        at=entry["at"],
        action=Action(entry["action"]),
        actor=entry["actor"],
        inputs=entry.get("inputs", {}),
        outputs=entry.get("outputs", {}),
        parameters=entry.get("parameters", {}),
        subjects=tuple(entry.get("subjects", ())),
        files=entry.get("files", {}),
        code=entry["code"],
        once=entry.get("once"),
        previous=previous,
        hash=hash_,
        body=body,
    )


def known_action(action: str) -> str:
    """An action that is a value of `Action`. Raises LedgerError."""
    try:
        return str(Action(action))
    except ValueError as error:
        raise LedgerError(f"unknown action {action!r}; expected one of: {', '.join(Action)}") from error


def plain(text: object, what: str) -> str:
    """Text of one line that is not empty. Raises LedgerError."""
    if not isinstance(text, str) or not text or any(ord(character) < 32 for character in text):
        raise LedgerError(f"an event's {what} must be text of one line, and not empty")
    return text


def digest_table(table: Mapping[str, str] | None) -> dict[str, str]:
    """Names and digests, each plain text. Raises LedgerError."""
    return {plain(name, "input or output"): plain(digest, "digest") for name, digest in (table or {}).items()}


def _check_exact(value: object) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise LedgerError(f"an event's key is a {type(key).__name__}: expected text")
            _check_exact(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_exact(item)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise LedgerError("an event holds a number that is not finite: write null or a word instead")
    elif value is not None and not isinstance(value, str | int):
        raise LedgerError(f"an event cannot hold a {type(value).__name__}: expected what JSON holds")
