"""The receiver and DICOMweb, against dcmtk's storescu and a real Orthanc where they are installed."""

import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml
from click.testing import CliRunner
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    generate_uid,
)
from pynetdicom import AE, StoragePresentationContexts

from radia import steps
from radia.cli import main
from radia.errors import IntakeError, SettingsError
from radia.intake import Receipt, receipts, seal_abandoned, take_folder
from radia.intake import landing as landing_module
from radia.intake.landing import Spool
from radia.intake.pacs import take_pacs
from radia.intake.receiver import Receiver
from radia.settings import PacsSettings, ReceiverSettings

TODAY = date(2026, 11, 23)
ORTHANC = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
needs_orthanc = pytest.mark.skipif(
    ORTHANC is None or not PLUGIN.exists(), reason="Orthanc and its DICOMweb plugin are not installed"
)
ELSEWHERE = os.pathsep.join(
    folder for folder in os.get_exec_path() if Path(folder).resolve() != Path(sys.executable).parent.resolve()
)
STORESCU = shutil.which("storescu", path=ELSEWHERE)  # pynetdicom installs another one, beside Python
needs_storescu = pytest.mark.skipif(STORESCU is None, reason="dcmtk's storescu is not installed")


def radiograph(number: int, *, day: str = "20260115", study: str = "", **header: str) -> Dataset:
    """A small DX object with pixels of its own."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study or generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID = "Essai^Un", f"T{number}"
    dataset.StudyDate, dataset.Modality, dataset.BodyPartExamined = day, "DX", "CHEST"
    dataset.Rows = dataset.Columns = 16
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = np.full((16, 16), number, np.uint8).tobytes()
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    return dataset


def saved(folder: Path, *datasets: Dataset) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{dataset.SOPInstanceUID}.dcm" for dataset in datasets]
    for path, dataset in zip(paths, datasets, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing happened within 20 seconds"
        time.sleep(0.02)


def uids(receipt: Receipt, landing: Path) -> set[str]:
    files = landing / receipt.batch / "files"
    return {str(dcmread(files / file.sha256).SOPInstanceUID) for file in receipt.files}


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    return tmp_path / "landing"


# --- spool ----------------------------------------------------------------------------------------------------------


class TestSpool:
    def test_becomes_a_batch_when_sealed(self, landing: Path) -> None:
        spool = Spool(landing, "HND")
        spool.write("a/1.dcm", b"one")
        spool.write("2.dcm", b"two")
        receipt = spool.seal(TODAY)
        assert receipt is not None
        assert [file.source_name for file in receipt.files] == ["2.dcm", "a/1.dcm"]
        assert receipts(landing) == [receipt]
        assert not list((landing / ".spool").iterdir())

    def test_that_holds_only_what_is_known_makes_no_batch(self, landing: Path) -> None:
        for expected in (1, 0):
            spool = Spool(landing, "HND")
            spool.write("1.dcm", b"one")
            assert (spool.seal(TODAY) is not None) == bool(expected)

    def test_of_a_killed_owner_becomes_a_batch_next_time(self, landing: Path) -> None:
        spool = Spool(landing, "HND")
        spool.write("1.dcm", b"one")
        assert seal_abandoned(landing, TODAY) == []  # its owner lives
        spool._lock.close()  # as when the owner dies
        (receipt,) = seal_abandoned(landing, TODAY)
        assert (receipt.site, [file.source_name for file in receipt.files]) == ("HND", ["1.dcm"])

    def test_survives_the_intake_of_a_folder(self, landing: Path, tmp_path: Path) -> None:
        spool = Spool(landing, "HND")
        spool.write("1.dcm", b"one")
        saved(tmp_path / "inbox" / "HVD", radiograph(1))
        take_folder(tmp_path / "inbox", landing, today=TODAY)
        assert spool.seal(TODAY) is not None


# --- C-STORE --------------------------------------------------------------------------------------------------------


def settings(**changes: object) -> ReceiverSettings:
    return ReceiverSettings.model_validate(
        {"port": 0, "senders": {"MODALITY1": "HND", "MODALITY2": "HVD"}, "min_free_bytes": 0} | changes
    )


def associate(port: int, title: str = "MODALITY1", called: str = "RADIA"):  # type: ignore[no-untyped-def]
    sender = AE(ae_title=title)
    sender.requested_contexts = [c for c in StoragePresentationContexts if "X-Ray Image" in c.abstract_syntax.name][:4]
    return sender.associate("127.0.0.1", port, ae_title=called)


class TestReceiver:
    def test_makes_one_batch_an_association(self, landing: Path) -> None:
        got: list[Receipt] = []
        sent = [radiograph(1), radiograph(2)]
        with Receiver(landing, settings(), received=got.append) as receiver:
            for title, dataset in zip(("MODALITY1", "MODALITY2"), sent, strict=True):
                association = associate(receiver.port, title)
                assert association.send_c_store(dataset).Status == 0
                association.release()
            wait_until(lambda: len(got) == 2)
        assert sorted(receipt.site for receipt in got) == ["HND", "HVD"]
        assert set.union(*(uids(receipt, landing) for receipt in got)) == {str(d.SOPInstanceUID) for d in sent}

    def test_turns_away_a_sender_that_is_not_listed(self, landing: Path) -> None:
        with Receiver(landing, settings()) as receiver:
            assert associate(receiver.port, "STRANGER").is_rejected
            assert associate(receiver.port, called="SOMEONE").is_rejected
        assert receipts(landing) == []

    def test_keeps_what_it_acknowledged_before_an_association_was_aborted(self, landing: Path) -> None:
        got: list[Receipt] = []
        with Receiver(landing, settings(), received=got.append) as receiver:
            association = associate(receiver.port)
            assert association.send_c_store(radiograph(1)).Status == 0
            association.abort()
            wait_until(lambda: got)
        assert len(got[0].files) == 1

    def test_makes_one_batch_a_site_and_window_of_time(self, landing: Path) -> None:
        with Receiver(landing, settings(window_seconds=3600)) as receiver:
            for number, title in ((1, "MODALITY1"), (2, "MODALITY1"), (3, "MODALITY2")):
                association = associate(receiver.port, title)
                association.send_c_store(radiograph(number))
                association.release()
            assert receipts(landing) == []
        assert {(receipt.batch.split("-")[0], len(receipt.files)) for receipt in receipts(landing)} == {
            ("HND", 2),
            ("HVD", 1),
        }

    def test_closes_a_window_by_itself(self, landing: Path) -> None:
        got: list[Receipt] = []
        with Receiver(landing, settings(window_seconds=0.2), received=got.append) as receiver:
            association = associate(receiver.port)
            association.send_c_store(radiograph(1))
            wait_until(lambda: got)
            assert [len(receipt.files) for receipt in got] == [1]
            association.release()

    def test_says_out_of_resources_when_the_disk_fills(self, landing: Path) -> None:
        with Receiver(landing, settings(min_free_bytes=10**18)) as receiver:
            association = associate(receiver.port)
            assert association.send_c_store(radiograph(1)).Status == 0xA700
            association.release()
        assert receipts(landing) == []

    def test_says_out_of_resources_when_the_disk_is_full(self, landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with Receiver(landing, settings()) as receiver:
            association = associate(receiver.port)
            with monkeypatch.context() as during:
                during.setattr(landing_module.os, "fsync", full)
                assert association.send_c_store(radiograph(1)).Status == 0xA700
            assert association.send_c_store(radiograph(2)).Status == 0
            association.release()
        assert [len(receipt.files) for receipt in receipts(landing)] == [1]

    def test_leaves_to_the_next_intake_what_it_has_no_room_to_make_a_batch_of(
        self, landing: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with Receiver(landing, settings()) as receiver:
            association = associate(receiver.port)
            assert association.send_c_store(radiograph(1)).Status == 0
            with monkeypatch.context() as during:
                during.setattr(landing_module.os, "link", full)
                association.release()
                wait_until(lambda: "waits for the next intake" in caplog.text)
        assert receipts(landing) == []
        assert [len(receipt.files) for receipt in seal_abandoned(landing, TODAY)] == [1]

    def test_takes_an_object_once_however_often_it_is_sent(self, landing: Path) -> None:
        dataset = radiograph(1)
        with Receiver(landing, settings()) as receiver:
            for _ in range(2):
                association = associate(receiver.port)
                assert association.send_c_store(dataset).Status == 0
                association.release()
        assert [len(receipt.files) for receipt in receipts(landing)] == [1]

    def test_makes_a_batch_of_what_a_killed_receiver_left(self, landing: Path) -> None:
        spool = Spool(landing, "HND")
        spool.write("1.dcm", b"one")
        spool._lock.close()
        got: list[Receipt] = []
        with Receiver(landing, settings(), received=got.append):
            assert [receipt.site for receipt in got] == ["HND"]

    def test_needs_a_list_of_senders(self, landing: Path) -> None:
        with pytest.raises(IntakeError, match=r"intake\.receiver\.senders"):
            Receiver(landing, settings(senders={}))

    def test_turns_away_a_host_that_is_not_listed(self, landing: Path) -> None:
        with Receiver(landing, settings(hosts=["10.0.0.0/8"])) as receiver:
            assert not associate(receiver.port).is_established
        with Receiver(landing, settings(hosts=["10.0.0.0/8", "127.0.0.1"])) as receiver:
            association = associate(receiver.port)
            assert association.send_c_store(radiograph(1)).Status == 0
            association.release()
        assert [len(receipt.files) for receipt in receipts(landing)] == [1]

    def test_beyond_this_machine_needs_a_list_of_hosts_or_certificates(self, landing: Path, tmp_path: Path) -> None:
        with pytest.raises(IntakeError, match=r"intake\.receiver\.hosts"):
            Receiver(landing, settings(host="0.0.0.0"))
        for enough in ({"hosts": ["192.0.2.0/24"]}, {"tls_authority": tmp_path / "senders.pem"}):
            Receiver(landing, settings(host="0.0.0.0", **enough))

    def test_that_asks_for_certificates_and_has_none_does_not_listen(self, landing: Path, tmp_path: Path) -> None:
        receiver = Receiver(landing, settings(host="0.0.0.0", tls_authority=tmp_path / "senders.pem"))
        with pytest.raises(IntakeError, match="name tls_certificate and tls_key too"):
            receiver.__enter__()

    def test_names_a_host_that_is_none(self, landing: Path) -> None:
        with pytest.raises(IntakeError, match="neither an address nor a network"):
            Receiver(landing, settings(hosts=["pacs.north"]))

    def test_names_a_port_that_is_taken(self, landing: Path) -> None:
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            receiver = Receiver(landing, settings(port=taken.getsockname()[1]))
            with pytest.raises(IntakeError, match=r"cannot listen on 127\.0\.0\.1"):
                receiver.__enter__()

    def test_names_a_certificate_that_cannot_be_used(self, landing: Path, tmp_path: Path) -> None:
        with pytest.raises(IntakeError, match="certificate or key"):
            Receiver(landing, settings(tls_certificate=tmp_path / "no.pem")).__enter__()

    @needs_storescu
    def test_takes_what_storescu_sends(self, landing: Path, tmp_path: Path) -> None:
        paths = saved(tmp_path / "out", *(radiograph(number) for number in range(5)))
        with Receiver(landing, settings()) as receiver:
            assert storescu(*address_of(receiver), *map(str, paths)) == ""
        (receipt,) = receipts(landing)
        assert uids(receipt, landing) == {path.stem for path in paths}

    @needs_storescu
    def test_speaks_tls_with_senders_that_show_a_certificate(self, landing: Path, tmp_path: Path) -> None:
        (path,) = saved(tmp_path / "out", radiograph(1))
        secured, shown = tls(tmp_path)
        with Receiver(landing, secured) as receiver:
            address = [*address_of(receiver), str(path)]
            assert storescu(*shown, *address) == ""
            assert "Peer aborted Association" in storescu(*address)
            assert storescu("+tla", *shown[3:], *address) != ""  # trusts the receiver, and shows it nothing
        assert [len(receipt.files) for receipt in receipts(landing)] == [1]

    @needs_storescu
    def test_serves_others_while_strangers_connect_and_say_nothing(self, landing: Path, tmp_path: Path) -> None:
        (path,) = saved(tmp_path / "out", radiograph(1))
        secured, shown = tls(tmp_path, handshake_seconds=600)
        with ExitStack() as strangers, Receiver(landing, secured) as receiver:
            for _ in range(3):
                strangers.enter_context(socket.create_connection(("127.0.0.1", receiver.port)))
            assert storescu(*shown, *address_of(receiver), str(path)) == ""
            strangers.close()

    def test_has_room_for_twice_as_many_strangers_as_senders(self, landing: Path, tmp_path: Path) -> None:
        secured, _ = tls(tmp_path, handshake_seconds=600, max_associations=1)
        with ExitStack() as strangers, Receiver(landing, secured) as receiver:
            for _ in range(3):
                stranger = strangers.enter_context(socket.create_connection(("127.0.0.1", receiver.port), timeout=60))
            assert stranger.recv(1) == b""  # the third is sent away, the first two are not
            strangers.close()

    def test_ends_though_a_sender_stopped_in_the_middle_of_a_message(self, landing: Path) -> None:
        with ExitStack() as strangers, Receiver(landing, settings()) as receiver:
            stranger = strangers.enter_context(socket.create_connection(("127.0.0.1", receiver.port)))
            stranger.sendall(b"\x01\x00\x00\x00\x01\x00half")
            association = associate(receiver.port)
            assert association.send_c_store(radiograph(1)).Status == 0
            association.release()
        assert len(receipts(landing)) == 1

    def test_is_left_only_when_its_batches_are_whole(self, landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        began, seal = threading.Event(), Spool.seal

        def slowly(spool: Spool, today: date) -> Receipt | None:
            began.set()
            time.sleep(0.5)
            return seal(spool, today)

        monkeypatch.setattr(Spool, "seal", slowly)
        with Receiver(landing, settings()) as receiver:
            association = associate(receiver.port)
            association.send_c_store(radiograph(1))
            association.release()
            assert began.wait(60)
        assert len(receipts(landing)) == 1

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            ([ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLosslessSV1], JPEGLosslessSV1),
            ([JPEGBaseline8Bit, ImplicitVRLittleEndian, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
            ([JPEGBaseline8Bit], JPEGBaseline8Bit),
        ],
    )
    def test_chooses_the_syntax_that_loses_least(self, landing: Path, offered: list[UID], chosen: UID) -> None:
        with Receiver(landing, settings()) as receiver:
            sender = AE(ae_title="MODALITY1")
            sender.add_requested_context(DigitalXRayImageStorageForPresentation, offered)
            association = sender.associate("127.0.0.1", receiver.port, ae_title="RADIA")
            assert [context.transfer_syntax for context in association.accepted_contexts] == [[chosen]]
            association.release()

    def test_turns_away_one_association_too_many(self, landing: Path) -> None:
        with Receiver(landing, settings(max_associations=1)) as receiver:
            first = associate(receiver.port)
            assert associate(receiver.port, "MODALITY2").is_rejected
            assert first.send_c_store(radiograph(1)).Status == 0
            first.release()
            wait_until(lambda: receipts(landing))
            wait_until(lambda: associate(receiver.port, "MODALITY2").is_established)

    def test_keeps_both_contents_that_came_under_one_uid(self, landing: Path) -> None:
        first = radiograph(1)
        second = radiograph(2, SOPInstanceUID=first.SOPInstanceUID)
        with Receiver(landing, settings()) as receiver:
            association = associate(receiver.port)
            for dataset in (first, second, first):
                assert association.send_c_store(dataset).Status == 0
            association.release()
        (receipt,) = receipts(landing)
        assert [file.source_name for file in receipt.files] == [
            f"{first.SOPInstanceUID}-2.dcm",
            f"{first.SOPInstanceUID}.dcm",
        ]

    @needs_storescu
    @pytest.mark.parametrize("window_seconds", [0, 0.3])
    def test_loses_nothing_of_what_three_senders_send_at_once(
        self, landing: Path, tmp_path: Path, window_seconds: float
    ) -> None:
        sent = {title: [radiograph(n) for n in range(40)] for title in ("MODALITY1", "MODALITY2", "MODALITY3")}
        senders = {"MODALITY1": "HND", "MODALITY2": "HVD", "MODALITY3": "HND"}
        with Receiver(landing, settings(senders=senders, window_seconds=window_seconds)) as receiver:
            with ThreadPoolExecutor(3) as pool:
                complaints = [
                    pool.submit(storescu, *address_of(receiver, title), *map(str, saved(tmp_path / title, *datasets)))
                    for title, datasets in sent.items()
                ]
            assert [complaint.result() for complaint in complaints] == ["", "", ""]
        for site in ("HND", "HVD"):
            got = [uid for receipt in receipts(landing) if receipt.site == site for uid in uids(receipt, landing)]
            expected = [str(d.SOPInstanceUID) for title, name in senders.items() if name == site for d in sent[title]]
            assert sorted(got) == sorted(expected)


def tls(folder: Path, **changes: object) -> tuple[ReceiverSettings, list[str]]:
    """Settings with mutual TLS, and what storescu must be told to speak it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = "req -x509 -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -days 1 -keyout key.pem -out cert.pem"
    subprocess.run(["openssl", *made.split()], cwd=folder, check=True, capture_output=True)
    key, certificate = folder / "key.pem", folder / "cert.pem"
    secured = settings(tls_certificate=certificate, tls_key=key, tls_authority=certificate, **changes)
    return secured, ["+tls", str(key), str(certificate), "+cf", str(certificate)]


