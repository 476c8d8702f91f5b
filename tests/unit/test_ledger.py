"""The ledger: what it holds, that it cannot fork, and that no change goes unseen."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import stat
from pathlib import Path

import pytest

from radia.errors import ChainBroken, KeyFileError, LedgerError
from radia.ledger import (
    Anchor,
    Ledger,
    canonical,
    chain,
    events,
    file_digests,
    open_ledger,
    rekey,
    store,
    verify_artefacts,
)
from radia.ledger.verification import stretches_of
from radia.workspace import Workspace

KEY = bytes(range(32))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url)


def three_events(ledger: Ledger) -> None:
    ledger.append("intake", actor="radia", outputs={"HND-20261123-1": "a" * 64})
    ledger.append(
        "deidentify", actor="radia", inputs={"HND-20261123-1": "a" * 64}, outputs={"HND-20261123-1": "b" * 64}
    )
    ledger.append("accessed", actor="Dr Côté", subjects=["P0001", "P0002"], parameters={"screen": "review"})


def tamper(url: str, statement: str, *values: object) -> None:
    """Writes behind the ledger's back, as one with all rights to the database could."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        guards = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            database.execute(f"DROP TRIGGER {name}")
        database.execute(statement, values)
        for _, sql in guards:
            database.execute(sql)
    database.close()


