"""A C-STORE receiver: a PACS or a modality sends, and each association, or each window of time, becomes a batch.

Only senders that are listed may associate, and each stands for a site. An object is acknowledged when it is safe on
the disk; what was acknowledged before an association broke off becomes a batch too. Where the disk fills the sender is
told "out of resources" (PS3.4 B.2.3) and keeps its objects for later.

Whoever connects and says nothing, or nothing that is TLS, holds up nobody: the handshake has its own thread, a time
limit, and only so many others beside it.
"""

from __future__ import annotations

import logging
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from threading import BoundedSemaphore, Condition, Thread, Timer
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
from pynetdicom.transport import ThreadedAssociationServer

from radia.dicom.container import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    RLE,
    SUPPORTED,
)
from radia.errors import IntakeError, StorageFull
from radia.intake.landing import Receipt, Spool, make_landing, seal_abandoned, site_name
from radia.intake.measures import ReceiverMeasures, Refusal, Rejection, rejection
from radia.settings import ReceiverSettings

logger = logging.getLogger(__name__)
Network = IPv4Network | IPv6Network

_ACCEPTED = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
_ECHO = "1.2.840.10008.1.1"
_LOSSLESS = (JPEG_LOSSLESS_SV1, JPEG_LOSSLESS, JPEG_LS, JPEG_2000_LOSSLESS, RLE)
_PLAIN = (EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN)
_SYNTAXES = (*_LOSSLESS, *_PLAIN, *sorted(SUPPORTED - {*_LOSSLESS, *_PLAIN}))
"""Where a sender leaves the choice: as it keeps the object, else with the VRs of private attributes (implicit has
none), and no loss of pixels that the sender would make for the transport alone."""
_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
_ANSWERS: dict[Refusal, int] = {
    "uid": _CANNOT_UNDERSTAND,
    "disk_low": _OUT_OF_RESOURCES,
    "disk_full": _OUT_OF_RESOURCES,
}
"""What a sender is told whose object is not taken (PS3.4 B.2.3). An error of ours is answered by pynetdicom."""


