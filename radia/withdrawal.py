"""Withdrawal of consent (Quebec, Law 25): a patient leaves every later snapshot, and who saw the patient is said.

The ledger remembers a withdrawal; `radia.trace.withdrawn_patients` gives the pseudonyms that `radia.snapshot.freeze`
leaves out. Models that were trained before stay as they are: each gets a note on its card. Nothing is erased here.
"""

from __future__ import annotations

from dataclasses import dataclass

from radia import registry
from radia.errors import UnknownId
from radia.ledger import Action, Ledger
from radia.trace import models_that_saw, trace_patient, withdrawn_patients
from radia.workspace import Workspace


@dataclass(frozen=True)
class Withdrawal:
    """patient: the pseudonym. images: how many the archive holds. models: those that saw the patient, by name."""

    patient: str
    images: int
    models: tuple[str, ...]
    new: bool


def withdraw(
    site: Workspace,
    ledger: Ledger,
    patient: str,
    *,
    actor: str,
    key: bytes | None = None,
    issuer: str = "",
    reason: str = "",
    person: str = "",
) -> Withdrawal:
    """Records that a patient withdrew, and notes it on the card of every model that saw the patient.

    patient: the pseudonym; or, for who holds the pseudonymisation key, the hospital's own identifier (with `issuer`
    where the files name one). person: on whose word, where an account acts for them. A second call changes nothing and
    finishes what a killed one left. Raises UnknownId.
    """
    pseudonym, images = _known(site, ledger, patient, key, issuer)
    before = withdrawn_patients(ledger)
    models = tuple(models_that_saw(site, ledger, pseudonym))
    ledger.append(
        Action.WITHDRAW,
        actor=actor,
        subjects=[pseudonym],
        parameters={"models": list(models), "images": images, "reason": reason, "person": person or actor},
        once=f"withdraw:{pseudonym}",
    )
    for model in models:
        _note(site, model)
    return Withdrawal(pseudonym, images, models, pseudonym not in before)


def _known(site: Workspace, ledger: Ledger, patient: str, key: bytes | None, issuer: str) -> tuple[str, int]:
    """The pseudonym that the archive knows, and its number of images."""
    from radia.dicom.pseudonyms import Pseudonymizer

    names = [patient] if key is None else [patient, Pseudonymizer(key).patient(patient, issuer)]
    for name in names:
        try:
            return name, int(trace_patient(site, ledger, name).detail.get("images", 0))
        except UnknownId as error:
            unknown = error
    if key is not None:
        raise UnknownId("the archive knows no patient of this identifier or pseudonym, under this key")
    raise unknown


def _note(site: Workspace, model: str) -> None:
    name, _, version = model.partition("/")
    known = registry.versions(site, name)
    text = "A patient whose images this model saw withdrew consent; later snapshots do not hold them."
    affected = [entry for entry in known if entry.version == version]
    if affected:
        copies = [entry for entry in registry.versions(site, registry.MODEL) if entry.tags.get("promoted") == model]
        for entry in [*affected, *copies]:
            registry.note_on_card(site, entry.name, entry.version, text)
