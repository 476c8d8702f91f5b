"""A site's ledger: where it lies, its key, and the files whose digests it holds."""

import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from radia import digests, settings
from radia.errors import ChainBroken, KeyFileError
from radia.ledger.events import Action, Event
from radia.ledger.store import Ledger
from radia.workspace import Workspace


def open_ledger(site: Workspace, *, read_only: bool = False) -> Ledger:
    """The site's ledger, with its key and its anchor file.

    The key is `$RADIA_LEDGER_KEY` or `keys/ledger.key`, made when the ledger is; the anchor file is
    `$RADIA_LEDGER_ANCHOR` (better on another disk) or `ledger.anchor`. An auditor without the key opens it `read_only`:
    the chain is checked, the HMACs are not, and `Verification.authenticated` says so.
    """
    url = settings.ledger_url(site)
    anchor_file = settings.ledger_anchor_file(site)
    key = settings.ledger_key_from_environment()
    if key is None and (site.ledger_key_file.is_file() or (not read_only and _is_empty(url))):
        key = key_of(site.ledger_key_file)
    return Ledger(url, key=key, anchor_file=anchor_file, read_only=read_only)


def rekey(site: Workspace, *, person: str, reason: str, new_key: Path | None = None) -> Event:
    """Gives the ledger another key; a rekeying that was killed is finished when it is asked for again.

    new_key: a file with the next key, where the ledger's is a secret in the environment: whoever keeps the secrets puts
    it in the place of the old one. Without it the key is made, and takes the place of `keys/ledger.key`.
    Raises LedgerError, KeyFileError.
    """
    secret = settings.ledger_key_from_environment() is not None
    if secret and (new_key is None or not new_key.is_file()):
        raise KeyFileError("the ledger's key is a secret of the environment: name a file with the next one")
    following = new_key or site.ledger_key_file.with_suffix(".next")
    key = key_of(following)
    with closing(open_ledger(site)) as ledger:
        done = ledger.last(Action.REKEY) if ledger.is_signed_with(key) else None
        event = done or ledger.rekey(key, actor=person, reason=reason)
    if not secret:
        following.replace(site.ledger_key_file)
    return event


def _is_empty(url: str) -> bool:
    ledger = Ledger(url)
    try:
        return ledger.head().sequence == 0
    finally:
        ledger.close()


def verify_artefacts(site: Workspace, ledger: Ledger) -> int:
    """Re-checks every file whose digest events record, against the newest event that names it; how many there were.

    Raises ChainBroken, naming the first bad file (by the order of the events) and the event that recorded it.
    """
    meant: dict[str, tuple[str | None, Event]] = {}
    frequent = {Action.ACCESSED, Action.QUERIED, Action.PREDICT, Action.READ}
    for event in ledger.events(action=[str(action) for action in Action if action not in frequent]):
        for name, digest in event.files.items():
            meant.pop(name, None)
            meant[name] = (digest, event)
    for name, (digest, event) in meant.items():
        _check_file(site.root, name, digest, event)
    return sum(digest is not None for digest, _ in meant.values())


def file_digests(site: Workspace, paths: Iterable[Path]) -> dict[str, str | None]:
    """`files` of an event: each path below the data folder, with its SHA-256, or None where there is no such file."""
    root = site.root.resolve()
    return {
        path.resolve().relative_to(root).as_posix(): digests.of_file(path) if path.is_file() else None for path in paths
    }


def _check_file(root: Path, name: str, digest: str | None, event: Event) -> None:
    path = root / name
    recorded = f"event {event.sequence} ({event.action}) recorded it"
    if digest is None:
        if path.exists():
            raise ChainBroken(f"{name} is there again, though it was erased: {recorded}")
    elif not path.is_file():
        raise ChainBroken(f"{name} is missing: {recorded}")
    elif digests.of_file(path) != digest:
        raise ChainBroken(f"{name} was changed after {recorded}")


def key_of(path: Path) -> bytes:
    """The key in a file of 64 hex digits that its owner alone can read; made where there is none."""
    if not path.exists():
        _make_key(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyFileError(f"{path.name} can be read by others: run `chmod 600 {path}`")
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path.name} is not a ledger key: expected 64 hex digits") from error
    if len(key) != 32:
        raise KeyFileError(f"{path.name} holds {len(key)} bytes: expected 32")
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    try:
        os.link(partial, path)  # of two processes that make it at once, one is first
    except FileExistsError:
        return
    finally:
        partial.unlink()
