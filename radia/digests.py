"""SHA-256 of files, folders and values: how everything here is told apart and recognised again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_json(value: object) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_folder(folder: Path) -> str:
    """SHA-256 over the relative names and contents of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return of_json([[path.relative_to(folder).as_posix(), of_file(path)] for path in files])