class TestAppend:
    def test_returns_the_event_as_it_is_stored(self, ledger: Ledger) -> None:
        written = ledger.append(
            "snapshot",
            actor="radia",
            inputs={"manifest": "1" * 64},
            outputs={"snapshot": "2" * 64},
            parameters={"fraction": 0.25, "findings": ["Edema"]},
            subjects=["P2", "P1"],
            files={"snapshot.json": "3" * 64},
            code="abc",
        )
        assert ledger.event(1) == written
        assert written.sequence == 1
        assert written.subjects == ("P1", "P2")
        assert written.parameters == {"fraction": 0.25, "findings": ["Edema"]}
        assert written.files == {"snapshot.json": "3" * 64}
        assert written.code == "abc"
        assert written.at.endswith("Z")

    def test_each_event_carries_the_hash_of_the_one_before(self, ledger: Ledger) -> None:
        three_events(ledger)
        first, second, third = ledger.events()
        assert first.previous == "0" * 64
        assert second.previous == first.hash
        assert third.previous == second.hash
        assert ledger.head() == third.anchor

    def test_stores_canonical_json(self, ledger: Ledger) -> None:
        body = ledger.append("read", actor="Dr Côté", parameters={"b": 1, "a": {"é": None}}).body
        assert '"actor":"Dr Côté"' in body
        assert '"parameters":{"a":{"é":null},"b":1}' in body
        assert body == canonical(json.loads(body))

    def test_writes_an_event_once_for_the_same_key_and_returns_the_earlier_one(self, ledger: Ledger) -> None:
        first = ledger.append("intake", actor="radia", outputs={"batch": "a" * 64}, once="intake:HND-1")
        again = ledger.append("intake", actor="someone else", outputs={"batch": "a" * 64}, once="intake:HND-1")
        assert again == first
        assert ledger.head().sequence == 1

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"action": "tampered"}, "unknown action 'tampered'; expected one of: intake"),
            ({"actor": ""}, "actor must be text"),
            ({"actor": "two\nlines"}, "actor must be text of one line"),
            ({"parameters": {"loss": float("nan")}}, "not finite"),
            ({"parameters": {1: "x"}}, "key is a int"),
            ({"parameters": {"path": Path("x")}}, "cannot hold a "),
            ({"parameters": {"text": "\ud800"}}, "not valid Unicode"),
            ({"outputs": {"batch": ""}}, "digest must be text"),
        ],
    )
    def test_refuses_what_json_cannot_hold_exactly(self, ledger: Ledger, changes: dict, message: str) -> None:
        with pytest.raises(LedgerError, match=message):
            ledger.append(**{"action": "intake", "actor": "radia", **changes})
        assert ledger.head().sequence == 0

    def test_keeps_order_when_the_clock_went_back_and_says_what_the_clock_said(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = ledger.append("intake", actor="radia")

        class Past(store.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls(2001, 1, 1, tzinfo=tz)

        monkeypatch.setattr(store, "datetime", Past)
        second = ledger.append("images", actor="radia")
        assert second.at == first.at
        assert json.loads(second.body)["clock"] == "2001-01-01T00:00:00.000000Z"
        assert ledger.verify().events == 2

    def test_of_several_processes_at_once_makes_one_chain_and_loses_nothing(self, url: str) -> None:
        context = multiprocessing.get_context("fork")
        Ledger(url)
        writers = [context.Process(target=_append_many, args=(url, name, 25)) for name in "abcd"]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
        ledger = Ledger(url)
        assert ledger.verify().events == 101
        assert len({event.once for event in ledger.events()}) == 101
        assert len(ledger.events(actor="c")) in (25, 26)

    def test_works_in_a_child_of_the_process_that_opened_it(self, ledger: Ledger) -> None:
        ledger.append("intake", actor="parent")
        child = multiprocessing.get_context("fork").Process(
            target=ledger.append, args=("images",), kwargs={"actor": "child"}
        )
        child.start()
        child.join()
        ledger.append("labels", actor="parent")
        assert [event.actor for event in ledger.events()] == ["parent", "child", "parent"]


def _append_many(url: str, name: str, count: int) -> None:
    ledger = Ledger(url)
    for number in range(count):
        ledger.append("predict", actor=name, once=f"{name}{number}")
    ledger.append("predict", actor=name, once="the same for all")


class TestEvents:
    def test_are_found_by_action_actor_digest_name_and_subject(self, ledger: Ledger) -> None:
        three_events(ledger)
        assert [event.sequence for event in ledger.events(action="deidentify")] == [2]
        assert [event.sequence for event in ledger.events(action=["intake", "accessed"])] == [1, 3]
        assert [event.sequence for event in ledger.events(actor="Dr Côté")] == [3]
        assert [event.sequence for event in ledger.events(term="a" * 64)] == [1, 2]
        assert [event.sequence for event in ledger.events(term="HND-20261123-1", action="deidentify")] == [2]
        assert [event.sequence for event in ledger.events(term="P0002")] == [3]
        assert [event.sequence for event in ledger.events(after=1, limit=1)] == [2]
        assert [event.sequence for event in ledger.events(newest_first=True)] == [3, 2, 1]
        assert ledger.last("intake").sequence == 1
        assert ledger.last("promote") is None

    def test_of_a_person_are_those_written_by_them_and_those_done_on_their_word(self, ledger: Ledger) -> None:
        ledger.append("intake", actor="radia")
        ledger.append("reidentify", actor="radia", parameters={"person": "Dr Roy"}, subjects=["P1"])
        ledger.append("read", actor="Dr Roy", parameters={"reader": "Dr Roy"})
        ledger.append("read", actor="radia", parameters={"reader": "Dr Roy"})
        assert ledger.of_person("Dr Roy") == {"reidentify": [2], "read": [3, 4]}
        assert ledger.event(2).people == ["Dr Roy"]

    def test_come_one_by_one_as_they_come_together(self, ledger: Ledger) -> None:
        three_events(ledger)
        assert list(ledger.each(after=1)) == ledger.events(after=1)
        assert next(ledger.each(action="accessed")).sequence == 3

    def test_of_a_number_beyond_the_end_do_not_exist(self, ledger: Ledger) -> None:
        three_events(ledger)
        with pytest.raises(LedgerError, match="no event 4: it ends with 3"):
            ledger.event(4)


class TestVerify:
    def test_proves_a_whole_chain(self, ledger: Ledger) -> None:
        three_events(ledger)
        proven = ledger.verify([ledger.event(2).anchor])
        assert (proven.events, proven.authenticated, proven.anchors) == (3, False, 1)
        assert proven.head == ledger.head()

    def test_proves_an_empty_ledger(self, ledger: Ledger) -> None:
        assert ledger.verify().events == 0

    @pytest.mark.parametrize(
        ("statement", "first_bad"),
        [
            ("UPDATE ledger_events SET body = replace(body, 'radia', 'nobody') WHERE sequence = 2", 2),
            ("UPDATE ledger_events SET actor = 'nobody' WHERE sequence = 2", 2),
            ("UPDATE ledger_events SET action = 'images' WHERE sequence = 2", 2),
            ("UPDATE ledger_events SET at = '2030' WHERE sequence = 1", 1),
            ("UPDATE ledger_events SET once = 'x' WHERE sequence = 3", 3),
            ("UPDATE ledger_events SET hash = previous WHERE sequence = 1", 1),
            ("UPDATE ledger_events SET previous = hash WHERE sequence = 3", 3),
            ("UPDATE ledger_events SET previous = upper(previous) WHERE sequence = 2", 2),
            ("UPDATE ledger_events SET previous = 'not hexadecimal' WHERE sequence = 2", 2),
            ("UPDATE ledger_events SET body = CAST(x'FF00' AS TEXT) WHERE sequence = 2", 2),
            ("UPDATE ledger_events SET body = CAST(body AS BLOB) WHERE sequence = 2", 2),
            ("UPDATE ledger_events SET actor = x'FF' WHERE sequence = 3", 3),
            ("INSERT INTO ledger_events VALUES (-1, 'a', 'read', 'x', NULL, '{}', '', '', NULL)", 1),
            ("INSERT INTO ledger_mentions (id, sequence, action, term) VALUES (-1, 1, 'read', 'P0001')", 1),
            ("UPDATE ledger_events SET sequence = 9 WHERE sequence = 2", 2),
            ("DELETE FROM ledger_events WHERE sequence = 1", 1),
            ("DELETE FROM ledger_events WHERE sequence = 2", 2),
            ("DELETE FROM ledger_mentions WHERE term = 'P0002'", 3),
            ("UPDATE ledger_mentions SET term = 'P0009' WHERE term = 'P0002'", 3),
            ("UPDATE ledger_mentions SET action = 'read' WHERE term = 'P0002'", 3),
            ("INSERT INTO ledger_mentions (sequence, action, term) VALUES (2, 'deidentify', 'P0001')", 3),
        ],
    )
    def test_names_the_first_bad_event(self, ledger: Ledger, url: str, statement: str, first_bad: int) -> None:
        three_events(ledger)
        tamper(url, statement)
        with pytest.raises(ChainBroken, match=f"event {first_bad} of the ledger"):
            ledger.verify()

    def test_sees_two_events_that_changed_places(self, ledger: Ledger, url: str) -> None:
        three_events(ledger)
        tamper(url, "UPDATE ledger_events SET sequence = sequence + 10 WHERE sequence > 1")
        tamper(url, "UPDATE ledger_events SET sequence = 15 - sequence WHERE sequence > 1")
        with pytest.raises(ChainBroken, match="event 2 "):
            ledger.verify()

    def test_sees_an_event_that_was_rewritten_with_a_fitting_hash(self, ledger: Ledger, url: str) -> None:
        three_events(ledger)
        second = ledger.event(2)
        body = second.body.replace("radia", "nobody")
        hash_ = chain(second.previous, body)
        tamper(url, "UPDATE ledger_events SET body = ?, hash = ?, actor = 'nobody' WHERE sequence = 2", body, hash_)
        with pytest.raises(ChainBroken, match="event 2 of the ledger"):
            ledger.verify()

    def test_sees_with_the_key_a_last_event_that_was_rewritten_with_a_fitting_hash(self, url: str) -> None:
        ledger = Ledger(url, key=KEY)
        three_events(ledger)
        third = ledger.event(3)
        body = third.body.replace("review", "other_")
        hash_ = chain(third.previous, body)
        tamper(url, "UPDATE ledger_events SET body = ?, hash = ? WHERE sequence = 3", body, hash_)
        assert Ledger(url).verify().events == 3
        with pytest.raises(ChainBroken, match=r"event 3 .* HMAC"):
            ledger.verify()

    def test_sees_a_tail_that_was_cut_by_an_anchor_kept_elsewhere(self, ledger: Ledger, url: str) -> None:
        three_events(ledger)
        anchor = ledger.head()
        tamper(url, "DELETE FROM ledger_mentions WHERE sequence = 3")
        tamper(url, "DELETE FROM ledger_events WHERE sequence = 3")
        assert ledger.verify().events == 2
        with pytest.raises(ChainBroken, match=r"event 3 .* missing: an anchor proves 3 events"):
            ledger.verify([anchor])

    def test_sees_a_chain_that_was_written_anew_by_an_anchor(self, ledger: Ledger) -> None:
        three_events(ledger)
        with pytest.raises(ChainBroken, match=r"event 2 .* anchor"):
            ledger.verify([Anchor(2, "f" * 64)])

    def test_sees_that_the_guards_are_gone(self, ledger: Ledger, url: str) -> None:
        three_events(ledger)
        with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
            database.execute("DROP TRIGGER ledger_events_update")
        with pytest.raises(ChainBroken, match=r"trigger ledger_events_update .* is gone"):
            ledger.verify()

    def test_checks_a_long_chain_in_parts_with_the_same_result(
        self, ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(4):
            three_events(ledger)
        with ledger._reading() as connection:
            stretches = stretches_of(connection, 12, 3)
        assert [(stretch.after, stretch.last) for stretch in stretches] == [(0, 4), (4, 8), (8, 12)]
        assert all(store.verify_apart(url, None, stretch, {}) for stretch in stretches)
        tamper(url, "UPDATE ledger_mentions SET term = 'P9' WHERE sequence = 6 AND term = 'P0001'")
        tamper(url, "UPDATE ledger_events SET actor = 'x' WHERE sequence = 7")
        assert [store.verify_apart(url, None, stretch, {}) for stretch in stretches] == [True, False, True]


class TestGuards:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE ledger_events SET actor = 'x'",
            "DELETE FROM ledger_events",
            "UPDATE ledger_mentions SET term = 'x'",
            "DELETE FROM ledger_mentions",
            "DELETE FROM ledger_format",
            "INSERT OR REPLACE INTO ledger_events SELECT * FROM ledger_events WHERE sequence = 2",
        ],
    )
    def test_refuse_update_and_delete(self, ledger: Ledger, url: str, statement: str) -> None:
        three_events(ledger)
        with (
            sqlite3.connect(url.removeprefix("sqlite:///")) as database,
            pytest.raises(sqlite3.Error, match="append-only"),
        ):
            database.execute(statement)
        assert ledger.verify().events == 3


class TestKeysAndAnchors:
    def test_a_ledger_begun_with_a_key_is_not_written_without(self, url: str) -> None:
        Ledger(url, key=KEY).append("intake", actor="radia")
        with pytest.raises(LedgerError, match="begun with a key"):
            Ledger(url).append("images", actor="radia")

    def test_a_ledger_begun_without_a_key_cannot_be_given_one(self, url: str) -> None:
        Ledger(url).append("intake", actor="radia")
        with pytest.raises(LedgerError, match="begun without a key"):
            Ledger(url, key=KEY).append("images", actor="radia")

    def test_another_key_verifies_nothing(self, url: str) -> None:
        three_events(Ledger(url, key=KEY))
        with pytest.raises(ChainBroken, match=r"event 1 .* HMAC"):
            Ledger(url, key=bytes(32)).verify()

    def test_a_site_s_ledger_makes_its_key_and_keeps_its_anchor(self, tmp_path: Path) -> None:
        site = Workspace(tmp_path)
        three_events(open_ledger(site))
        assert stat.S_IMODE(site.ledger_key_file.stat().st_mode) == 0o600
        assert Anchor.parse(site.ledger_anchor_file.read_text()) == open_ledger(site).head()
        proven = open_ledger(site).verify()
        assert (proven.authenticated, proven.anchors) == (True, 1)

    def test_the_anchor_file_shows_that_the_tail_was_cut(self, tmp_path: Path) -> None:
        site = Workspace(tmp_path)
        three_events(open_ledger(site))
        tamper(site.ledger_url, "DELETE FROM ledger_mentions WHERE sequence > 1")
        tamper(site.ledger_url, "DELETE FROM ledger_events WHERE sequence > 1")
        with pytest.raises(ChainBroken, match=r"event 2 .* missing"):
            open_ledger(site).verify()

    def test_a_key_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        site = Workspace(tmp_path)
        open_ledger(site)
        site.ledger_key_file.chmod(0o644)
        with pytest.raises(KeyFileError, match="can be read by others"):
            open_ledger(site)

    def test_an_auditor_without_the_key_checks_the_chain_and_is_told_so(self, tmp_path: Path) -> None:
        site = Workspace(tmp_path)
        three_events(open_ledger(site))
        site.ledger_key_file.unlink()
        assert open_ledger(site, read_only=True).verify().authenticated is False

    def test_what_is_not_an_anchor_is_refused(self) -> None:
        with pytest.raises(LedgerError, match="not `<sequence>:<64 hex digits>`"):
            Anchor.parse("12:abc")


class TestRekeying:
    NEW = bytes(range(32, 64))

    @pytest.fixture
    def rekeyed(self, url: str) -> Ledger:
        ledger = Ledger(url, key=KEY)
        three_events(ledger)
        ledger.rekey(self.NEW, actor="Mme Roy", reason="she who held it left")
        ledger.append("check", actor="radia")
        return ledger

    def test_the_chain_goes_on_and_is_proven_with_the_new_key(self, rekeyed: Ledger, url: str) -> None:
        found = Ledger(url, key=self.NEW).verify()
        assert (found.events, found.authenticated) == (5, True)
        assert rekeyed.event(4).actor == "Mme Roy"

    def test_the_old_key_proves_and_writes_nothing_more(self, rekeyed: Ledger, url: str) -> None:
        before = Ledger(url, key=KEY)
        with pytest.raises(ChainBroken, match=r"event 4 .*HMAC"):
            before.verify()
        with pytest.raises(LedgerError, match="another key"):
            before.append("check", actor="radia")

    def test_who_has_only_the_old_key_cannot_change_what_it_signed(self, rekeyed: Ledger, url: str) -> None:
        body = canonical({**json.loads(stored(url, 3)[0]), "actor": "somebody"})
        hash_ = chain(stored(url, 2)[1], body)
        tamper(url, "UPDATE ledger_events SET body = ?, hash = ?, mac = ?, actor = 'somebody' WHERE sequence = 3",
               body, hash_, events.mac_of(KEY, hash_))  # fmt: skip
        with pytest.raises(ChainBroken):
            Ledger(url, key=self.NEW).verify()

    def test_an_event_that_claims_a_new_key_must_carry_it(self, url: str) -> None:
        ledger = Ledger(url, key=KEY)
        three_events(ledger)
        ledger.rekey(self.NEW, actor="a thief", reason="")
        with pytest.raises(ChainBroken, match=r"event 4 .*HMAC"):
            Ledger(url, key=KEY).verify()

    def test_a_site_finishes_what_was_killed_between_event_and_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = Workspace(tmp_path)
        open_ledger(site).append("check", actor="radia")
        with monkeypatch.context() as killed:
            killed.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                rekey(site, person="Mme Roy", reason="yearly")
        first = rekey(site, person="Mme Roy", reason="yearly")
        assert (first.sequence, open_ledger(site).append("check", actor="radia").sequence) == (2, 3)
        assert open_ledger(site).verify().authenticated
        assert rekey(site, person="Mme Roy", reason="yearly").sequence == 4

    def test_a_secret_of_the_environment_is_not_renewed_without_the_next_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RADIA_LEDGER_KEY", KEY.hex())
        site = Workspace(tmp_path)
        open_ledger(site).append("check", actor="radia")
        with pytest.raises(KeyFileError, match="name a file"):
            rekey(site, person="Mme Roy", reason="yearly")
        (tmp_path / "next").touch(mode=0o600)
        (tmp_path / "next").write_text(self.NEW.hex())
        assert rekey(site, person="Mme Roy", reason="yearly", new_key=tmp_path / "next").sequence == 2
        monkeypatch.setenv("RADIA_LEDGER_KEY", self.NEW.hex())
        assert open_ledger(site).verify().authenticated


def stored(url: str, sequence: int) -> tuple[str, str]:
    """Body and hash of an event as the database holds them."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        return database.execute("SELECT body, hash FROM ledger_events WHERE sequence = ?", (sequence,)).fetchone()


class TestOpening:
    def test_refuses_a_ledger_of_a_newer_version(self, ledger: Ledger, url: str) -> None:
        tamper(url, "INSERT INTO ledger_format VALUES (3)")
        with pytest.raises(LedgerError, match="version 3, this RADIA knows 2"):
            Ledger(url)

    def test_takes_one_of_the_first_version_as_it_is_and_marks_it_when_it_writes(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (store, events):
            monkeypatch.setattr(module, "FORMAT", 1)
        named = {"approver": "Dr Côté"}
        Ledger(url).append("promote", actor="radia", parameters=named)
        monkeypatch.undo()
        assert Ledger(url, read_only=True).events(term="Dr Côté") == []  # the first version did not index people
        assert Ledger(url, read_only=True).verify().events == 1
        Ledger(url).append("promote", actor="radia", parameters=named)
        assert [event.sequence for event in Ledger(url).events(term="Dr Côté")] == [2]
        assert Ledger(url).verify().events == 2
        monkeypatch.setattr(store, "FORMAT", 1)
        with pytest.raises(LedgerError, match="version 2, this RADIA knows 1"):
            Ledger(url)

    def test_for_reading_writes_nothing(self, ledger: Ledger, url: str) -> None:
        three_events(ledger)
        reader = Ledger(url, read_only=True)
        with pytest.raises(LedgerError, match="readonly"):
            reader.append("read", actor="auditor")
        assert reader.verify().events == 3

    def test_for_reading_creates_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match="there is no ledger"):
            Ledger(f"sqlite:///{tmp_path / 'none.db'}", read_only=True)
        assert list(tmp_path.iterdir()) == []

    def test_says_what_is_wrong_with_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "ledger.db").write_bytes(b"not a database at all" * 100)
        with pytest.raises(LedgerError, match="file is not a database"):
            Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


class TestArtefacts:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Workspace:
        site = Workspace(tmp_path)
        for name in ("one.parquet", "two.parquet"):
            (tmp_path / name).write_text(name)
        ledger = open_ledger(site)
        ledger.append("images", actor="radia", files=file_digests(site, [tmp_path / "one.parquet"]))
        ledger.append("labels", actor="radia", files=file_digests(site, [tmp_path / "two.parquet"]))
        return site

    def test_are_counted_when_whole(self, site: Workspace) -> None:
        assert verify_artefacts(site, open_ledger(site)) == 2

    def test_name_the_file_that_was_changed_and_the_event_that_recorded_it(self, site: Workspace) -> None:
        (site.root / "two.parquet").write_text("two.parqueT")
        with pytest.raises(ChainBroken, match=r"two.parquet was changed after event 2 \(labels\) recorded it"):
            verify_artefacts(site, open_ledger(site))

    def test_name_the_file_that_is_missing(self, site: Workspace) -> None:
        (site.root / "one.parquet").unlink()
        with pytest.raises(ChainBroken, match=r"one.parquet is missing: event 1 \(images\)"):
            verify_artefacts(site, open_ledger(site))

    def test_follow_the_newest_event_that_names_a_file(self, site: Workspace) -> None:
        (site.root / "one.parquet").write_text("again")
        open_ledger(site).append("images", actor="radia", files=file_digests(site, [site.root / "one.parquet"]))
        assert verify_artefacts(site, open_ledger(site)) == 2

    def test_that_were_erased_on_purpose_must_stay_away(self, site: Workspace) -> None:
        (site.root / "one.parquet").unlink()
        open_ledger(site).append("erase", actor="radia", files=file_digests(site, [site.root / "one.parquet"]))
        assert verify_artefacts(site, open_ledger(site)) == 1
        (site.root / "one.parquet").write_text("back")
        with pytest.raises(ChainBroken, match="is there again"):
            verify_artefacts(site, open_ledger(site))
