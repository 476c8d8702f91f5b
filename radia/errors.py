"""Every error that a user of RADIA can meet, on one screen.

A message says what was found, what was expected and what to do. It never quotes a value that could identify a patient.
Commands print it without a traceback and end with status 1 (2 for wrong usage).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class RadiaError(Exception):
    """The root of the tree."""


class SettingsError(RadiaError):
    """params.yaml or an environment variable cannot be used."""


# --- files from outside ---------------------------------------------------------------------------------------------


class Reason(StrEnum):
    """Why one file is refused. The codes stand in outcomes.parquet, receipts and reports."""

    EMPTY_FILE = "empty file"
    NOT_DICOM = "not a DICOM file"
    TRUNCATED = "file cut short"
    UNREADABLE = "header cannot be parsed"
    NO_PIXEL_DATA = "no pixel data"
    UNREADABLE_PIXELS = "pixel data cannot be decoded"
    UNSUPPORTED_SYNTAX = "transfer syntax not supported"
    NOT_AN_IMAGE_TO_CLEAN = "kind of object that cannot be cleaned"
    NOT_CHEST = "not a frontal chest radiograph"
    UNFAMILIAR = "unlike the images that the model was trained on"
    DUPLICATE = "SOP instance already in the archive with other content"
    NO_PATIENT = "patient cannot be told apart"
    TEXT_DETECTOR_MISSING = "burned-in text cannot be looked for"
    RESIDUAL_IDENTIFIER = "an identifier was still there after cleaning"
    WORKER_LOST = "the process that had it ended twice: a decoder crashed, or memory ran out"
    ERASED = "erased: the patient withdrew"


class Refusal(RadiaError):
    """One file cannot be used. It goes to quarantine; the batch goes on."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class IntakeError(RadiaError):
    """A batch cannot be taken in."""


class EmptyInbox(IntakeError):
    """There is no file where a feed was expected."""


class StorageFull(RadiaError):
    """The disk has no room left for what must be written."""


class MigrationError(RadiaError):
    """A database's schema cannot be brought to what this version wants."""


class BackupError(RadiaError):
    """A backup cannot be taken, is not whole, or cannot be restored there."""


class NoticeError(RadiaError):
    """People could not be told that a run failed."""


class KeyFileError(RadiaError):
    """The pseudonymisation key is missing, unreadable by its owner alone, or another one than the archive's."""


class StoreError(RadiaError):
    """A PACS did not take what was sent to it, or none is set up."""


class AccountError(RadiaError):
    """An account of the web app cannot be made or changed as asked."""


# --- labels and reads -----------------------------------------------------------------------------------------------


class LabelError(RadiaError):
    """A table of labels, reads, probabilities or thresholds cannot be used."""


class UnknownFinding(LabelError):
    """A column or a row names a finding that does not exist here."""

    def __init__(self, finding: str, known: Iterable[str] = ()) -> None:
        hint = f"; expected one of: {', '.join(known)}" if known else ""
        super().__init__(f"unknown finding {finding!r}{hint}")


class BadLabelValue(LabelError):
    """A label is not 1, 0, -1 or blank; a probability is not in [0, 1]."""


class UnmatchedIds(LabelError):
    """Ids are doubled, or missing on one side."""


class BiasedReads(LabelError):
    """Reads chosen by a model were given where only a sample with known probabilities allows an estimate."""


# --- images, snapshots, models --------------------------------------------------------------------------------------


class ShardDamaged(RadiaError):
    """A shard of pixels does not have the digest that its index records."""


class WorkerLost(RadiaError):
    """Processes cannot be started: out of memory, or killed before they took any work."""


class MixedSides(RadiaError):
    """Batches of images were made with different sides, so that no model can see them together."""


class ManifestError(RadiaError):
    """A question to the manifest cannot be answered."""


class UnknownId(RadiaError):
    """An image, study, patient, batch, snapshot or model version that nobody has seen."""


class QualityBlocked(RadiaError):
    """A critical rule of data quality failed."""


class SnapshotError(RadiaError):
    """A snapshot cannot be frozen, or is not what its digest says."""


class CheckpointError(RadiaError):
    """A checkpoint is missing, damaged, or was trained for other findings."""


class TrainingError(RadiaError):
    """Training cannot start or go on (no positive at all, a loss that is not finite, no such device ...)."""


class DoesNotFit(TrainingError):
    """A part of a batch does not fit into the memory of one of several workers. micro: half of what it was."""

    def __init__(self, micro: int) -> None:
        super().__init__(f"out of memory on one of several workers: run again with finetune.micro_batch {micro}")
        self.micro = micro


class RegistryError(RadiaError):
    """MLflow cannot be reached, or has no such model, version or alias."""


class NoModel(RegistryError):
    """No model is in use yet."""


class PromotionRefused(RegistryError):
    """The gate or the registry's rules do not allow this promotion."""


class LedgerError(RadiaError):
    """The ledger cannot be read or written."""


class ChainBroken(LedgerError):
    """The ledger or an artefact was changed after the fact. Names the first bad event or artefact."""


class NotReproducible(RadiaError):
    """A model cannot be made again as it was recorded: a part is gone, was changed, or gives other figures."""


class WithdrawalError(RadiaError):
    """A patient cannot be erased as asked."""