class _Refused(Exception):
    """An object that is not taken."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason = reason


def _today() -> date:
    return datetime.now(UTC).date()


class _Server(ThreadedAssociationServer):
    """pynetdicom's server, which would shake hands for TLS, without a time limit, in the one thread that listens."""

    def __init__(
        self,
        *arguments: Any,
        handshake_seconds: float,
        connections: int,
        hosts: Sequence[Network],
        turned_away: Callable[[Rejection], None],
        **options: Any,
    ) -> None:
        self._handshake_seconds = handshake_seconds
        self._hosts = hosts
        self._turned_away = turned_away
        self._room = BoundedSemaphore(connections)
        super().__init__(*arguments, **options)

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection as it came: nothing is read from it here."""
        listener: socket.socket = self.socket  # type: ignore[assignment]  # None only before it listens
        return listener.accept()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether it comes from a listed host, and there is room for one more handshake."""
        if self._hosts and not any(ip_address(client_address[0]) in network for network in self._hosts):
            logger.warning("a connection was closed: its address is not among intake.receiver.hosts")
            self._turned_away("host")
            return False
        if self._room.acquire(blocking=False):
            return True
        logger.warning("a connection was closed: too many others have not said yet who they are")
        self._turned_away("connections")
        return False

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: shakes hands, then starts the association."""
        try:
            connection = self._agreed(request)
        finally:
            self._room.release()
        if connection is not None:
            super().finish_request(connection, client_address)

    def _agreed(self, request: socket.socket) -> socket.socket | None:
        """The connection, in TLS where it is asked for, or None. A read of it never waits for ever."""
        if self.ssl_context is not None:
            request.settimeout(self._handshake_seconds)
            try:
                request = self.ssl_context.wrap_socket(request, server_side=True)
            except OSError as error:  # ssl.SSLError and TimeoutError are kinds of it
                logger.warning("a connection was closed: TLS was not agreed (%s)", type(error).__name__)
                self._turned_away("tls")
                return None
        request.settimeout(self.ae.network_timeout)
        return request


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
        """Raises IntakeError where no sender is listed, or beyond this machine no host."""
        if not settings.senders:
            raise IntakeError(
                "no sender may associate: list calling AE titles and their sites in intake.receiver.senders"
            )
        self._hosts = _networks(settings.hosts)
        if not (_is_loopback(settings.host) or self._hosts or settings.tls_authority):
            raise IntakeError(
                "whoever reaches this machine could send: list the senders' addresses or networks in "
                "intake.receiver.hosts, or ask for certificates with intake.receiver.tls_authority"
            )
        self._landing, self._settings, self._received, self._today = landing, settings, received, today
        self._sites = {title.strip(): site_name(site) for title, site in settings.senders.items()}
        self._spools: dict[object, Spool] = {}
        self._timers: dict[object, Timer] = {}
        self._sealing = 0
        self._changed = Condition()
        self._server: Any = None
        self.measures = ReceiverMeasures(
            landing,
            self._sites.values(),
            min_free_bytes=settings.min_free_bytes,
            associations=lambda: (
                sum(one.is_established for one in self._server.active_associations) if self._server else 0
            ),
        )

    def __enter__(self) -> Receiver:
        """Starts to listen, after making batches of what a killed receiver left. Raises IntakeError."""
        make_landing(self._landing)
        for receipt in seal_abandoned(self._landing, self._today()):
            self._tell(receipt)
        self._server = self._listening()
        Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops listening, ends what associations there are, and makes batches of all that was received."""
        self._server.shutdown()
        for association in self._server.active_associations:
            _end(association)
        for key in list(self._spools):
            self._seal(key)
        with self._changed:
            self._changed.wait_for(lambda: self._sealing == 0)

    @property
    def port(self) -> int:
        """The port it listens on, also where the settings left the choice to the system (0)."""
        return int(self._server.server_address[1])

    def _listening(self) -> ThreadedAssociationServer:
        """Raises IntakeError."""
        address = (self._settings.host, self._settings.port)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_REJECTED, self._rejected),
        ]
        entity, context = self._entity(), self._tls()
        try:
            server = entity.make_server(
                address,
                ssl_context=context,
                evt_handlers=handlers,
                server_class=_Server,
                handshake_seconds=self._settings.handshake_seconds,
                connections=2 * self._settings.max_associations,
                hosts=self._hosts,
                turned_away=self.measures.rejected,
            )
        except OSError as error:
            raise IntakeError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from error
        entity._servers.append(server)  # as AE.start_server does: shutdown() takes it out again
        return server

    def _entity(self) -> AE:
        entity = AE(ae_title=self._settings.ae_title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(self._sites)
        entity.maximum_associations = self._settings.max_associations
        entity.acse_timeout = self._settings.handshake_seconds
        entity.add_supported_context(_ECHO)
        for kind in _ACCEPTED:
            entity.add_supported_context(kind, list(_SYNTAXES))
        return entity

    def _tls(self) -> ssl.SSLContext | None:
        """Mutual TLS where an authority is named, TLS where a certificate is, else none."""
        if self._settings.tls_certificate is None:
            if self._settings.tls_authority is not None:  # or whoever comes would be let in, and in the clear
                raise IntakeError(
                    "intake.receiver.tls_authority asks senders for certificates, and there is none of the receiver's: "
                    "name tls_certificate and tls_key too"
                )
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
        began = time.perf_counter()
        try:
            size = self._keep(event)
        except _Refused as refused:
            self.measures.refused(refused.reason)
            return _ANSWERS[refused.reason]
        except Exception:
            self.measures.refused("failed")
            raise
        self.measures.stored(self._site_of(event.assoc), size, time.perf_counter() - began)
        return _SUCCESS

    def _keep(self, event: Any) -> int:
        """Puts an object on the disk; its bytes. Raises _Refused."""
        name = _file_name(event)
        if name is None:
            raise _Refused("uid")
        content = event.encoded_dataset()
        if shutil.disk_usage(self._landing).free < self._settings.min_free_bytes + len(content):
            logger.warning("an object was turned away: the disk of the landing zone is almost full")
            raise _Refused("disk_low")
        try:
            while not self._spool_of(event.assoc).write(name, content):
                pass  # its window closed meanwhile: the next one is open
        except StorageFull:
            logger.warning("an object was turned away: the disk of the landing zone is full")
            raise _Refused("disk_full") from None
        return len(content)

    def _site_of(self, association: Any) -> str:
        return self._sites[association.requestor.ae_title.strip()]

    def _spool_of(self, association: Any) -> Spool:
        """The open spool of an association, or of its site's window of time. Raises StorageFull."""
        site = self._site_of(association)
        key: object = site if self._settings.window_seconds else association
        with self._changed:
            if key not in self._spools:
                self._spools[key] = Spool(self._landing, site)
                if self._settings.window_seconds:
                    timer = Timer(self._settings.window_seconds, self._seal, [key])
                    timer.daemon = True
                    self._timers[key] = timer
                    timer.start()
            return self._spools[key]

    def _accepted(self, _event: Any) -> None:
        self.measures.accepted()

    def _rejected(self, event: Any) -> None:
        answer = event.assoc.acceptor.primitive
        self.measures.rejected(rejection(answer.result_source, answer.diagnostic))

    def _closed(self, event: Any) -> None:
        """An association ended, however it did."""
        self._seal(event.assoc)

    def _seal(self, key: object) -> None:
        with self._changed:
            spool, timer = self._spools.pop(key, None), self._timers.pop(key, None)
            if timer is not None:
                timer.cancel()
            if spool is None:
                return
            self._sealing += 1
        try:
            receipt = spool.seal(self._today())
            if receipt is not None:
                self._tell(receipt)
        except StorageFull as error:
            self.measures.put_off()
            logger.warning("what was received is safe, and waits for the next intake to become a batch: %s", error)
        finally:
            with self._changed:
                self._sealing -= 1
                self._changed.notify_all()

    def _tell(self, receipt: Receipt) -> None:
        self.measures.closed(receipt.site)
        self._received(receipt)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, which may be an address that others reach
        return False


def _networks(hosts: Sequence[str]) -> tuple[Network, ...]:
    """Raises IntakeError."""
    try:
        return tuple(ip_network(host, strict=False) for host in hosts)
    except ValueError as error:
        raise IntakeError(
            "intake.receiver.hosts holds something that is neither an address nor a network (10.1.0.0/16)"
        ) from error


def _end(association: Any) -> None:
    """Tells the sender, then cuts the line: what was not acknowledged it keeps."""
    if association.is_established:
        association.abort(block=False)
        association.join(timeout=2)
    line = association.dul.socket.socket
    if line is not None:
        with suppress(OSError):  # the sender was quicker
            line.shutdown(socket.SHUT_RDWR)


def _file_name(event: Any) -> str | None:
    """`<SOP Instance UID>.dcm`, or None where the request's UID is none."""
    uid = str(event.request.AffectedSOPInstanceUID or "")
    return f"{uid}.dcm" if re.fullmatch(r"[0-9.]{1,64}", uid) else None
