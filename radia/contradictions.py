"""One SOP instance that came twice with different content, in whatever batches: nobody can say which file is true.

Within a batch the de-identification refuses both. Here it is settled across batches: the source files go to quarantine,
a ledger event says so, and `contradicted_images` gives the images that later snapshots leave out. Nothing is erased:
clean files, pixels and earlier snapshots stay as they are.

A file that was sent again by another way often differs in what is not of the image (its preamble, group 2, private
attributes). It contradicts nothing while its clean file is the same, byte by byte: the first one stays in use.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radia.errors import Reason
from radia.ledger import Action, Ledger
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

FOLDER = "contradictions"
"""Below a batch's quarantine: the files of this batch that another batch contradicts, and `reasons.json`."""
_COLUMNS = ["image", "output", "source_sha256", "profile", "table_sha256", "outcome"]


@dataclass(frozen=True)
class Settled:
    """images: pseudonyms of the instances that are out of use. files: how many files claim one of them."""

    images: tuple[str, ...]
    files: int


def contradicted_images(ledger: Ledger) -> frozenset[str]:
    """The images (pseudonyms) of which files with different content came."""
    return frozenset(subject for event in ledger.events(action=Action.CONTRADICTION) for subject in event.subjects)


def settle(site: Workspace, ledger: Ledger, *, actor: str) -> Settled:
    """Looks through all clean batches, and takes what contradicts itself out of use. Run again, it finishes what a
    killed call left, and writes each event once.
    """
    claims = _contradictions(site)
    for batch, part in claims.groupby("batch"):
        _quarantine(site, str(batch), part)
    told = {digest for event in ledger.events(action=Action.CONTRADICTION) for digest in event.inputs.values()}
    concerned = claims[claims["image"].isin(claims.loc[~claims["source_sha256"].isin(told), "image"])]
    if len(concerned):
        files = sorted(concerned["source_sha256"])
        ledger.append(
            Action.CONTRADICTION,
            actor=actor,
            subjects=sorted(set(concerned["image"])),
            inputs={f"source {number}": digest for number, digest in enumerate(files)},
            parameters={"batches": sorted(set(concerned["batch"])), "reason": Reason.DUPLICATE.value},
            once=f"contradiction:{hashlib.sha256(' '.join(files).encode()).hexdigest()}",
        )
        logger.warning("files with different content came of %d images: out of use", concerned["image"].nunique())
    return Settled(tuple(sorted(set(claims["image"]))), len(claims))


def _contradictions(site: Workspace) -> pd.DataFrame:
    """The rows of outcomes, with `batch`, of images that stand in several batches with different clean files."""
    import pandas as pd

    tables = [
        pd.read_parquet(path, columns=_COLUMNS).assign(batch=path.parent.name)
        for path in sorted(site.clean.glob("*/outcomes.parquet"))
    ]
    rows = pd.concat(tables) if tables else pd.DataFrame(columns=[*_COLUMNS, "batch"])
    rows = rows[rows["outcome"] == "clean"]
    claimed = rows[rows["image"].duplicated(keep=False)]
    differing = [image for image, part in claimed.groupby("image") if _differ(site, part)]
    return claimed[claimed["image"].isin(differing)]


def _differ(site: Workspace, part: pd.DataFrame) -> bool:
    """Whether the clean files of one image differ. Those of other rules, or erased ones, cannot be compared."""
    of_one_rule = part[part[["profile", "table_sha256"]].eq(part[["profile", "table_sha256"]].iloc[-1]).all(axis=1)]
    files = [site.clean / batch / output for batch, output in of_one_rule[["batch", "output"]].itertuples(index=False)]
    present = [path for path in files if path.is_file()]
    return any(not filecmp.cmp(present[0], other, shallow=False) for other in present[1:])


def _quarantine(site: Workspace, batch: str, part: pd.DataFrame) -> None:
    """Copies of the received files. What a hospital has moved to its own archive stays there; its reason is here."""
    target = site.quarantine / batch / FOLDER
    reasons = dict.fromkeys(sorted(part["source_sha256"]), Reason.DUPLICATE.value)
    if (target / "reasons.json").is_file() and json.loads((target / "reasons.json").read_text()) == reasons:
        return
    with written_whole(target) as folder:
        folder.mkdir()
        for digest in reasons:
            received = site.landing / batch / "files" / digest
            if received.is_file():
                shutil.copyfile(received, folder / digest)
        (folder / "reasons.json").write_text(json.dumps(reasons, indent=1) + "\n")
