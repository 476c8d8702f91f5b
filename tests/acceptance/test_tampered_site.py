"""Random single changes to everything that a site keeps: each is found, and what was changed is named.

A thousand of them, on a site of its own: `python benchmarks/tampering.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from radia import steps
from radia.steps import open_run
from radia.workspace import Workspace
from tests import tampering

from .conftest import EmbeddedSite, working_in

pytestmark = pytest.mark.xdist_group("main-job")


@pytest.fixture(scope="module")
def promoted(site: EmbeddedSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A copy of the site, with its candidate in use on a person's word."""
    data = tmp_path_factory.mktemp("tampered") / "data"
    shutil.copytree(site.data, data, symlinks=True)
    with tampering.changed_for_good(data / "mlflow.db") as database:
        for table, column in MLFLOW_PLACES:
            moved = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            database.execute(moved, (f"{site.data}/", f"{data}/"))
    with working_in(data):
        run = open_run()
        steps.promote(run, "1", approver="Dre Côté", reason="the figures", override="too few studies for the gate")
        run.ledger.close()
        yield Workspace(data)


MLFLOW_PLACES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("experiments", "artifact_location"),
    ("model_versions", "storage_location"),
)
"""Where MLflow notes the folder that its files lie in."""


def test_a_whole_site_gives_no_alarm_and_each_change_is_found_and_named(promoted: Workspace) -> None:
    assert tampering.said_of(promoted) == ""
    missed, kinds = tampering.missed(promoted, 60, seed=8)
    assert missed == []
    assert len(kinds) > 15
    assert tampering.said_of(promoted) == ""  # every change was taken back


def test_a_cut_tail_is_seen_by_the_data_alone(promoted: Workspace) -> None:
    """Whoever also changes the anchor file and MLflow has forgotten the record that travels with the snapshot."""
    with tampering.changed_database(promoted.root / "ledger.db") as database:
        guards = tampering.triggers_of(database)
        for name in guards:
            database.execute(f"DROP TRIGGER {name}")
        last = database.execute("SELECT sequence - 1 FROM ledger_events WHERE action = 'snapshot'").fetchone()[0]
        for table in ("ledger_events", "ledger_mentions"):
            database.execute(f"DELETE FROM {table} WHERE sequence > ?", (last,))
        database.commit()
        kept = promoted.ledger_anchor_file.read_bytes()
        (hash_,) = database.execute("SELECT hash FROM ledger_events WHERE sequence = ?", (last,)).fetchone()
        promoted.ledger_anchor_file.write_text(f"{last:020d}:{hash_}\n")
        try:
            assert f"event {last + 1} " in tampering.said_of(promoted)
            record = next(promoted.snapshots.glob("*.dvc"))
            assert f"ledger: {last + 1}:" in record.read_text()
        finally:
            promoted.ledger_anchor_file.write_bytes(kept)
