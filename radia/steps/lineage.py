"""Questions asked of what the steps left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radia.ledger import verify_artefacts
from radia.steps.run import Run

if TYPE_CHECKING:
    from radia.trace import Tree


def trace(run: Run, kind: str, identifier: str) -> Tree:
    """The lineage of a model version, an image or a patient. Raises UnknownId."""
    from radia import registry
    from radia import trace as lineage

    if kind == "model":
        return lineage.trace_model(run.workspace, run.ledger, identifier, registry.find(run.workspace, identifier))
    if kind == "image":
        return lineage.trace_image(run.workspace, run.ledger, identifier)
    return lineage.trace_patient(run.workspace, run.ledger, identifier)


def verify(run: Run) -> dict[str, int]:
    """Re-checks the ledger's chain and every recorded file. Raises ChainBroken, naming the first bad one."""
    checked = run.ledger.verify()
    return {"events": checked.events, "artefacts": verify_artefacts(run.workspace, run.ledger)}
