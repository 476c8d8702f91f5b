"""Keyed pseudonyms: the same key gives the same names on every machine, in any order; another key, none in common.

What belongs here: the key and what is derived from it. What does not: where an identifier stands in a file.
Everything is HMAC-SHA-256 of a normalised identifier, one domain a kind, so that a patient and an accession of one
number share nothing. Nothing can be computed back without the key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import unicodedata
from pathlib import Path

from radia.errors import KeyFileError
from radia.settings import key_from_environment

KEY_BYTES = 32
# No vowels and no digits: a pseudonym never contains a name or a number by chance.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_LENGTH = 16  # 69 bits: a collision among a million is a one-in-a-billion event
_MOST_DAYS = 3650


class Pseudonymizer:
    """All that is derived from one key."""

    def __init__(self, key: bytes) -> None:
        """Raises KeyFileError where the key is not 32 bytes."""
        if len(key) != KEY_BYTES:
            raise KeyFileError(f"the key holds {len(key)} bytes: expected {KEY_BYTES} (openssl rand -hex 32)")
        self._key = key
        self.fingerprint = self._digest("fingerprint", "").hex()[:16]

    def patient(self, patient_id: str, issuer: str = "") -> str:
        """`P` and 16 letters, of the identifier in its normal form joined with who issued it."""
        return "P" + self._letters("patient", f"{normal_form(patient_id)}\0{normal_form(issuer)}")

    def study(self, uid: str) -> str:
        """`S` and 16 letters, of a Study Instance UID."""
        return "S" + self._letters("study", _clean_uid(uid))

    def image(self, sop_uid: str) -> str:
        """`I` and 16 letters, of a SOP Instance UID."""
        return "I" + self._letters("image", _clean_uid(sop_uid))

    def accession(self, number: str) -> str:
        """`N` and 16 letters, of an accession number in its normal form. Empty for an empty number."""
        normal = normal_form(number)
        return "N" + self._letters("accession", normal) if normal else ""

    def uid(self, uid: str) -> str:
        """A UID of the 2.25 form (PS3.5 B.2) in place of another. Valid, and the same wherever the old one stands."""
        number = int.from_bytes(self._digest("uid", _clean_uid(uid))[:16], "big")
        number = number & ~(0xF << 76) | (8 << 76)  # the version and variant bits of a UUID
        return f"2.25.{number & ~(3 << 62) | (2 << 62)}"

    def date_offset(self, patient: str) -> int:
        """Days to add to every date of one patient (a pseudonym): 1 to 3650 back, whole, so that times stay true."""
        return -1 - int.from_bytes(self._digest("dates", patient)[:8], "big") % _MOST_DAYS

    def secret(self, purpose: str) -> bytes:
        """32 bytes for another keyed purpose (the crosswalk's encryption)."""
        return self._digest(f"secret:{purpose}", "")

    def _digest(self, domain: str, text: str) -> bytes:
        return hmac.new(self._key, f"radia/1/{domain}\0{text}".encode(), hashlib.sha256).digest()

    def _letters(self, domain: str, text: str) -> str:
        number = int.from_bytes(self._digest(domain, text), "big")
        letters = []
        for _ in range(_LENGTH):
            number, index = divmod(number, len(_LETTERS))
            letters.append(_LETTERS[index])
        return "".join(letters)


def normal_form(identifier: str) -> str:
    """An identifier without what systems disagree on: padding, case, and the composition of accents."""
    text = unicodedata.normalize("NFKC", identifier.replace("\0", " "))
    return " ".join(text.split()).upper()


def _clean_uid(uid: str) -> str:
    return uid.strip(" \0")


def load_key(path: Path, *, create: bool = False) -> bytes:
    """The key: `$RADIA_KEY` where it is set, else the file (64 hex digits, or 32 raw bytes; mode 0600).

    With `create` a missing file is made. Raises KeyFileError where the file is missing, readable by others, or no key.
    """
    from_environment = key_from_environment()
    if from_environment is not None:
        return from_environment
    if create and not path.exists():
        _make_key(path)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise KeyFileError(f"no key at {path}: make one with `(umask 077; openssl rand -hex 32 > {path})`") from error
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise KeyFileError(f"{path} can be read by others (mode {mode:04o}): run `chmod 600 {path}`")
    return _key_of(raw, path)


def _make_key(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
    except FileExistsError:
        return  # another process made it first
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error


def _key_of(raw: bytes, path: Path) -> bytes:
    if len(raw) == KEY_BYTES:
        return raw
    try:
        key = bytes.fromhex(raw.decode("ascii").strip())
    except ValueError as error:
        raise KeyFileError(f"{path} is not a key: expected 64 hex digits (openssl rand -hex 32)") from error
    if len(key) != KEY_BYTES:
        raise KeyFileError(f"{path} holds {len(key)} bytes: expected {KEY_BYTES} (openssl rand -hex 32)")
    return key
