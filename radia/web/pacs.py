"""What is handed to the hospital's PACS, by DICOM's own way: one association, C-STORE of each object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from radia.errors import StoreError
from radia.settings import StoreSettings


def store(objects: Sequence[Any], pacs: StoreSettings) -> None:
    """Sends objects (pydicom datasets) to the PACS. Raises StoreError where it does not take every one of them."""
    from pynetdicom import AE

    sender = AE(ae_title=pacs.calling_ae_title)
    sender.acse_timeout = sender.dimse_timeout = sender.network_timeout = sender.connection_timeout = (
        pacs.timeout_seconds
    )
    for made in objects:
        sender.add_requested_context(made.SOPClassUID, made.file_meta.TransferSyntaxUID)
    association = sender.associate(pacs.host, pacs.port, ae_title=pacs.ae_title)
    if not association.is_established:
        raise StoreError(f"the PACS {pacs.ae_title} cannot be reached, or does not know {pacs.calling_ae_title}")
    try:
        for made in objects:
            _store(association, made, pacs.ae_title)
    finally:
        association.release()


def _store(association: Any, made: Any, title: str) -> None:
    try:
        status = association.send_c_store(made).get("Status")
    except (ValueError, RuntimeError) as error:  # no such context was accepted; the association is gone
        raise StoreError(f"the PACS {title} does not take this kind of object") from error
    if status is None:
        raise StoreError(f"the PACS {title} did not answer")
    if status not in (0x0000, 0xB000, 0xB006, 0xB007):  # success, or stored with a warning (PS3.4 B.2.3)
        raise StoreError(f"the PACS {title} refused an object: status {status:04X}H")
