"""A backup is of one moment, shows when it was changed, and comes back elsewhere with its ledger and its model."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

from radia import digests
from radia.errors import BackupError
from radia.ledger import Ledger, file_digests, open_ledger
from radia.operations import backup
from radia.operations.backup import read, restore, take
from radia.workspace import Workspace
from tests.unit.test_operations import server  # noqa: F401

PASSPHRASE = "correct horse battery"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A data folder with a ledger, a recorded file, an archive of hard links, a database of the web app."""
    for name in ("RADIA_DATABASE", "RADIA_LEDGER_KEY", "RADIA_LEDGER_KEY_FILE", "RADIA_LEDGER_ANCHOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(backup.registry, "champion", lambda site: None)
    monkeypatch.setattr(backup, "PAUSE_SECONDS", 0.0)
    site = Workspace(tmp_path / "data")
    recorded = site.evaluation / "metrics.json"
    recorded.parent.mkdir(parents=True)
    recorded.write_text('{"auroc": 0.8}')
    site.images.mkdir(parents=True)
    (site.images / "shard.u8").write_bytes(b"\0" * 1000)
    os.link(site.images / "shard.u8", site.archive / "cached")
    (site.root / "logs").mkdir()
    (site.root / "logs" / "web.log").write_text("a line\n")
    site.web.mkdir()
    with sqlite3.connect(site.web / "people.db") as database:
        database.execute("CREATE TABLE people (name TEXT)")
        database.execute("INSERT INTO people VALUES ('Anne')")
    ledger = open_ledger(site)
    ledger.append("evaluate", actor="a", files=file_digests(site, [recorded]))
    return site


def moved(tmp_path: Path, site: Workspace) -> Workspace:
    """Another data folder, with the keys of the first."""
    other = Workspace(tmp_path / "elsewhere")
    other.key_file.parent.mkdir(parents=True)
    key = other.ledger_key_file
    key.touch(mode=0o600)
    key.write_text(site.ledger_key_file.read_text())
    return other


class TestTake:
    def test_holds_every_file_but_keys_and_logs(self, site: Workspace, tmp_path: Path) -> None:
        taken = take(site, tmp_path / "backup", actor="a")
        names = {name.removeprefix("files/") for name in taken.files}
        assert {"evaluation/metrics.json", "archive/images/shard.u8", "ledger.db", "web/people.db"} <= names
        assert not [name for name in names if name.startswith(("keys", "logs"))]
        assert (tmp_path / "backup").stat().st_mode & 0o077 == 0

    def test_is_recorded(self, site: Workspace, tmp_path: Path) -> None:
        take(site, tmp_path / "backup", actor="a")
        event = open_ledger(site).last("backup")
        assert event is not None
        assert event.outputs == {"backup": digests.of_file(tmp_path / "backup" / "backup.json")}

    def test_names_of_one_file_stay_so(self, site: Workspace, tmp_path: Path) -> None:
        take(site, tmp_path / "backup", actor="a")
        archive = tmp_path / "backup" / "files" / "archive"
        assert (archive / "images" / "shard.u8").samefile(archive / "cached")

    def test_writes_over_nothing_and_not_into_what_it_copies(self, site: Workspace, tmp_path: Path) -> None:
        with pytest.raises(BackupError, match="there already"):
            take(site, tmp_path, actor="a")
        with pytest.raises(BackupError, match="in the data folder itself"):
            take(site, site.root / "backup", actor="a")

    def test_takes_the_databases_again_where_a_file_changed_meanwhile(
        self, site: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recorded, copied = site.evaluation / "metrics.json", backup._copy_databases

        def a_job_writes_meanwhile(*arguments: object) -> None:
            copied(*arguments)  # type: ignore[arg-type]
            if "0.9" not in recorded.read_text():
                recorded.write_text('{"auroc": 0.9}')
                open_ledger(site).append("evaluate", actor="a", files=file_digests(site, [recorded]))

        monkeypatch.setattr(backup, "_copy_databases", a_job_writes_meanwhile)
        take(site, tmp_path / "backup", actor="a")
        done = restore(tmp_path / "backup", moved(tmp_path, site))
        assert (done.events, done.artefacts) == (2, 1)

    def test_is_given_up_where_the_work_never_rests(
        self, site: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copied, turns = backup._copy_databases, iter(range(1000))

        def never_at_rest(*arguments: object) -> None:
            copied(*arguments)  # type: ignore[arg-type]
            (site.evaluation / "metrics.json").write_text(str(next(turns)) * 9)

        monkeypatch.setattr(backup, "_copy_databases", never_at_rest)
        with pytest.raises(BackupError, match="wait until the job has ended"):
            take(site, tmp_path / "backup", actor="a")
        assert not (tmp_path / "backup").exists()

    def test_a_database_that_is_written_to_is_of_one_moment(self, site: Workspace, tmp_path: Path) -> None:
        over = threading.Event()

        def people_come() -> None:
            with sqlite3.connect(site.web / "people.db", timeout=30) as database:
                while not over.is_set():
                    for name in ("pair", "pair"):
                        database.execute("INSERT INTO people VALUES (?)", (name,))
                    database.commit()

        writer = threading.Thread(target=people_come)
        writer.start()
        try:
            take(site, tmp_path / "backup", actor="a")
        finally:
            over.set()
            writer.join()
        with sqlite3.connect(tmp_path / "backup" / "files" / "web" / "people.db") as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert database.execute("SELECT count(*) FROM people WHERE name = 'pair'").fetchone()[0] % 2 == 0


class TestRead:
    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda path: path.write_text("{}"), "metrics.json of the backup was changed"),
            (lambda path: path.unlink(), "lacks files/evaluation/metrics.json"),
            (lambda path: (path.parent / "new").touch(), "its list does not name"),
        ],
    )
    def test_finds_what_was_changed(self, change, complaint: str, site: Workspace, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        take(site, tmp_path / "backup", actor="a")
        assert len(read(tmp_path / "backup").files) > 3
        change(tmp_path / "backup" / "files" / "evaluation" / "metrics.json")
        with pytest.raises(BackupError, match=complaint):
            read(tmp_path / "backup")

    def test_names_what_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(BackupError, match="not a backup"):
            read(tmp_path)


class TestRestore:
    def test_brings_back_a_site_whose_ledger_and_files_verify(self, site: Workspace, tmp_path: Path) -> None:
        before = {path.name: path.read_bytes() for path in site.evaluation.iterdir()}
        take(site, tmp_path / "backup", actor="a")
        other = moved(tmp_path, site)
        done = restore(tmp_path / "backup", other)
        assert (done.events, done.artefacts) == (1, 1)
        assert {path.name: path.read_bytes() for path in other.evaluation.iterdir()} == before
        assert (other.images / "shard.u8").samefile(other.archive / "cached")
        assert other.ledger_anchor_file.is_file()
        open_ledger(other).append("read", actor="b")
        assert open_ledger(other).verify().events == 2

    def test_goes_into_an_empty_folder_alone(self, site: Workspace, tmp_path: Path) -> None:
        take(site, tmp_path / "backup", actor="a")
        with pytest.raises(BackupError, match="empty data folder"):
            restore(tmp_path / "backup", site)

    def test_refuses_a_backup_that_was_changed_before_anything_is_written(
        self, site: Workspace, tmp_path: Path
    ) -> None:
        take(site, tmp_path / "backup", actor="a")
        (tmp_path / "backup" / "files" / "archive" / "cached").write_bytes(b"other")
        other = Workspace(tmp_path / "elsewhere")
        with pytest.raises(BackupError, match="was changed"):
            restore(tmp_path / "backup", other)
        assert not other.root.exists()

    def test_brings_keys_back_to_who_knows_the_passphrase(self, site: Workspace, tmp_path: Path) -> None:
        take(site, tmp_path / "backup", actor="a", passphrase=PASSPHRASE)
        secret = site.ledger_key_file.read_text().strip()
        assert not [
            path for path in (tmp_path / "backup").rglob("*") if path.is_file() and secret.encode() in path.read_bytes()
        ]
        other = Workspace(tmp_path / "elsewhere")
        with pytest.raises(BackupError, match="passphrase is not the one"):
            restore(tmp_path / "backup", other, passphrase="correct horse bakery")
        restore(tmp_path / "backup", other, passphrase=PASSPHRASE)
        assert other.ledger_key_file.read_text().strip() == secret
        assert other.ledger_key_file.stat().st_mode & 0o077 == 0

    def test_a_ledger_that_was_written_anew_is_found_out(self, site: Workspace, tmp_path: Path) -> None:
        """Its list too was made to fit; the anchor in it was not, and neither was the key."""
        take(site, tmp_path / "backup", actor="a")
        copy = tmp_path / "backup" / "files" / "ledger.db"
        copy.unlink()
        Ledger(f"sqlite:///{copy}").append("evaluate", actor="somebody else")
        told = json.loads((tmp_path / "backup" / "backup.json").read_text())
        told["files"]["files/ledger.db"] = digests.of_file(copy)
        (tmp_path / "backup" / "backup.json").write_text(json.dumps(told))
        with pytest.raises(Exception, match=r"ledger|event"):
            restore(tmp_path / "backup", moved(tmp_path, site))

    def test_a_short_passphrase_is_refused(self, site: Workspace, tmp_path: Path) -> None:
        with pytest.raises(BackupError, match="expected 12"):
            take(site, tmp_path / "backup", actor="a", passphrase="short")


def test_a_site_on_postgresql_comes_back_on_another_server(
    server: Path,  # noqa: F811
    site: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second server's roles have the same names, as `radia migrate --passwords` makes them."""
    from radia.operations.databases import prepare

    passwords = server / "secrets" / "pgpass_admin"
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    monkeypatch.setenv("RADIA_DATABASE", f"postgresql://?host={server}")
    prepare(passwords)
    open_ledger(site).append("evaluate", actor="a", files=file_digests(site, [site.evaluation / "metrics.json"]))
    taken = take(site, tmp_path / "backup", actor="a")
    assert {"databases/ledger.dump", "databases/mlflow.dump", "databases/dagster.dump"} <= set(taken.files)
    subprocess.run(["dropdb", "--force", "--host", str(server), "--username", "radia", "ledger"], check=True)
    prepare(passwords)
    other = moved(tmp_path, site)
    assert open_ledger(other).head().sequence == 0
    done = restore(tmp_path / "backup", other)
    assert (done.events, done.artefacts) == (1, 1)
    monkeypatch.setenv("PGPASSFILE", str(server / "secrets" / "pgpass_web"))
    open_ledger(other).append("read", actor="b")  # the services' role has its rights again
    assert open_ledger(other).verify().events == 2


def test_a_backup_of_one_kind_of_database_is_not_restored_into_another(
    site: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(site, tmp_path / "backup", actor="a")
    monkeypatch.setenv("RADIA_DATABASE", "postgresql://nowhere:5432")
    with pytest.raises(BackupError, match="is of a site on SQLite"):
        restore(tmp_path / "backup", moved(tmp_path, site))
