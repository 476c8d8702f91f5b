"""A full disk, a clock that jumps, a database that restarts: nothing is lost or doubled, and the ledger verifies.

The same on the running services, with kill -9 of every one of them: `make faults` (tests/deployment/faults.py).
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radia.errors import RadiaError
from radia.images import ImageStore
from radia.intake import receipts, take_folder
from radia.ledger import Ledger
from radia.ledger import store as ledger_store
from radia.settings import database_url
from tests.unit.test_intake_killed import FILES, in_a_child, result, run_through, write_radiograph
from tests.unit.test_ledger_postgres import BINARIES
from tests.unit.test_operations import server  # noqa: F401

NEEDS_ROOM = {"open", "os.mkdir", "os.link", "os.symlink"}
"""Operations that fail on a full disk; renaming and removing do not."""
MOMENTS = 20


def inbox_of(folder: Path) -> Path:
    for number in range(FILES):
        write_radiograph(folder / ("HND" if number % 2 else "HVD") / f"{number}.dcm", number)
    return folder


class TestFullDisk:
    @pytest.mark.filterwarnings("ignore:This process.*fork")
    def test_at_any_operation_between_intake_and_manifest_loses_and_doubles_no_image(self, tmp_path: Path) -> None:
        inbox = inbox_of(tmp_path / "inbox")
        run_through(inbox, tmp_path / "whole")
        operations = in_a_child(inbox, tmp_path / "counted")
        assert operations is not None
        moments = np.random.default_rng(0).choice(operations, MOMENTS, replace=False)
        for moment in moments:
            data = tmp_path / f"full{moment}"
            assert run_until_full(inbox, data, full_at=int(moment)) in ("whole", "told")
            run_through(inbox, data)
            pd.testing.assert_frame_equal(result(data), result(tmp_path / "whole"))
            store = ImageStore(data / "images")
            assert sorted(store.ids) == sorted(result(data)["image"])
            for batch in {receipt.batch for receipt in receipts(data / "landing")}:
                store.verify(batch)


def run_until_full(inbox: Path, data: Path, *, full_at: int) -> str:
    """Runs in a process of its own, whose disk is full from one operation on: whole, told (an error), or silent."""
    child = os.fork()
    if child == 0:
        fate = 2
        try:
            fill_disk(data, full_at)
            run_through(inbox, data)
            fate = 0
        except RadiaError:
            fate = 1
        except OSError as error:
            fate = 1 if error.errno == errno.ENOSPC else 2
        finally:
            os._exit(fate)
    return {0: "whole", 1: "told"}.get(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "silent")


def fill_disk(below: Path, full_at: int) -> None:
    """From the operation of this number on, nothing new can be made below a folder, in this process."""
    seen = 0

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in NEEDS_ROOM or not str(arguments[0]).startswith(str(below)):
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        seen += 1
        if seen > full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hear)


class TestClock:
    @pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)], ids=["back", "ahead"])
    def test_that_jumps_leaves_a_ledger_that_verifies(
        self, jump: timedelta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
        ledger.append("intake", actor="a", once="first")

        class Jumped(datetime):
            @classmethod
            def now(cls, tz=None):  # type: ignore[no-untyped-def, override]
                return datetime.now(tz) + jump

        monkeypatch.setattr(ledger_store, "datetime", Jumped)
        ledger.append("deidentify", actor="a", once="second")
        ledger.append("intake", actor="a", once="first")  # the same again, after the jump
        monkeypatch.undo()
        ledger.append("images", actor="a")
        assert [event.action for event in ledger.events()] == ["intake", "deidentify", "images"]
        times = [event.at for event in ledger.events()]
        assert times == sorted(times)
        assert ledger.verify().events == 3

    def test_that_jumps_back_takes_nothing_twice_and_gives_each_batch_its_own_name(self, tmp_path: Path) -> None:
        inbox, landing = inbox_of(tmp_path / "inbox"), tmp_path / "landing"
        today = datetime.now(UTC).date()
        first = take_folder(inbox, landing, today=today)
        assert take_folder(inbox, landing, today=today - timedelta(days=400)) == []
        write_radiograph(inbox / "HND" / "late.dcm", 99)
        (late,) = take_folder(inbox, landing, today=today)
        assert late.batch not in {receipt.batch for receipt in first}
        assert sum(len(receipt.files) for receipt in receipts(landing)) == FILES + 1


def test_the_ledger_goes_on_after_its_server_was_restarted(
    server: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from radia.operations.databases import prepare

    monkeypatch.setenv("RADIA_DATABASE", f"postgresql://?host={server}")
    monkeypatch.setenv("PGPASSFILE", str(server / "secrets" / "pgpass_admin"))
    prepare(server / "secrets" / "pgpass_admin")
    url = database_url("ledger")
    assert url is not None
    ledger = Ledger(url)
    ledger.append("intake", actor="a", once="first")
    restart(server)
    ledger.append("intake", actor="a", once="first")
    ledger.append("images", actor="a")
    assert [event.action for event in ledger.events()] == ["intake", "images"]
    assert ledger.verify().events == 2


def restart(folder: Path) -> None:
    """As after a power cut: no connection is ended in peace."""
    run_as: dict[str, object] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    command = [f"{BINARIES}/pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "-w", "-o", options]
    log = ["-l", str(folder / "log")]
    subprocess.run([*command, *log, "restart"], check=True, stdout=subprocess.DEVNULL, cwd=folder, **run_as)  # type: ignore[call-overload]