def address_of(receiver: Receiver, title: str = "MODALITY1") -> list[str]:
    return ["-aet", title, "-aec", "RADIA", "127.0.0.1", str(receiver.port)]


def storescu(*arguments: str) -> str:
    """What dcmtk's storescu complains of; of an aborted association its exit status (3.6.7) says nothing."""
    done = subprocess.run([str(STORESCU), *arguments], capture_output=True, text=True, timeout=120)
    complaint = (done.stdout + done.stderr).strip()
    assert done.returncode == 0 or complaint, f"storescu ended with {done.returncode} and no word"
    return complaint


# --- DICOMweb -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Orthanc with DICOMweb, started for these tests."""
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "Plugins": [str(PLUGIN)],
                "HttpPort": port,
                "DicomServerEnabled": False,
                "AuthenticationEnabled": False,
                "RemoteAccessAllowed": False,
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            }
        )
    )
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([str(ORTHANC), str(configuration)], stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/system"))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def answers(url: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(url, timeout=2).ok
    return False


def stored(orthanc: str, folder: Path, *datasets: Dataset) -> None:
    """Puts objects into an Orthanc that holds nothing else."""
    for study in requests.get(f"{orthanc}/studies", timeout=10).json():
        requests.delete(f"{orthanc}/studies/{study}", timeout=10).raise_for_status()
    add(orthanc, folder, *datasets)


def add(orthanc: str, folder: Path, *datasets: Dataset) -> None:
    for path in saved(folder, *datasets):
        requests.post(f"{orthanc}/instances", data=path.read_bytes(), timeout=10).raise_for_status()


def pacs(url: str, **changes: object) -> PacsSettings:
    quick = {"requests_per_second": 1000, "backoff_seconds": 0.01, "attempts": 3, "timeout_seconds": 10}
    return PacsSettings.model_validate({"site": "HND", "url": f"{url}/dicom-web"} | quick | changes)


def take(settings: PacsSettings, landing: Path, since: date = date(2026, 1, 1)) -> list[Receipt]:
    return take_pacs(settings, landing, since=since, until=date(2026, 1, 31), today=TODAY)


class CuttingProxy:
    """Stands between RADIA and a server, and after `budget` bytes cuts every link until it is `mended`."""

    def __init__(self, target: str, budget: int) -> None:
        host, port = target.removeprefix("http://").split(":")
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection((host, int(port))) as server:
                    outward = threading.Thread(target=pass_on, args=(self.request, server, None), daemon=True)
                    outward.start()
                    pass_on(server, self.request, proxy)

        def pass_on(source: socket.socket, sink: socket.socket, meter: "CuttingProxy | None") -> None:
            with suppress(OSError):
                while chunk := source.recv(1024):
                    if meter is not None and not meter.allows(len(chunk)):
                        break
                    sink.sendall(chunk)
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        self.budget = float(budget)
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def allows(self, size: int) -> bool:
        self.budget -= size
        return self.budget > 0

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@needs_orthanc
class TestPacs:
    def test_takes_the_chest_radiographs_of_the_days_asked_for(
        self, orthanc: str, landing: Path, tmp_path: Path
    ) -> None:
        wanted = [radiograph(1), radiograph(2, day="20260131"), radiograph(3, BodyPartExamined="")]
        others = [
            radiograph(4, day="20260201"),
            radiograph(5, BodyPartExamined="HAND"),
            radiograph(6, Modality="CT"),
        ]
        stored(orthanc, tmp_path / "sent", *wanted, *others)
        (receipt,) = take(pacs(orthanc), landing)
        assert (receipt.batch, receipt.site) == ("HND-20261123-1", "HND")
        assert uids(receipt, landing) == {str(dataset.SOPInstanceUID) for dataset in wanted}

    def test_brings_the_pixels_as_they_are_stored(self, orthanc: str, landing: Path, tmp_path: Path) -> None:
        dataset = radiograph(7)
        stored(orthanc, tmp_path / "sent", dataset)
        (receipt,) = take(pacs(orthanc), landing)
        taken = dcmread(landing / receipt.batch / "files" / receipt.files[0].sha256)
        assert taken.PixelData == dataset.PixelData
        assert taken.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian

    def test_does_not_fetch_again_what_it_has(self, orthanc: str, landing: Path, tmp_path: Path) -> None:
        stored(orthanc, tmp_path / "sent", radiograph(1))
        fetched: list[tuple[int, int]] = []
        for _ in range(2):
            days = {"since": date(2026, 1, 1), "until": date(2026, 1, 31), "today": TODAY}
            take_pacs(pacs(orthanc), landing, **days, progress=lambda *step: fetched.append(step))
        assert fetched == [(1, 1)]

    def test_takes_what_a_study_gained_after_it_was_taken(self, orthanc: str, landing: Path, tmp_path: Path) -> None:
        first = radiograph(1)
        late = radiograph(2, study=str(first.StudyInstanceUID), PatientID="T1")
        stored(orthanc, tmp_path / "sent", first)
        take(pacs(orthanc), landing)
        add(orthanc, tmp_path / "sent", late)
        (receipt,) = take(pacs(orthanc), landing)
        assert uids(receipt, landing) == {str(late.SOPInstanceUID)}

    def test_asks_page_by_page(self, orthanc: str, landing: Path, tmp_path: Path) -> None:
        stored(orthanc, tmp_path / "sent", *(radiograph(number) for number in range(5)))
        (receipt,) = take(pacs(orthanc, page_size=2), landing)
        assert len(receipt.files) == 5

    def test_keeps_what_came_before_a_link_broke_and_goes_on_from_there(
        self, orthanc: str, landing: Path, tmp_path: Path
    ) -> None:
        sent = [radiograph(number) for number in range(12)]
        stored(orthanc, tmp_path / "sent", *sent)
        proxy = CuttingProxy(orthanc, budget=10**9)
        with closing(proxy):
            take(pacs(proxy.url), tmp_path / "elsewhere")
            used = 10**9 - proxy.budget
            proxy.budget = used * 0.8
            with pytest.raises(IntakeError, match="what came until now is kept, run again"):
                take(pacs(proxy.url), landing)
            before = sum(len(receipt.files) for receipt in receipts(landing))
            assert 0 < before < 12
            proxy.budget = 10**9
            take(pacs(proxy.url), landing)
        got = [uids(receipt, landing) for receipt in receipts(landing)]
        assert sum(map(len, got)) == 12
        assert set.union(*got) == {str(dataset.SOPInstanceUID) for dataset in sent}

    def test_tells_how_far_it_is(self, orthanc: str, landing: Path, tmp_path: Path) -> None:
        stored(orthanc, tmp_path / "sent", radiograph(1), radiograph(2))
        seen: list[tuple[int, int]] = []
        take_pacs(
            pacs(orthanc),
            landing,
            since=date(2026, 1, 1),
            until=date(2026, 1, 31),
            today=TODAY,
            progress=lambda done, total: seen.append((done, total)),
        )
        assert seen == [(1, 2), (2, 2)]


class TestPacsThatFails:
    def test_is_named_by_site_and_host_and_by_nothing_of_a_patient(self, landing: Path) -> None:
        with pytest.raises(IntakeError, match=r"site HND: the PACS at 127\.0\.0\.1 failed \(ConnectionError\)"):
            take(pacs(f"http://127.0.0.1:{free_port()}"), landing)

    def test_needs_its_authorization(self, landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HND_TOKEN", raising=False)
        with pytest.raises((IntakeError, SettingsError), match="HND_TOKEN is not set"):
            take(pacs("http://127.0.0.1:1", authorization_variable="HND_TOKEN"), landing)


# --- the commands ---------------------------------------------------------------------------------------------------


def write_params(data: Path, **intake: object) -> dict[str, str]:
    """Settings in a data folder, and the environment of a command that works there."""
    data.mkdir(exist_ok=True)
    (data / "params.yaml").write_text(yaml.safe_dump({"intake": intake}))
    return {**os.environ, "RADIA_DATA": str(data)}


class TestCommandReceive:
    def serve(self, environment: dict[str, str]) -> tuple[subprocess.Popen[str], int]:
        """A receiver in a process of its own, and the port it chose."""
        command = [sys.executable, "-m", "radia", "intake", "receive", "--json"]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        line = server.stderr.readline()
        assert "listening on 127.0.0.1:" in line, line + server.stderr.read()
        return server, int(line.split(":")[1].split(";")[0])

    @pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
    def test_makes_batches_until_it_is_told_to_end(self, tmp_path: Path, ending: signal.Signals) -> None:
        data = tmp_path / "data"
        receiver = {"port": 0, "senders": {"MODALITY1": "HND"}, "min_free_bytes": 0}
        server, port = self.serve(write_params(data, receiver=receiver))
        association = associate(port)
        assert association.send_c_store(radiograph(1)).Status == 0
        association.release()
        wait_until(lambda: receipts(data / "landing"))
        open_still = associate(port)
        assert open_still.send_c_store(radiograph(2)).Status == 0
        server.send_signal(ending)
        said, _ = server.communicate(timeout=120)
        assert server.returncode == 0
        assert json.loads(said) == {"batches": 2}
        received = receipts(data / "landing")
        assert [len(receipt.files) for receipt in received] == [1, 1]
        noted = [list(event.outputs) for event in steps.open_run(data=data).ledger.events()]
        assert noted == [[receipt.batch] for receipt in received]

    def test_without_senders_ends_with_one_line(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "radia", "intake", "receive"]
        environment = write_params(tmp_path / "data")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert done.stderr.startswith("radia: no sender may associate")
        assert done.stderr.count("\n") == 1


class TestCommandPacs:
    @needs_orthanc
    def test_fetches_the_days_asked_for_once(
        self, orthanc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = tmp_path / "data"
        stored(orthanc, tmp_path / "sent", radiograph(1), radiograph(2, day="20260301"))
        write_params(data, pacs=[{"site": "HND", "url": f"{orthanc}/dicom-web", "requests_per_second": 1000}])
        monkeypatch.setenv("RADIA_DATA", str(data))
        asked = ["intake", "pacs", "--site", "HND", "--from", "2026-01-01", "--to", "2026-01-31", "--json"]
        first, second = (CliRunner().invoke(main, asked) for _ in range(2))
        assert [outcome["summary"]["files"] for outcome in json.loads(first.stdout)["outcomes"]] == [1]
        assert json.loads(second.stdout) == {"outcomes": []}
        ledger = steps.open_run(data=data).ledger
        assert [list(event.outputs) for event in ledger.events(action="intake")] == [
            [receipts(data / "landing")[0].batch]
        ]
        days = {"pacs": "HND", "since": "2026-01-01", "until": "2026-01-31"}
        assert [event.parameters for event in ledger.events(action="queried")] == [days, days]

    def test_asks_the_others_where_one_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        urls = [{"site": site, "url": f"http://127.0.0.1:{free_port()}", "attempts": 1} for site in ("HND", "HVD")]
        write_params(tmp_path / "data", pacs=urls)
        monkeypatch.setenv("RADIA_DATA", str(tmp_path / "data"))
        done = CliRunner().invoke(main, ["intake", "pacs"])
        assert done.exit_code == 1
        assert "site HND: the PACS at 127.0.0.1 failed" in done.stderr
        assert "site HVD: the PACS at 127.0.0.1 failed" in done.stderr

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (["--site", "XYZ"], "intake.pacs has HND"),
            (["--from", "2026-02-01", "--to", "2026-01-01"], "give the earlier one first"),
        ],
    )
    def test_names_what_cannot_be_asked(
        self, options: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_params(tmp_path / "data", pacs=[{"site": "HND", "url": "http://127.0.0.1:1"}])
        monkeypatch.setenv("RADIA_DATA", str(tmp_path / "data"))
        done = CliRunner().invoke(main, ["intake", "pacs", *options])
        assert done.exit_code == 1
        assert complaint in done.stderr
