"""What the receiver tells Prometheus: real associations and objects, read back from its page as Prometheus reads it."""

from __future__ import annotations

import os
import socket
import threading
import time
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from radia import steps
from radia.errors import SettingsError
from radia.intake import landing as landing_module
from radia.intake.landing import Spool
from radia.intake.measures import rejection
from radia.intake.receiver import Receiver
from radia.operations.measures import page
from radia.steps import open_run
from tests.unit.test_intake_network import associate, free_port, radiograph, settings, tls, wait_until

Figures = dict[tuple[str, str], float]
"""Name and the label's value (empty: none) -> figure."""


def figures(text: str) -> Figures:
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def said(receiver: Receiver) -> Figures:
    return figures(generate_latest(receiver.measures.registry).decode())


def fetched(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    return tmp_path / "landing"


class TestAssociations:
    def test_that_are_open_and_were_accepted_are_counted(self, landing: Path) -> None:
        with Receiver(landing, settings()) as receiver:
            assert said(receiver)["radia_receiver_associations_open", ""] == 0
            first, second = associate(receiver.port), associate(receiver.port, "MODALITY2")
            wait_until(lambda: said(receiver)["radia_receiver_associations_open", ""] == 2)
            first.release()
            wait_until(lambda: said(receiver)["radia_receiver_associations_open", ""] == 1)
            assert said(receiver)["radia_receiver_associations_accepted_total", ""] == 2
            second.release()

    def test_that_were_turned_away_are_counted_by_reason(self, landing: Path) -> None:
        with Receiver(landing, settings(max_associations=1)) as receiver:
            held = associate(receiver.port)
            assert associate(receiver.port, "MODALITY2").is_rejected
            held.release()
            for title, called in (("STRANGER", "RADIA"), ("MODALITY1", "SOMEONE")):
                wait_until(lambda: not receiver._server.active_associations)
                assert associate(receiver.port, title, called).is_rejected
            found = said(receiver)
        rejected = {reason: n for (name, reason), n in found.items() if name.endswith("associations_rejected_total")}
        assert rejected == {
            "host": 0,
            "connections": 0,
            "tls": 0,
            "calling_title": 1,
            "called_title": 1,
            "associations": 1,
            "other": 0,
        }
        assert found["radia_receiver_associations_accepted_total", ""] == 1

    def test_from_a_host_that_is_not_listed_are_counted(self, landing: Path) -> None:
        with Receiver(landing, settings(hosts=["10.0.0.0/8"])) as receiver:
            assert not associate(receiver.port).is_established
            assert said(receiver)["radia_receiver_associations_rejected_total", "host"] == 1

    def test_of_strangers_who_say_nothing_or_no_tls_are_counted(self, landing: Path, tmp_path: Path) -> None:
        secured, _ = tls(tmp_path, handshake_seconds=60, max_associations=1)
        with ExitStack() as strangers, Receiver(landing, secured) as receiver:
            opened = [
                strangers.enter_context(socket.create_connection(("127.0.0.1", receiver.port), timeout=60))
                for _ in range(3)
            ]
            wait_until(lambda: said(receiver)["radia_receiver_associations_rejected_total", "connections"] == 1)
            opened[0].sendall(b"neither TLS nor DICOM")
            wait_until(lambda: said(receiver)["radia_receiver_associations_rejected_total", "tls"] == 1)
            strangers.close()

    @pytest.mark.parametrize("answer", [(1, 1), (2, 1), (2, 2), (3, 1), (None, None)])
    def test_have_a_reason_of_the_list_whatever_the_protocol_says(self, answer: tuple[int, int]) -> None:
        assert rejection(*answer) == "other"


class TestObjects:
    def test_that_were_stored_are_counted_with_their_bytes_and_seconds_by_site(self, landing: Path) -> None:
        with Receiver(landing, settings()) as receiver:
            assert said(receiver)["radia_receiver_objects_stored_total", "HVD"] == 0  # a silent site is there as well
            association = associate(receiver.port)
            for number in range(3):
                assert association.send_c_store(radiograph(number)).Status == 0
            association.release()
            wait_until(lambda: said(receiver)["radia_receiver_batches_total", "HND"] == 1)
            found = said(receiver)
        assert found["radia_receiver_objects_stored_total", "HND"] == 3
        assert found["radia_receiver_objects_stored_total", "HVD"] == 0
        kept = sum(path.stat().st_size for path in landing.glob("HND-*/files/*"))
        assert found["radia_receiver_stored_bytes_total", "HND"] == kept > 0
        assert found["radia_receiver_object_seconds_count", ""] == 3
        assert 0 < found["radia_receiver_object_seconds_sum", ""] < 60
        assert found["radia_receiver_batches_total", "HVD"] == 0

    def test_that_were_not_taken_are_counted_by_reason(self, landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        def broken(*_: object) -> None:
            raise RuntimeError

        with Receiver(landing, settings()) as receiver:
            association = associate(receiver.port)
            with monkeypatch.context() as during:
                during.setattr(landing_module.os, "fsync", full)
                assert association.send_c_store(radiograph(1)).Status == 0xA700
            with monkeypatch.context() as during:
                during.setattr(Spool, "write", broken)
                assert association.send_c_store(radiograph(2)).Status == 0xC211
            assert association.send_c_store(radiograph(3, SOPInstanceUID="1.2.Name^Of")).Status == 0xC000
            association.release()
            found = said(receiver)
        refused = {reason: n for (name, reason), n in found.items() if name.endswith("objects_refused_total")}
        assert refused == {"uid": 1, "disk_low": 0, "disk_full": 1, "failed": 1}
        assert found["radia_receiver_objects_stored_total", "HND"] == 0
        assert found["radia_receiver_object_seconds_count", ""] == 0

    def test_for_which_the_disk_is_too_full_are_counted_and_the_bound_is_shown(self, landing: Path) -> None:
        with Receiver(landing, settings(min_free_bytes=10**18)) as receiver:
            association = associate(receiver.port)
            assert association.send_c_store(radiograph(1)).Status == 0xA700
            association.release()
            found = said(receiver)
        assert found["radia_receiver_objects_refused_total", "disk_low"] == 1
        assert found["radia_receiver_disk_least_bytes", ""] == 10**18
        assert 0 < found["radia_receiver_disk_free_bytes", ""] < found["radia_receiver_disk_bytes", ""]

    def test_that_wait_for_their_batch_are_counted_with_the_age_of_the_oldest(self, landing: Path) -> None:
        with Receiver(landing, settings(window_seconds=3600)) as receiver:
            assert said(receiver)["radia_receiver_waiting_oldest_seconds", ""] == 0
            association = associate(receiver.port)
            for number in range(2):
                association.send_c_store(radiograph(number))
            association.release()
            oldest, _ = sorted((landing / ".spool").glob("HND-*/*.dcm"))
            long_ago = time.time() - 7200
            os.utime(oldest, (long_ago, long_ago))
            found = said(receiver)
            assert found["radia_receiver_waiting_objects", ""] == 2
            assert 7200 <= found["radia_receiver_waiting_oldest_seconds", ""] < 7400
        assert said(receiver)["radia_receiver_waiting_objects", ""] == 0

    def test_whose_batch_found_no_room_wait_on_and_are_seen_to(
        self, landing: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with Receiver(landing, settings()) as receiver:
            association = associate(receiver.port)
            association.send_c_store(radiograph(1))
            with monkeypatch.context() as during:
                during.setattr(landing_module.os, "link", full)
                association.release()
                wait_until(lambda: said(receiver)["radia_receiver_batches_put_off_total", ""] == 1)
            found = said(receiver)
            assert found["radia_receiver_waiting_objects", ""] == 1
            assert found["radia_receiver_batches_total", "HND"] == 0
        with Receiver(landing, settings()) as receiver:
            assert said(receiver)["radia_receiver_batches_total", "HND"] == 1


class TestPage:
    def test_of_a_receiver_that_runs_holds_its_figures_and_nothing_that_a_sender_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dicom, web = free_port(), free_port()
        monkeypatch.setenv("RADIA_DATA", str(tmp_path))
        monkeypatch.setenv("RADIA_METRICS", f"receiver={web}")
        senders = {"port": dicom, "senders": {"MODALITY1": "HND"}, "min_free_bytes": 0}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"intake": {"receiver": senders}}))
        stop, listening = threading.Event(), threading.Event()
        serving = threading.Thread(
            target=lambda: steps.receive(open_run(), stop, listening=lambda _port: listening.set())
        )
        serving.start()
        try:
            assert listening.wait(60)
            film = radiograph(7, AccessionNumber="ACC4711", PatientBirthDate="19610203", StationName="SALLE3")
            association = associate(dicom)
            assert association.send_c_store(film).Status == 0
            assert association.send_c_store(radiograph(8, SOPInstanceUID="1.2.Tremblay^Luc")).Status == 0xC000
            association.release()
            assert associate(dicom, "STRANGER").is_rejected
            assert associate(dicom, called="SOMEONE").is_rejected
            wait_until(lambda: figures(fetched(web)).get(("radia_receiver_batches_total", "HND")) == 1)
            text = fetched(web)
        finally:
            stop.set()
            serving.join(60)
        assert figures(text)["radia_receiver_objects_stored_total", "HND"] == 1
        assert figures(text)["radia_receiver_associations_rejected_total", "calling_title"] == 1
        spoken = [str(element.value) for element in film if element.tag.group != 0x7FE0 and len(str(element.value)) > 3]
        spoken += ["Essai", "Tremblay", "STRANGER", "SOMEONE", "MODALITY1", "127.0.0.1"]
        assert len(spoken) > 12
        assert [value for value in spoken if value in text] == []
        with pytest.raises(OSError, match="refused"):
            fetched(web)  # it ended with the receiver

    def test_is_not_served_unless_it_is_asked_for(self, landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        registry = Receiver(landing, settings()).measures.registry
        for value in (None, "", "dagster-code=9113"):
            monkeypatch.delenv("RADIA_METRICS", raising=False)
            if value is not None:
                monkeypatch.setenv("RADIA_METRICS", value)
            with page("receiver", registry) as port:
                assert port is None

    def test_is_for_this_machine_unless_another_address_is_named(
        self, landing: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Receiver(landing, settings()).measures.registry
        elsewhere = "127.0.0.2"
        monkeypatch.setenv("RADIA_METRICS", "receiver=0")
        with page("receiver", registry) as port:
            assert "radia_receiver_associations_open" in fetched(port or 0)
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((elsewhere, port or 0), timeout=10)
        monkeypatch.setenv("RADIA_METRICS", "receiver=0.0.0.0:0")
        with page("receiver", registry) as port:
            socket.create_connection((elsewhere, port or 0), timeout=10).close()

    @pytest.mark.parametrize("wrong", ["9112", "receiver", "reciever=9112", "receiver=0.0.0.0:x", "receiver=:9112"])
    def test_with_a_misspelt_address_is_an_error(self, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RADIA_METRICS", wrong)
        with pytest.raises(SettingsError, match="RADIA_METRICS is not of the form"), page("receiver", None):  # type: ignore[arg-type]
            pass

    def test_on_a_port_that_is_taken_is_an_error_before_anything_is_received(
        self, landing: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = Receiver(landing, settings()).measures.registry
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            monkeypatch.setenv("RADIA_METRICS", f"receiver={taken.getsockname()[1]}")
            with pytest.raises(SettingsError, match="cannot listen on 127"), page("receiver", registry):
                pass
