"""From a hospital's files to landing batches: a folder, what a PACS sends (C-STORE) or is asked for (DICOMweb)."""

from radia.intake.folder import take_folder
from radia.intake.landing import FILES, RECEIPT, LeftFile, Receipt, ReceivedFile, receipts, seal_abandoned, site_name

__all__ = [
    "FILES",
    "RECEIPT",
    "LeftFile",
    "Receipt",
    "ReceivedFile",
    "receipts",
    "seal_abandoned",
    "site_name",
    "take_folder",
]
