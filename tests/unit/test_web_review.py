"""Blind reading in the web app: what is hidden until the lock, who gets which film, and what becomes of an answer."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from radia import steps
from radia.errors import LabelError, NoModel
from radia.findings import FINDINGS
from radia.ledger import Action, open_ledger
from radia.read_log import status
from radia.settings import Settings
from radia.steps.reads import read_log
from radia.steps.run import Run
from radia.web import blind, create_app
from radia.web.desk import LEASE_SECONDS, Desk, Offer
from radia.web.serving import ModelInUse
from radia.workspace import Workspace
from tests.reading_room import question, settings, site_to_read

PEOPLE = {"ann": "reader", "bob": "reader", "cleo": "reader", "chief": "lead", "second": "lead", "audrey": "auditor"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return site_to_read(tmp_path_factory.mktemp("filled"), studies=4, repeats=1, side=64)


@pytest.fixture
def site(filled: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(filled.root, tmp_path / "site")
    return Workspace(tmp_path / "site")


@pytest.fixture
def app(site: Workspace) -> Flask:
    made = create_app(site, settings=settings())
    for name, role in PEOPLE.items():
        made.extensions["radia"].accounts.add(name, [role], None)
    return made


@dataclass
class Reader:
    """A person before the pages, who keeps every answer of the server."""

    app: Flask
    name: str
    seen: list[TestResponse] = field(default_factory=list)
    token: str = ""

    def __post_init__(self) -> None:
        secret = self.app.extensions["radia"].accounts.make_token(self.name)
        self.headers = {"Authorization": f"Bearer {secret}"}
        self.client = self.app.test_client()

    def get(self, path: str) -> TestResponse:
        self.seen.append(self.client.get(path, headers=self.headers))
        return self.seen[-1]

    def post(self, path: str, **options: object) -> TestResponse:
        self.seen.append(self.client.post(path, headers=self.headers, **options))  # type: ignore[arg-type]
        return self.seen[-1]

    def next(self, kind: str = "read") -> str:
        """The token of the film that this person is given; empty where nothing waits."""
        answer = self.post("/review/next", data={"kind": kind})
        assert answer.status_code == 303
        self.token = answer.headers["Location"].removeprefix("/review/film/").removeprefix("/review")
        return self.token

    def lock(self, seconds: float = 0, **answers: str) -> TestResponse:
        """Locks the film before this person; every finding that is asked gets the answer `all`, if there is one."""
        said = answers.pop("all", "")
        page = self.get(f"/review/film/{self.token}").get_data(as_text=True)
        given = dict.fromkeys(asked_on(page), said) if said else {}
        given |= {name.replace("_", " "): value for name, value in answers.items()}
        data = {f"answer {finding}": value for finding, value in given.items()}
        return self.post(f"/review/film/{self.token}/lock", data={**data, "seconds": str(seconds)})

    def read_all(self, said: Callable[[str], str], kind: str = "read") -> int:
        """Reads whatever waits; said: the answer by study. Counts films."""
        count = 0
        while self.next(kind):
            assert self.lock(all=said(self.study())).status_code == 303
            count += 1
        return count

    def study(self) -> str:
        """The study behind the token, which only this test knows."""
        item = Desk(self.app.extensions["radia"].site.web / "review.db").item(self.token, self.name)
        assert item is not None
        return item.study


def asked_on(page: str) -> list[str]:
    """The findings that a page asks, in its order."""
    return re.findall(r'data-finding="([^"]+)" data-name="[^"]+" data-asked', page)


def events(site: Workspace) -> list[dict[str, object]]:
    return [dict(event.parameters) for event in open_ledger(site).events(action=Action.READ)]


SECRET = {
    "study, patient or image": re.compile(rb"\b(S|P|I-S)\d\d\b"),
    "what a model expects": re.compile(rb"0\.73|0\.27|\b73\s?%|\b27\s?%"),
    "queue or its probability": re.compile(rb"evaluation|cleaning|repeat|0\.4321", re.IGNORECASE),
    "map or file": re.compile(rb"data-map|heat|\.dcm|HND-"),
    "another reader": re.compile(rb"\bbob\b|\bchief\b"),
    "a decision": re.compile(rb"suspect|given|score", re.IGNORECASE),
}


class TestBlindness:
    def test_nothing_that_is_answered_before_the_lock_says_what_others_say(self, site: Workspace, app: Flask) -> None:
        bob, ann = Reader(app, "bob"), Reader(app, "ann")
        bob.next()
        assert bob.lock(all="1", Fracture="0").status_code == 303
        ann.next()
        for path in ("", "/pixels/0", "/pixels/9", "/prior/0", "/model", "/elsewhere"):
            ann.get(f"/review/film/{ann.token}{path}")
        ann.get("/review"), ann.get("/review/agreement"), ann.get(f"/language/fr?next=/review/film/{ann.token}")
        ann.get(f"/review/film/{bob.token}"), ann.get(f"/review/film/{bob.token}/model")
        ann.post(f"/review/film/{ann.token}/draft", json={"answers": {"Edema": "U"}, "seconds": 1})
        ann.post(f"/review/film/{ann.token}/change", data={"answer Edema": "1"})
        assert ann.lock().status_code == 422
        assert len(ann.seen) == 16
        for answer in ann.seen:
            whole = str(answer.headers).encode() + (b"" if "octet-stream" in answer.mimetype else answer.data)
            for what, marks in SECRET.items():
                assert not marks.search(whole), (what, answer.request.path, marks.search(whole))
        assert ann.lock(all="0").status_code == 303
        ann.next()
        assert ann.lock(all="0").status_code == 303
        after = ann.get(f"/review/film/{ann.token}").data + ann.get(f"/review/film/{ann.token}/model").data
        assert SECRET["study, patient or image"].search(after)
        assert b"R\xc3\xa9ponse verrouill\xc3\xa9e" in after

    def test_a_film_is_its_pixels_and_nothing_else(self, site: Workspace, app: Flask) -> None:
        ann = Reader(app, "ann")
        ann.next()
        answer = ann.get(f"/review/film/{ann.token}/pixels/0")
        assert len(answer.data) == 64 * 64 * 2
        named = {name for name, _ in answer.headers if name.startswith("X-Film")}
        assert named == {"X-Film-Rows", "X-Film-Columns", "X-Film-Bits", "X-Film-Low", "X-Film-High"}

    @pytest.mark.parametrize("path", ["model", "change"])
    def test_what_is_shown_after_the_lock_is_refused_before(self, site: Workspace, app: Flask, path: str) -> None:
        ann = Reader(app, "ann")
        ann.next()
        address = f"/review/film/{ann.token}/{path}"
        answer = ann.get(address) if path == "model" else ann.post(address, data={"answer Edema": "1"})
        assert answer.status_code in (409, 422)
        assert read_log(site) is None

    def test_the_second_reader_is_asked_what_the_first_answered_and_not_told_how(self, app: Flask) -> None:
        bob, ann = Reader(app, "bob"), Reader(app, "ann")
        bob.next()
        bob.lock(all="1", Fracture="0")
        ann.next()
        assert ann.study() == bob.study()
        page = ann.get(f"/review/film/{ann.token}").get_data(as_text=True)
        assert asked_on(page) == [question(ann.study()), "Fracture"]
        assert " checked" not in page

    def test_the_finding_in_question_comes_first_and_all_others_can_be_answered(self, app: Flask) -> None:
        ann = Reader(app, "ann")
        ann.next()
        page = ann.get(f"/review/film/{ann.token}").get_data(as_text=True)
        findings = re.findall(r'data-finding="([^"]+)"', page)
        assert findings[0] == question(ann.study())
        assert sorted(findings) == sorted(FINDINGS)

    def test_the_film_before_of_the_same_patient_lies_beside_with_its_distance_alone(self, app: Flask) -> None:
        ann, priors = Reader(app, "ann"), {}
        while ann.next():
            page = ann.get(f"/review/film/{ann.token}").get_data(as_text=True)
            priors[ann.study()] = "412 days earlier" in page
            status = ann.get(f"/review/film/{ann.token}/prior/0").status_code
            assert status == (200 if priors[ann.study()] else 422)
            ann.lock(all="0")
        assert priors == {f"S{number:02d}": number % 2 == 0 for number in range(1, 5)}

    def test_a_film_that_is_read_again_shows_nothing_before_the_second_look(self, app: Flask) -> None:
        ann, shown = Reader(app, "ann"), []
        while ann.next():
            ann.lock(all="0")
            shown.append((ann.study(), ann.get(f"/review/film/{ann.token}/model").status_code))
        assert sorted(status for _, status in shown) == [200] * 4 + [409]
        (again,) = {study for study, status in shown if status == 409}
        assert shown[-1] == (again, 200)
        assert len(shown) == 5


class TestWhoGetsWhat:
    def test_two_read_and_a_third_decides_what_they_disagree_on(self, site: Workspace, app: Flask) -> None:
        ann, bob, cleo = Reader(app, "ann"), Reader(app, "bob"), Reader(app, "cleo")
        assert ann.read_all(lambda study: "1" if study < "S03" else "0") == 5
        assert bob.read_all(lambda study: "0") == 5
        assert cleo.next() == ""
        assert ann.next("decide") == ""
        cleo.next("decide")
        page = cleo.get(f"/review/film/{cleo.token}").get_data(as_text=True)
        assert asked_on(page) == re.findall(r'data-finding="([^"]+)"', page) == [question(cleo.study())]
        assert not re.search(r"\bann\b|\bbob\b| checked", page.split("<main", 1)[1])
        assert cleo.lock(all="1").status_code == 303
        decided = pd.read_parquet(site.reads / "reads.parquet").set_index("study")
        assert decided.at[cleo.study(), question(cleo.study())] == 1
        assert cleo.read_all(lambda study: "0", "decide") == 1
        assert steps.reads_status(Run(site, settings(), "lead"))["waiting"] == 0

    def test_a_second_adjudicator_is_refused(self, site: Workspace, app: Flask) -> None:
        for name, said in (("ann", "1"), ("bob", "0")):
            Reader(app, name).read_all(lambda _study, said=said: said)
        chief, second = Reader(app, "chief"), Reader(app, "second")
        chief.next("decide")
        second.next("decide")
        assert chief.study() != second.study()  # a film lies before one adjudicator at a time
        Desk(site.web / "review.db").close(chief.token, "gone")
        other = Reader(app, "cleo")
        desk = Desk(site.web / "review.db")
        for person in (chief, other):  # as after a lease that ran out
            item = desk.take(person.name, [Offer(chief.study(), "adjudicator", places=9)])
            assert item is not None
            person.token = item.token
        assert chief.lock(all="1").status_code == 303
        answer = other.post(f"/review/film/{other.token}/lock", data={f"answer {question(chief.study())}": "0"})
        assert answer.status_code == 409
        assert "Somebody else has decided" in answer.get_data(as_text=True)
        log = read_log(site)
        assert log is not None
        assert log[log["role"] == "adjudicator"]["reader"].tolist() == ["chief"]

    def test_a_film_before_two_people_is_given_to_no_third(self, app: Flask) -> None:
        people = [Reader(app, name) for name in ("ann", "bob", "cleo", "chief")]
        for person in people:
            person.next()
        assert people[0].study() == people[1].study() != people[2].study() == people[3].study()

    def test_a_film_is_not_given_whose_patient_withdrew(self, site: Workspace, app: Flask) -> None:
        ann = Reader(app, "ann")
        ann.next()
        first = ann.study()
        next(site.clean.glob(f"*/{first}.dcm")).unlink()
        bob = Reader(app, "bob")
        bob.next()
        assert bob.study() != first

    def test_everybody_reads_in_the_same_order_which_is_not_that_of_the_suspects(self, site: Workspace) -> None:
        names = [f"S{number:02d}" for number in range(1, 41)]
        queue = pd.DataFrame({"id": names, "queue": "cleaning", "draw": 1})
        now = blind.Board(site, Settings(), queue, None, status(queue, None))
        orders = [[offer.study for offer in blind.offers(now, name, "read", {})] for name in ("ann", "bob")]
        assert orders[0] == orders[1] != names
        assert sorted(orders[0]) == names

    def test_nobody_opens_the_film_of_another(self, app: Flask) -> None:
        ann, bob = Reader(app, "ann"), Reader(app, "bob")
        ann.next()
        for path in ("", "/pixels/0", "/prior/0", "/model"):
            assert bob.get(f"/review/film/{ann.token}{path}").status_code == 404
        for path in ("/draft", "/lock", "/change"):
            assert bob.post(f"/review/film/{ann.token}{path}", json={"answers": {}}).status_code == 404

    def test_a_site_without_a_queue_says_what_to_do(self, tmp_path: Path) -> None:
        app = create_app(Workspace(tmp_path))
        app.extensions["radia"].accounts.add("ann", ["reader"], None)
        page = Reader(app, "ann").get("/review")
        assert page.status_code == 200
        assert "radia reads queue" in page.get_data(as_text=True)


class TestTheAnswer:
    def test_becomes_what_an_imported_sheet_becomes(self, site: Workspace, app: Flask, tmp_path: Path) -> None:
        other = Workspace(tmp_path / "other")
        shutil.copytree(site.root, other.root)
        values: dict[str, dict[str, dict[str, str]]] = {"ann": {}, "bob": {}}
        for name in values:
            person = Reader(app, name)
            for _ in range(3):
                person.next()
                said = {question(person.study()): "1" if name == "ann" else "U", "Fracture": "0"}
                assert (
                    person.lock(**{finding.replace(" ", "_"): key for finding, key in said.items()}).status_code == 303
                )
                values[name][person.study()] = said
        for name, studies in values.items():
            sheet = pd.DataFrame.from_dict(studies, orient="index").replace({"1": 1, "0": 0, "U": -1})
            sheet.rename_axis("study").to_csv(tmp_path / "sheet.csv")
            steps.import_reads(Run(other, settings(), name), tmp_path / "sheet.csv", reader=name)
        key = ["id", "finding", "reader"]
        for path in ("log", "reads", "gold"):
            mine, theirs = (pd.read_parquet(place.reads / f"{path}.parquet") for place in (site, other))
            by = key if path == "log" else [mine.columns[0]]
            columns = [name for name in mine if name != "source"]
            pd.testing.assert_frame_equal(
                mine.sort_values(by, ignore_index=True)[columns], theirs.sort_values(by, ignore_index=True)[columns]
            )

    def test_is_told_to_the_ledger_with_the_time_it_took(self, site: Workspace, app: Flask) -> None:
        ann = Reader(app, "ann")
        ann.next()
        ann.lock(all="N", seconds=0.01)
        (event,) = events(site)
        assert event["reader"] == "ann"
        assert event["role"] == "reader"
        assert event["source"] == "web"
        assert event["not_assessed"] == [question(ann.study())]
        assert event["reads"] == 0
        assert 0 <= event["seconds"] <= 1  # type: ignore[operator]

    def test_not_assessed_leaves_the_cell_blank_and_the_film_to_others(self, site: Workspace, app: Flask) -> None:
        ann, bob = Reader(app, "ann"), Reader(app, "bob")
        ann.next()
        first = ann.study()
        ann.lock(all="N")
        assert read_log(site) is None
        ann.next()
        assert ann.study() != first
        bob.next()
        assert bob.study() == first

    def test_is_refused_while_a_question_is_open(self, site: Workspace, app: Flask) -> None:
        ann = Reader(app, "ann")
        ann.next()
        answer = ann.lock(Fracture="1")
        assert answer.status_code == 422
        assert "An answer is missing" in answer.get_data(as_text=True)
        assert read_log(site) is None

    def test_lacks_nothing_because_another_reader_answered_more_meanwhile(self, site: Workspace, app: Flask) -> None:
        ann, bob = Reader(app, "ann"), Reader(app, "bob")
        ann.next()
        bob.next()
        bob.lock(all="1", Fracture="0")
        data = {f"answer {question(ann.study())}": "0"}
        assert ann.post(f"/review/film/{ann.token}/lock", data=data).status_code == 303

    @pytest.mark.parametrize("answers", [{"Edema": "2"}, {"Gout": "1"}, {"Edema": 1}, ["Edema"], "Edema"])
    def test_is_a_key_to_a_finding_and_nothing_else(self, app: Flask, answers: object) -> None:
        ann = Reader(app, "ann")
        ann.next()
        reply = ann.post(f"/review/film/{ann.token}/draft", json={"answers": answers})
        assert reply.status_code in (400, 422)

    def test_stays_as_it_was_locked_when_another_window_locks_it_again(self, site: Workspace, app: Flask) -> None:
        ann = Reader(app, "ann")
        ann.next()
        ann.lock(all="1")
        before = read_log(site)
        again = ann.post(f"/review/film/{ann.token}/lock", data={f"answer {question(ann.study())}": "0"})
        assert again.status_code == 303
        assert "locked before" in ann.get(f"/review/film/{ann.token}").get_data(as_text=True)
        pd.testing.assert_frame_equal(read_log(site), before)
        reply = ann.post(f"/review/film/{ann.token}/draft", json={"answers": {"Edema": "1"}, "seconds": 1})
        assert reply.status_code == 409
        assert len(events(site)) == 1

    def test_of_two_readers_who_lock_the_same_film_at_once_both_are_kept(self, site: Workspace, app: Flask) -> None:
        people = [Reader(app, "ann"), Reader(app, "bob")]
        for person in people:
            person.next()
        together = threading.Barrier(2)
        found: list[int] = []

        def lock(person: Reader, said: str) -> None:
            together.wait()
            found.append(person.lock(all=said).status_code)

        threads = [threading.Thread(target=lock, args=pair) for pair in zip(people, "10", strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [303, 303]
        log = read_log(site)
        assert log is not None
        assert sorted(zip(log["reader"], log["value"], strict=True)) == [("ann", 1.0), ("bob", 0.0)]
        assert steps.verify(Run(site, settings(), "lead")).events == 2

    def test_that_a_killed_server_left_in_the_log_is_locked_when_the_reader_comes_back(
        self, site: Workspace, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann = Reader(app, "ann")
        ann.next()
        token, study = ann.token, ann.study()

        def killed(*_arguments: object) -> bool:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Desk, "close", killed)
            with pytest.raises(KeyboardInterrupt):
                ann.lock(all="1")
        assert len(events(site)) == 1
        ann.next()
        assert ann.study() != study
        item = Desk(site.web / "review.db").item(token, "ann")
        assert item is not None
        assert item.state == "locked"

    def test_changed_later_is_a_row_and_an_event_of_its_own(self, site: Workspace, app: Flask) -> None:
        ann = Reader(app, "ann")
        while ann.next():
            ann.lock(all="1")
            if ann.get(f"/review/film/{ann.token}/model").status_code == 200:
                break
        asked = question(ann.study())
        before = read_log(site)
        for said in ("0", "0"):
            assert ann.post(f"/review/film/{ann.token}/change", data={f"answer {asked}": said}).status_code == 303
        log = read_log(site)
        assert log is not None
        assert before is not None
        pd.testing.assert_frame_equal(log.iloc[: len(before)], before)
        (row,) = log.iloc[len(before) :].to_dict("records")
        assert (row["role"], row["value"], row["model_visible"], row["reader"]) == ("revised", 0.0, True, "ann")
        told = [event for event in events(site) if event["role"] == "revised"]
        assert [event["reads"] for event in told] == [1]
        page = ann.get(f"/review/film/{ann.token}").get_data(as_text=True)
        assert re.search(r'value="0" selected', page)


class TestTheDesk:
    @pytest.fixture
    def now(self) -> list[float]:
        return [1000.0]

    @pytest.fixture
    def desk(self, tmp_path: Path, now: list[float]) -> Desk:
        return Desk(tmp_path / "review.db", clock=lambda: now[0])

    def test_a_page_cannot_count_more_seconds_than_have_passed(self, desk: Desk, now: list[float]) -> None:
        item = desk.take("ann", [Offer("S01", "reader")])
        assert item is not None
        desk.show(item.token)
        now[0] += 10
        desk.keep(item.token, {}, 8)
        assert desk.item(item.token, "ann").seconds == 8  # type: ignore[union-attr]
        desk.keep(item.token, {}, 3600)
        assert desk.item(item.token, "ann").seconds == 10  # type: ignore[union-attr]
        desk.keep(item.token, {}, -5)
        assert desk.item(item.token, "ann").seconds == 10  # type: ignore[union-attr]

    def test_time_goes_on_where_it_was_left_and_a_pause_does_not_count(self, desk: Desk, now: list[float]) -> None:
        item = desk.take("ann", [Offer("S01", "reader")])
        assert item is not None
        for pause in (0, 86_400):
            now[0] += pause
            desk.show(item.token)
            now[0] += 4
            desk.keep(item.token, {}, 4)
        assert desk.item(item.token, "ann").seconds == 8  # type: ignore[union-attr]

    def test_a_lease_ends_when_nothing_is_heard_and_the_draft_stays(self, desk: Desk, now: list[float]) -> None:
        offers = [Offer("S01", "adjudicator")]
        item = desk.take("ann", offers)
        assert item is not None
        desk.keep(item.token, {"Edema": "1"}, 0)
        assert desk.take("bob", offers) is None
        now[0] += LEASE_SECONDS + 1
        assert desk.take("bob", offers) is not None
        back = desk.item(item.token, "ann")
        assert back is not None
        assert back.answers == {"Edema": "1"}

    def test_many_who_ask_at_once_never_share_a_place(self, desk: Desk) -> None:
        offers = [Offer(f"S{number:02d}", "reader", places=2) for number in range(4)]
        found: list[str | None] = []
        start = threading.Barrier(8)

        def ask(name: str) -> None:
            start.wait()
            item = desk.take(name, offers)
            found.append(item and item.study)

        threads = [threading.Thread(target=ask, args=(f"reader {number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(filter(None, found)) == sorted([offer.study for offer in offers] * 2)


class TestResume:
    def test_signing_out_in_the_middle_of_a_read_keeps_the_draft(self, site: Workspace) -> None:
        app = create_app(site, settings=settings())
        app.extensions["radia"].accounts.add("ann", ["reader"], "une phrase bien longue")
        client = app.test_client()

        def field_of(page: str) -> str:
            found = re.search(r'name="csrf_token" value="([^"]+)"', page)
            assert found is not None
            return found[1]

        def sign_in() -> str:
            token = field_of(client.get("/sign-in").get_data(as_text=True))
            said = {"csrf_token": token, "name": "ann", "password": "une phrase bien longue"}
            client.post("/sign-in", data=said)
            return field_of(client.get("/review").get_data(as_text=True))

        token = sign_in()
        there = client.post("/review/next", data={"csrf_token": token, "kind": "read"}).headers["Location"]
        kept = client.post(
            f"{there}/draft", json={"answers": {"Edema": "U"}, "seconds": 2}, headers={"X-CSRFToken": token}
        )
        assert kept.status_code == 200
        client.post("/sign-out", data={"csrf_token": token})
        late = client.post(f"{there}/draft", json={"answers": {"Edema": "1"}}, headers={"X-CSRFToken": token})
        assert late.status_code == 401
        token = sign_in()
        assert client.post("/review/next", data={"csrf_token": token}).headers["Location"] == there
        page = client.get(there).get_data(as_text=True)
        assert re.findall(r'name="answer ([^"]+)" value="(.)"[^>]* checked', page) == [("Edema", "U")]
        assert read_log(site) is None

    def test_a_draft_that_others_have_settled_meanwhile_makes_room_for_the_next_film(self, app: Flask) -> None:
        slow = Reader(app, "cleo")
        slow.next()
        study = slow.study()
        desk: Desk = Desk(app.extensions["radia"].site.web / "review.db")
        with desk._open() as database:
            database.execute("UPDATE items SET seen = 0")
        for name in ("ann", "bob"):
            Reader(app, name).read_all(lambda _study: "0")
        assert slow.next() == ""
        assert desk.item(slow.token, "cleo") is None
        assert study in desk.locked("ann")["reader"]


class TestAgreementPage:
    def test_shows_kappas_with_intervals_by_finding_by_pair_and_of_each_with_himself(
        self, site: Workspace, app: Flask
    ) -> None:
        from radia.noise import reader_agreement

        for name, present in (("ann", "S01 S02 S03"), ("bob", "S01 S03")):
            Reader(app, name).read_all(lambda study, present=present: "1" if study in present else "0")
        log = read_log(site)
        assert log is not None
        found = reader_agreement(log)
        page = Reader(app, "chief").get("/review/agreement").get_data(as_text=True)
        pair, own = found["pairs"][0], found["again"]
        assert "ann · bob" in page
        assert f"{pair['kappa']:.2f}" in page
        assert f"{pair['low']:.2f}–{pair['high']:.2f}" in page
        assert len(own) == 2
        for row in found["findings"]:
            if row["fleiss"] is not None:
                assert f"{row['fleiss']:.2f}" in page

    @pytest.mark.parametrize(("name", "status"), [("chief", 200), ("audrey", 200), ("ann", 403)])
    def test_is_the_leads_and_the_auditors(self, app: Flask, name: str, status: int) -> None:
        assert Reader(app, name).get("/review/agreement").status_code == status


class TestLabelStudio:
    def test_what_goes_out_comes_back_as_reads(self, site: Workspace, app: Flask) -> None:
        import io
        import json
        import zipfile

        chief = Reader(app, "chief")
        sent = chief.post("/review/label-studio/export", data={"reader": "ann", "role": "reader"})
        assert sent.mimetype == "application/zip"
        packed = zipfile.ZipFile(io.BytesIO(sent.data))
        tasks = json.loads(packed.read("radia-reads/tasks.json"))
        assert {task["data"]["study"] for task in tasks} == {f"S{number:02d}" for number in range(1, 5)}
        for task in tasks:
            path = task["data"]["image"].removeprefix("/data/local-files/?d=")
            assert packed.read(path).startswith(b"\x89PNG")
            choice = {"from_name": "Edema", "to_name": "film", "type": "choices", "value": {"choices": ["present"]}}
            task["annotations"] = [{"completed_by": 3, "result": [choice]}]
        back = {"export": (io.BytesIO(json.dumps(tasks).encode()), "export.json"), "reader": "ann", "role": "reader"}
        assert chief.post("/review/label-studio/import", data=back).status_code == 303
        log = read_log(site)
        assert log is not None
        assert set(log["reader"]) == {"ann"}
        assert set(log["source"]) == {"label studio"}
        assert len(log) == 4
        assert Reader(app, "ann").next() != ""  # the film that is to be read again

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'[{"data": 1}]', b"\xff\xfe"])
    def test_what_is_no_export_is_refused_on_the_page(self, site: Workspace, app: Flask, content: bytes) -> None:
        import io

        data = {"export": (io.BytesIO(content), "export.json"), "reader": "ann", "role": "reader"}
        answer = Reader(app, "chief").post("/review/label-studio/import", data=data)
        assert answer.status_code == 422
        assert read_log(site) is None


def test_a_repeat_comes_when_twenty_others_were_read_since_or_nothing_else_waits(site: Workspace) -> None:
    names = [f"S{number:02d}" for number in range(1, 41)]
    queue = pd.DataFrame({"id": [*names, "S01"], "queue": ["evaluation"] * 40 + ["repeat"], "draw": 1})
    log = pd.DataFrame(
        {"id": names[:21], "finding": "Edema", "reader": "ann", "value": 1.0, "role": "reader", "model_visible": False}
    )
    now = blind.Board(site, Settings(), queue, log, status(queue, log))
    for since, first in ((19, False), (20, True)):
        locked = {"reader": names[: since + 1]}
        assert (blind.offers(now, "ann", "read", locked)[0] == Offer("S01", "again")) is first
    with pytest.raises(LabelError, match="14 findings"):
        blind.checked_answers({"Edema": "yes"})


@pytest.fixture(autouse=True)
def _no_model_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking MLflow for one takes seconds each time."""

    def none(_self: ModelInUse) -> None:
        raise NoModel("no model is in use yet")

    monkeypatch.setattr(ModelInUse, "now", none)
