"""DICOMweb: asks a PACS for the chest radiographs of a range of days (QIDO-RS) and fetches them (WADO-RS).

What was fetched once is known by its UIDs and is not fetched again, so the same days may be asked for any number of
times: after a link that broke, for a study that grew, and with a day's overlap where clocks differ.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from email.message import Message
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from radia.errors import IntakeError
from radia.intake.landing import Receipt, Received, Spool, locked, seal_abandoned, site_name
from radia.settings import PacsSettings

_SERIES, _STUDY, _INSTANCE = "0020000E", "0020000D", "00080018"
_MODALITY, _BODY_PART = "00080060", "00180015"
_MOST_BYTES = 1 << 29
"""Of one instance. A tomosynthesis has some dozens of millions."""
_NAT64 = ip_network("64:ff9b::/96")
_CREDENTIALS = frozenset({ip_address("fd00:ec2::254")})
"""Where a cloud gives out credentials beside 169.254.169.254."""
_Answer = TypeVar("_Answer")
_Uids = tuple[str, str, str]


def take_pacs(
    pacs: PacsSettings,
    landing: Path,
    *,
    since: date,
    until: date,
    today: date,
    progress: Callable[[int, int], None] | None = None,
) -> list[Receipt]:
    """Fetches the images of studies of these days (both included) that were not received yet; one batch.

    Raises IntakeError where the PACS cannot be reached or answers wrongly, after the retries of the settings; what had
    come until then is a batch, and the next call goes on from there. Raises StorageFull.
    """
    site = site_name(pacs.site)
    new = seal_abandoned(landing, today)
    client = _Client(pacs)
    found = client.find(since, until)
    with locked(landing), closing(Received(landing)) as received:
        wanted = [uids for uids in found if not received.has_name(site, _name(uids))]
    if not wanted:
        return new
    spool = Spool(landing, site)
    try:
        for done, uids in enumerate(wanted, 1):
            spool.write(_name(uids), client.fetch(uids))
            if progress:
                progress(done, len(wanted))
    finally:
        receipt = spool.seal(today)
        new += [receipt] if receipt else []
    return new


def _name(uids: _Uids) -> str:
    return "/".join(uids) + ".dcm"


class _Client:
    """One PACS, asked no faster than it allows and again when it fails."""

    def __init__(self, pacs: PacsSettings) -> None:
        from dicomweb_client.api import DICOMwebClient
        from requests import Session

        _refuse_special_address(pacs)
        self._pacs = pacs
        self._next = 0.0
        session = Session()
        session.max_redirects = (
            0  # a redirect would take the query, and what answers it, to an address nobody configured
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, _watched(pacs))
        headers = _authorization(pacs)
        self._session, self._headers = session, headers
        self._web = DICOMwebClient(pacs.url, session=session, headers=headers, timeout=pacs.timeout_seconds)
        self._web.set_http_retry_params(False)

    def find(self, since: date, until: date) -> list[_Uids]:
        """The UIDs of study, series and instance of every image of the days, modalities and body parts."""
        found: dict[_Uids, None] = {}
        for modality in self._pacs.modalities:
            filters = {"Modality": modality, "StudyDate": f"{since:%Y%m%d}-{until:%Y%m%d}"}
            for series in self._pages(self._web.search_for_series, filters, fields=["BodyPartExamined"]):
                part = _value(series, _BODY_PART).upper()
                if _value(series, _MODALITY, modality) == modality and (not part or part in self._pacs.body_parts):
                    found |= dict.fromkeys(self._instances(_uid(series, _STUDY), _uid(series, _SERIES)))
        return list(found)

    def fetch(self, uids: _Uids) -> bytes:
        """One instance, the bytes that the PACS sends: they are opened where they are de-identified, not here."""
        return self._ask(partial(self._file, "/studies/{}/series/{}/instances/{}".format(*uids)))

    def _file(self, path: str) -> bytes:
        """WADO-RS (PS3.18 10.4). Raises ValueError where the answer is no file, or larger than any radiograph."""
        wanted = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*', **self._headers}
        url = self._pacs.url.rstrip("/") + path
        with self._session.get(url, headers=wanted, stream=True, timeout=self._pacs.timeout_seconds) as answer:
            answer.raise_for_status()
            body = bytearray()
            for chunk in answer.iter_content(1 << 20):
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise ValueError("larger than any radiograph")
            return _only_part(answer.headers.get("Content-Type", ""), bytes(body))

    def _instances(self, study: str, series: str) -> list[_Uids]:
        pages = self._pages(self._web.search_for_instances, {}, study_instance_uid=study, series_instance_uid=series)
        return [(study, series, _uid(instance, _INSTANCE)) for instance in pages]

    def _pages(
        self, search: Callable[..., list[dict[str, Any]]], filters: dict[str, str], **options: Any
    ) -> Iterator[dict[str, Any]]:
        """All answers, page after page; a PACS that ignores paging gives them all at once."""
        size, seen = self._pacs.page_size, set[str]()
        for offset in range(0, 10**9, size):
            page = self._ask(partial(search, search_filters=filters, limit=size, offset=offset, **options))
            new = {repr(answer): answer for answer in page if repr(answer) not in seen}
            yield from new.values()
            seen |= new.keys()
            if len(page) != size or not new:
                return

    def _ask(self, request: Callable[[], _Answer]) -> _Answer:
        """Waits for its turn, asks, and asks again with growing pauses. Raises IntakeError."""
        from requests.exceptions import RequestException

        for attempt in range(self._pacs.attempts):
            self._wait(self._pacs.backoff_seconds * (2 ** (attempt - 1) if attempt else 0))
            try:
                return request()
            except (RequestException, ValueError, EOFError, OSError) as error:
                failure: Exception = error
                if not _is_worth_another_try(error):
                    break
        raise IntakeError(
            f"site {self._pacs.site}: the PACS at {_host(self._pacs.url)} {_in_words(failure)}: what came until now is "
            "kept, run again to go on"
        ) from None

    def _wait(self, pause: float) -> None:
        now = time.monotonic()
        time.sleep(max(pause, self._next - now, 0.0))
        self._next = time.monotonic() + 1 / self._pacs.requests_per_second


def _only_part(kind: str, body: bytes) -> bytes:
    """The file in an answer: its one part, or all of it where a server sends it bare (against CP-2040).

    Raises ValueError.
    """
    header = Message()
    header["Content-Type"] = kind
    if header.get_content_type() == "application/dicom":
        return body
    mark = header.get_boundary()
    if header.get_content_type() != "multipart/related" or not mark:
        raise ValueError("neither DICOM nor a part of it")
    edge = b"--" + mark.encode()
    _, first, after = body.partition(edge)
    end = after.rfind(b"\r\n" + edge)
    _, blank, content = after[:end].partition(b"\r\n\r\n")
    if not first or end < 0 or not blank or b"\r\n" + edge in content:
        raise ValueError("not one part")
    return content


def _watched(pacs: PacsSettings) -> Any:
    """Connections that look whom they have reached before a byte is sent: a name may mean another address by then."""
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _known_peer(pacs, super()._new_conn())

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _known_peer(pacs, super()._new_conn())

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    adapter = HTTPAdapter()
    adapter.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return adapter


def _known_peer(pacs: PacsSettings, line: socket.socket) -> socket.socket:
    """Raises IntakeError where the other end is an address that no PACS has."""
    try:
        _refuse_special(pacs, _address(line.getpeername()[0]))
    except IntakeError:
        line.close()
        raise
    return line


def _is_worth_another_try(error: Exception) -> bool:
    response = getattr(error, "response", None)
    return response is None or response.status_code >= 500 or response.status_code in (408, 429)


def _in_words(error: Exception) -> str:
    """What happened, without the address that was asked: it holds UIDs."""
    response = getattr(error, "response", None)
    return f"answered {response.status_code}" if response is not None else f"failed ({type(error).__name__})"


def _refuse_special_address(pacs: PacsSettings) -> None:
    """Raises IntakeError where the PACS would be an address that no PACS has. A name that does not resolve is left to
    the request, which says so.
    """
    for address in _addresses(_host(pacs.url)):
        _refuse_special(pacs, address)


def _refuse_special(pacs: PacsSettings, address: IPv4Address | IPv6Address) -> None:
    """Raises IntakeError for an address where clouds give out credentials, for multicast and for none at all."""
    inner = _inside(address)
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in _CREDENTIALS:
        raise IntakeError(f"site {pacs.site}: the PACS's address is {address}, which no PACS can have; see intake.pacs")


def _inside(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for: mapped (RFC 4291), 6to4 (3056), NAT64 (6052); else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _addresses(host: str) -> list[IPv4Address | IPv6Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [_address(str(address[0])) for *_, address in found]


def _address(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text.partition("%")[0])


def _authorization(pacs: PacsSettings) -> dict[str, str]:
    """Raises IntakeError where the variable that should hold the token is not set."""
    if pacs.authorization_variable is None:
        return {}
    value = os.environ.get(pacs.authorization_variable)
    if not value:
        raise IntakeError(
            f"site {pacs.site}: {pacs.authorization_variable} is not set; expected an Authorization header"
        )
    return {"Authorization": value}


def _value(answer: dict[str, Any], tag: str, default: str = "") -> str:
    """The first value of an attribute in DICOM JSON (PS3.18 F)."""
    values = answer.get(tag, {}).get("Value") or [default]
    return str(values[0] or default)


def _uid(answer: dict[str, Any], tag: str) -> str:
    """Raises IntakeError where a PACS answers with something else than a UID."""
    uid = _value(answer, tag)
    if not re.fullmatch(r"[0-9.]{1,64}", uid):
        raise IntakeError("the PACS answered a query with something that is not a UID")
    return uid


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname or "its address"
