"""A C-STORE receiver: a PACS or a modality sends, and each association, or each window of time, becomes a batch.

Only senders that are listed may associate, and each stands for a site. An object is acknowledged when it is safe on
the disk; what was acknowledged before an association broke off becomes a batch too. Where the disk fills the sender is
told "out of resources" (PS3.4 B.2.3) and keeps its objects for later.
"""

from __future__ import annotations

import logging
import re
import shutil
import ssl
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt

from radia.dicom.container import SUPPORTED
from radia.errors import IntakeError, StorageFull
from radia.intake.landing import Receipt, Spool, make_landing, seal_abandoned, site_name
from radia.settings import ReceiverSettings

logger = logging.getLogger(__name__)

_ACCEPTED = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
_ECHO = "1.2.840.10008.1.1"
_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000


def _today() -> date:
    return datetime.now(UTC).date()


class Receiver:
    """Listens while it is open (a context manager), and calls `received` with the receipt of every new batch."""

    def __init__(
        self,
        landing: Path,
        settings: ReceiverSettings,
        *,
        received: Callable[[Receipt], None] = lambda receipt: None,
        today: Callable[[], date] = _today,
    ) -> None:
        """Raises IntakeError where no sender is listed."""
        if not settings.senders:
            raise IntakeError(
                "no sender may associate: list calling AE titles and their sites in intake.receiver.senders"
            )
        self._landing, self._settings, self._received, self._today = landing, settings, received, today
        self._sites = {title.strip(): site_name(site) for title, site in settings.senders.items()}
        self._spools: dict[object, Spool] = {}
        self._timers: dict[object, Timer] = {}
        self._lock = Lock()
        self._server: Any = None

    def __enter__(self) -> Receiver:
        """Starts to listen, after making batches of what a killed receiver left. Raises IntakeError."""
        make_landing(self._landing)
        for receipt in seal_abandoned(self._landing, self._today()):
            self._received(receipt)
        address = (self._settings.host, self._settings.port)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_CONN_CLOSE, self._closed)]
        try:
            self._server = self._entity().start_server(
                address, block=False, evt_handlers=handlers, ssl_context=self._tls()
            )
        except OSError as error:
            raise IntakeError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Stops listening and makes batches of all that was received."""
        self._server.shutdown()
        for key in list(self._spools):
            self._seal(key)

    @property
    def port(self) -> int:
        """The port it listens on, also where the settings left the choice to the system (0)."""
        return int(self._server.server_address[1])

    def _entity(self) -> AE:
        entity = AE(ae_title=self._settings.ae_title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(self._sites)
        entity.maximum_associations = self._settings.max_associations
        entity.add_supported_context(_ECHO)
        for kind in _ACCEPTED:
            entity.add_supported_context(kind, sorted(SUPPORTED))
        return entity

    def _tls(self) -> ssl.SSLContext | None:
        """Mutual TLS where an authority is named, TLS where a certificate is, else none."""
        if self._settings.tls_certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._settings.tls_certificate, self._settings.tls_key)
            if self._settings.tls_authority is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self._settings.tls_authority)
        except (OSError, ssl.SSLError) as error:
            raise IntakeError(f"the certificate or key for TLS cannot be used: {type(error).__name__}") from error
        return context

    def _store(self, event: Any) -> int:
        name = _file_name(event)
        if name is None:
            return _CANNOT_UNDERSTAND
        content = event.encoded_dataset()
        if shutil.disk_usage(self._landing).free < self._settings.min_free_bytes + len(content):
            logger.warning("an object was turned away: the disk of the landing zone is almost full")
            return _OUT_OF_RESOURCES
        try:
            with self._lock:
                self._spool_of(event.assoc).write(name, content)
        except StorageFull:
            logger.warning("an object was turned away: the disk of the landing zone is full")
            return _OUT_OF_RESOURCES
        return _SUCCESS

    def _spool_of(self, association: Any) -> Spool:
        """The open spool of an association, or of its site's window of time. Under the lock."""
        site = self._sites[association.requestor.ae_title.strip()]
        key: object = site if self._settings.window_seconds else association
        if key not in self._spools:
            self._spools[key] = Spool(self._landing, site)
            if self._settings.window_seconds:
                timer = Timer(self._settings.window_seconds, self._seal, [key])
                timer.daemon = True
                self._timers[key] = timer
                timer.start()
        return self._spools[key]

    def _closed(self, event: Any) -> None:
        """An association ended, however it did."""
        self._seal(event.assoc)

    def _seal(self, key: object) -> None:
        with self._lock:
            spool = self._spools.pop(key, None)
            timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if spool is None:
            return
        receipt = spool.seal(self._today())
        if receipt is not None:
            self._received(receipt)


def _file_name(event: Any) -> str | None:
    """`<SOP Instance UID>.dcm`, or None where the request's UID is none."""
    uid = str(event.request.AffectedSOPInstanceUID or "")
    return f"{uid}.dcm" if re.fullmatch(r"[0-9.]{1,64}", uid) else None
