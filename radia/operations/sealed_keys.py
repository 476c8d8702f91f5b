"""A site's keys under a passphrase, for a backup: scrypt (RFC 7914) makes the key, AES-256-GCM seals."""

from __future__ import annotations

import json
import os
from pathlib import Path

from radia.errors import BackupError
from radia.settings import key_from_environment, ledger_key_from_environment
from radia.workspace import Workspace

LEAST_LETTERS = 12
_MARK = b"RADIA keys 1\n"
_SALT, _NONCE = 16, 12


def seal_keys(site: Workspace, passphrase: str) -> bytes:
    """The keys of the data folder, or of the environment where they are secrets. Raises BackupError."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(passphrase) < LEAST_LETTERS:
        raise BackupError(f"the passphrase has {len(passphrase)} letters: expected {LEAST_LETTERS} or more")
    keys = {path.name: path.read_text().strip() for path in sorted(site.key_file.parent.glob("*.key"))}
    for path, key in ((site.key_file, key_from_environment()), (site.ledger_key_file, ledger_key_from_environment())):
        if key is not None:
            keys[path.name] = key.hex()
    if not keys:
        raise BackupError("there is no key to seal: expected them in keys/ or in the environment")
    salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
    sealed = AESGCM(_stretched(passphrase, salt)).encrypt(nonce, json.dumps(keys).encode(), _MARK)
    return _MARK + salt + nonce + sealed


def open_keys(site: Workspace, sealed: bytes, passphrase: str) -> list[str]:
    """Writes sealed keys into the data folder, each for its owner alone; their names. Raises BackupError."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    body = sealed.removeprefix(_MARK)
    salt, nonce, text = body[:_SALT], body[_SALT : _SALT + _NONCE], body[_SALT + _NONCE :]
    try:
        keys: dict[str, str] = json.loads(AESGCM(_stretched(passphrase, salt)).decrypt(nonce, text, _MARK))
    except InvalidTag as error:
        raise BackupError("the passphrase is not the one that the keys were sealed under") from error
    folder = site.key_file.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, key in keys.items():
        _write_key(folder / Path(name).name, key)
    return sorted(keys)


def _stretched(passphrase: str, salt: bytes) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=32, n=2**16, r=8, p=1).derive(passphrase.encode())


def _write_key(path: Path, key: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key + "\n")
