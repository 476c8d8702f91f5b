"""Freezes a checked manifest and its labels under a digest of their content, versions them with DVC, brings them back.

The digest is SHA-256 over canonical rows: it does not depend on the order of rows, the names of batches, where a
picture lies in its shard, or how Parquet encodes a table. Whoever holds the same studies, labels and split gets the
same digest. Nothing here ever removes a snapshot: `dvc gc` is never called.
"""

from __future__ import annotations

from radia.snapshot.content import (
    CONTENT,
    FORMAT,
    PLACE,
    SIDES,
    Side,
    Snapshot,
    freeze,
    load,
    outside_test,
    split_of,
)
from radia.snapshot.versions import DVC_CONFIG, anchors, forget_versions, named_objects, note_anchor, restore, version

__all__ = [
    "CONTENT",
    "DVC_CONFIG",
    "FORMAT",
    "PLACE",
    "SIDES",
    "Side",
    "Snapshot",
    "anchors",
    "forget_versions",
    "freeze",
    "load",
    "named_objects",
    "note_anchor",
    "outside_test",
    "restore",
    "split_of",
    "version",
]
