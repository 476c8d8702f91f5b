"""What is handed to the hospital's PACS, by DICOM's own way: one association, C-STORE of each object.

Over TLS where it is asked for (PS3.15 B.12): whoever does not show a certificate for the host's name gets nothing.
"""

from __future__ import annotations

import ssl
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
    context = _tls(pacs)
    secure = None if context is None else (context, pacs.host)
    association = sender.associate(pacs.host, pacs.port, ae_title=pacs.ae_title, tls_args=secure)
    if not association.is_established:
        certificate = ", or its certificate is not one for this host" if context else ""
        raise StoreError(
            f"the PACS {pacs.ae_title} cannot be reached, or does not know {pacs.calling_ae_title}{certificate}"
        )
    try:
        for made in objects:
            _store(association, made, pacs.ae_title)
    finally:
        association.release()


def _tls(pacs: StoreSettings) -> ssl.SSLContext | None:
    """Raises StoreError where a certificate or key of the settings cannot be used."""
    if not (pacs.tls or pacs.tls_authority or pacs.tls_certificate):
        return None
    try:
        context = ssl.create_default_context(cafile=pacs.tls_authority)
        if pacs.tls_certificate is not None:
            context.load_cert_chain(pacs.tls_certificate, pacs.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StoreError(f"a certificate or key of web.pacs cannot be used: {type(error).__name__}") from error
    return context


def _store(association: Any, made: Any, title: str) -> None:
    try:
        status = association.send_c_store(made).get("Status")
    except (ValueError, RuntimeError) as error:  # no such context was accepted; the association is gone
        raise StoreError(f"the PACS {title} does not take this kind of object") from error
    if status is None:
        raise StoreError(f"the PACS {title} did not answer")
    if status not in (0x0000, 0xB000, 0xB006, 0xB007):  # success, or stored with a warning (PS3.4 B.2.3)
        raise StoreError(f"the PACS {title} refused an object: status {status:04X}H")
