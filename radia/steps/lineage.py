"""Questions asked of what the steps left behind, and what people say of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from radia.dicom.pseudonyms import load_key
from radia.errors import UnknownId
from radia.settings import key_from_environment
from radia.steps.reads import close_queue_of_withdrawn
from radia.steps.run import Run

if TYPE_CHECKING:
    from radia.access import Use
    from radia.approval import Acted
    from radia.audit import Audit
    from radia.dicom.crosswalk import Origin
    from radia.erasure import Erasure
    from radia.registry import Promotion
    from radia.trace import Tree
    from radia.withdrawal import Withdrawal


def trace(run: Run, kind: str, identifier: str) -> Tree:
    """The lineage of a model version, image, patient, batch, person or event (by its number). Raises UnknownId."""
    from radia import registry
    from radia import trace as lineage

    site, ledger = run.workspace, run.ledger
    if kind == "model":
        return lineage.trace_model(site, ledger, identifier, registry.find(site, identifier))
    if kind == "person":
        return lineage.trace_person(ledger, identifier)
    if kind == "event":
        if not identifier.isdigit():
            raise UnknownId("an event is named by its number, as `radia trace` shows it")
        return lineage.trace_event(ledger, int(identifier))
    ask = {"image": lineage.trace_image, "patient": lineage.trace_patient, "batch": lineage.trace_batch}
    return ask[kind](site, ledger, identifier)


def verify(run: Run) -> Audit:
    """Re-checks chain, anchors, files, DVC objects and registered models. Raises ChainBroken, naming the first bad."""
    from radia.audit import audit

    return audit(run.workspace, run.ledger)


def bundle(run: Run, model: str, target: Path) -> Path:
    """Writes the evidence behind a model for an auditor elsewhere. Raises UnknownId."""
    from radia.bundle import write_bundle

    site = run.workspace
    kept = {"params.yaml": site.root / "params.yaml"}
    kept |= {name: site.evaluation / name for name in ("metrics.json", "decision.json")}
    files = {name: path.read_bytes() for name, path in kept.items() if path.is_file()}
    return write_bundle(site, run.ledger, trace(run, "model", model), target, files=files, actor=run.actor)


def uses(
    run: Run,
    *,
    patient: str | None = None,
    person: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> Iterator[Use]:
    """Who used which information, of a patient (pseudonym) or by a person, on which days. Raises UnknownId."""
    from radia import access
    from radia.trace import names_of_patient

    about = None if patient is None else names_of_patient(run.workspace, run.ledger, patient)
    return access.uses(run.ledger, about=about, person=person, since=since, until=until)


def withdraw(run: Run, patient: str, *, reason: str = "", issuer: str = "", person: str = "") -> Withdrawal:
    """Takes a patient, by pseudonym or by the hospital's identifier, out of every later snapshot and of the read queue.

    issuer: who gave out that identifier, where files name one. person: on whose word; the ledger keeps it. Raises
    UnknownId.
    """
    from radia import withdrawal

    site = run.workspace
    key = load_key(site.key_file) if key_from_environment() is not None or site.key_file.is_file() else None
    done = withdrawal.withdraw(
        site, run.ledger, patient, actor=run.actor, key=key, issuer=issuer, reason=reason, person=person
    )
    close_queue_of_withdrawn(run)
    return done


def erase(run: Run, patient: str, *, person: str = "") -> Erasure:
    """Erases what is kept of a patient (pseudonym) who withdrew; the digests stay. Raises WithdrawalError."""
    from radia import erasure

    site = run.workspace
    return erasure.erase(site, run.ledger, patient, actor=run.actor, key=load_key(site.key_file), person=person)


def reidentify(run: Run, pseudonym: str, *, key: bytes, crosswalk: Path, person: str, reason: str) -> list[Origin]:
    """What a pseudonym stands for, for the holder of the key; the ledger keeps who asked, and for which pseudonym.

    Raises UnknownId where nothing stands behind it, KeyFileError where the crosswalk was sealed with another key.
    """
    from radia.dicom.crosswalk import Crosswalk
    from radia.dicom.pseudonyms import Pseudonymizer
    from radia.ledger import Action

    found = Crosswalk(crosswalk, key).origins(pseudonym)
    run.ledger.append(
        Action.REIDENTIFY,
        actor=run.actor,
        subjects=[pseudonym],
        parameters={"person": person, "reason": reason, "key": Pseudonymizer(key).fingerprint, "files": len(found)},
    )
    return found


def promote(run: Run, version: str, *, approver: str, reason: str, override: str = "") -> Promotion:
    """Puts a candidate in use on a person's word. Raises PromotionRefused."""
    from radia import approval

    return approval.promote(
        run.workspace,
        run.ledger,
        version,
        approver=approver,
        reason=reason,
        override=override,
        settings=run.settings.gate,
        actor=run.actor,
    )


def reject(run: Run, version: str, *, approver: str, reason: str) -> Acted:
    """Records a person's refusal of a candidate."""
    from radia import approval

    return approval.reject(run.workspace, run.ledger, version, approver=approver, reason=reason, actor=run.actor)


def roll_back(run: Run, *, reason: str) -> Promotion:
    """Puts the previous model in use again. Raises RegistryError, PromotionRefused."""
    from radia import approval

    return approval.roll_back(run.workspace, run.ledger, actor=run.actor, reason=reason)


def act_on_approvals(run: Run) -> list[Acted]:
    """Acts on what people decided in MLflow since the last time."""
    from radia import approval

    return approval.act_on_approvals(run.workspace, run.ledger, settings=run.settings.gate, actor=run.actor)
