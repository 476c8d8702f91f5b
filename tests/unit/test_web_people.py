"""Who is let in: accounts, roles over every address there is, sessions, the trusted proxy, CSRF, headers, limits."""

from __future__ import annotations

import io
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import IntegerConverter, Rule
from werkzeug.test import TestResponse

from radia.errors import AccountError, NoModel
from radia.settings import Settings
from radia.web import create_app
from radia.web.access import ANYBODY, FORM_BYTES, LOOPBACK, VISITOR
from radia.web.accounts import ROLES, Accounts, secret_key
from radia.web.serving import ModelInUse
from radia.workspace import Workspace

PASSWORD = "une phrase bien longue"
OPEN = {"people.sign_in", "people.enter", "people.leave", "people.allowed", "api.health", "start", "language", "static"}
"""What answers somebody who is not signed in: signing in, health, style sheets, the choice of language."""
FAR = {"REMOTE_ADDR": "10.0.0.9"}


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_self: ModelInUse) -> None:
        raise NoModel("no model is in use yet")

    monkeypatch.setattr(ModelInUse, "now", none)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """With an account a role, named after it."""
    site = Workspace(tmp_path_factory.mktemp("site"))
    for role in ROLES:
        Accounts(site.web / "people.db").add(role, [role], PASSWORD)
    return site


@pytest.fixture(scope="module")
def app(site: Workspace) -> Flask:
    return create_app(site)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def configured(site: Workspace, **web: object) -> FlaskClient:
    return create_app(site, settings=Settings.model_validate({"web": web})).test_client()


def csrf_of(client: FlaskClient, path: str = "/sign-in") -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).get_data(as_text=True))
    assert found is not None
    return found[1]


def sign_in(client: FlaskClient, name: str, password: str = PASSWORD, *, address: str = "127.0.0.1") -> TestResponse:
    said = {"csrf_token": csrf_of(client), "name": name, "password": password}
    return client.post("/sign-in", data=said, environ_base={"REMOTE_ADDR": address})


def addresses(app: Flask) -> Iterator[tuple[Rule, str, str]]:
    """Every address that there is, each with every method it knows."""
    with app.test_request_context():
        for rule in app.url_map.iter_rules():
            values = {
                name: 1 if isinstance(rule._converters[name], IntegerConverter) else "x" for name in rule.arguments
            }
            built = rule.build(values)
            assert built is not None
            for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
                yield rule, method, built[1]


class TestEveryAddress:
    def test_says_who_it_is_open_to(self, app: Flask) -> None:
        known = {*ROLES, ANYBODY, LOOPBACK, VISITOR}
        for rule, _, _ in addresses(app):
            roles = getattr(app.view_functions[rule.endpoint], "radia_roles", frozenset())
            assert rule.endpoint == "static" or (roles and roles <= known), rule.endpoint

    def test_is_closed_to_whoever_is_not_signed_in(self, app: Flask) -> None:
        closed = 0
        for rule, method, path in addresses(app):
            if rule.endpoint in OPEN:
                continue
            answer = app.test_client().open(path, method=method, environ_base=FAR)
            sent_on = answer.status_code == 302 and answer.headers["Location"].startswith("/sign-in?next=")
            assert sent_on or answer.status_code == 401, (rule.endpoint, answer.status_code)
            closed += 1
        assert closed >= 20

    @pytest.mark.parametrize("role", ROLES)
    def test_is_closed_to_roles_that_it_does_not_name(self, app: Flask, role: str) -> None:
        token = app.extensions["radia"].accounts.make_token(role)
        refused = 0
        for rule, method, path in addresses(app):
            roles = getattr(app.view_functions[rule.endpoint], "radia_roles", frozenset({ANYBODY}))
            if roles & {role, ANYBODY}:
                continue
            headers = {"Authorization": f"Bearer {token}"}
            answer = app.test_client().open(path, method=method, headers=headers, environ_base=FAR)
            assert answer.status_code == 403, (rule.endpoint, role)
            refused += 1
        assert refused

    def test_is_closed_to_everybody_where_its_view_does_not_say(self, site: Workspace) -> None:
        app = create_app(site)
        app.add_url_rule("/forgotten", "forgotten", lambda: "told")
        for role in ROLES:
            token = app.extensions["radia"].accounts.make_token(role)
            answer = app.test_client().get("/forgotten", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 403

    def test_carries_the_headers_of_a_careful_page_whatever_is_answered(self, app: Flask) -> None:
        seen = set()
        for _, method, path in addresses(app):
            answer = app.test_client().open(path, method=method, environ_base=FAR)
            seen.add(answer.status_code)
            headers = answer.headers
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Referrer-Policy"] == "same-origin"
            assert "Strict-Transport-Security" not in headers
            assert headers["Cache-Control"] in ("no-store", "no-cache")
        assert {200, 302, 401, 404} <= seen


class TestAccounts:
    def test_the_file_holds_no_password_session_or_token(self, tmp_path: Path) -> None:
        accounts = Accounts(tmp_path / "web" / "people.db")
        accounts.add("ann", ["reader"], PASSWORD)
        secrets = [PASSWORD, accounts.open_session("ann"), accounts.make_token("ann")]
        files = list((tmp_path / "web").iterdir())
        content = b"".join(file.read_bytes() for file in files)
        assert not any(secret.encode() in content for secret in secrets)
        assert (
            sqlite3.connect(tmp_path / "web" / "people.db")
            .execute("SELECT password FROM people")
            .fetchone()[0]
            .startswith("scrypt:")
        )
        assert {file.stat().st_mode & 0o077 for file in files} == {0}

    @pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaa", "ann-the-reader", ""])
    def test_a_weak_password_is_refused(self, tmp_path: Path, password: str) -> None:
        with pytest.raises(AccountError):
            Accounts(tmp_path / "people.db").add("ann-the-reader", ["reader"], password)

    @pytest.mark.parametrize(("name", "roles"), [("a b", ["reader"]), ("", ["reader"]), ("ann", []), ("ann", ["king"])])
    def test_names_and_roles_are_what_they_may_be(self, tmp_path: Path, name: str, roles: list[str]) -> None:
        with pytest.raises(AccountError):
            Accounts(tmp_path / "people.db").add(name, roles, PASSWORD)

    def test_an_account_without_a_password_cannot_sign_in(self, tmp_path: Path) -> None:
        accounts = Accounts(tmp_path / "people.db")
        accounts.add("ann", ["reader"], None)
        assert accounts.check("ann", "") is None
        assert accounts.check("nobody", "") is None

    @pytest.mark.parametrize("change", ["set_password", "set_roles", "remove"])
    def test_a_change_ends_sessions_and_tokens(self, tmp_path: Path, change: str) -> None:
        accounts = Accounts(tmp_path / "people.db")
        accounts.add("ann", ["reader"], PASSWORD)
        session, token = accounts.open_session("ann"), accounts.make_token("ann")
        arguments = {"set_password": ["another long phrase"], "set_roles": [["lead"]], "remove": []}[change]
        getattr(accounts, change)("ann", *arguments)
        assert accounts.session(session, idle_seconds=100, total_seconds=100) is None
        assert accounts.by_token(token) is None

    def test_a_session_ends_when_nothing_comes_and_after_its_hours(self, tmp_path: Path) -> None:
        now = [0.0]
        accounts = Accounts(tmp_path / "people.db", clock=lambda: now[0])
        accounts.add("ann", ["reader"], PASSWORD)
        secret = accounts.open_session("ann")

        def lives(at: float) -> bool:
            now[0] = at
            return accounts.session(secret, idle_seconds=100, total_seconds=250) is not None

        assert [lives(at) for at in (90, 180, 249)] == [True, True, True]
        assert not lives(251)
        secret = accounts.open_session("ann")
        assert not lives(now[0] + 101)


class TestSigningIn:
    def test_opens_what_the_role_may_see_and_signing_out_closes_it_for_every_copy(self, client: FlaskClient) -> None:
        assert client.get("/review").status_code == 302
        assert sign_in(client, "reader").status_code == 302
        assert client.get("/review").status_code == 200
        assert client.get("/trace").status_code == 403
        copy = client.get_cookie("radia")
        client.post("/sign-out", data={"csrf_token": csrf_of(client, "/account")})
        assert copy is not None
        client.set_cookie("radia", copy.value)
        assert client.get("/review").status_code == 302

    def test_a_wrong_name_and_a_wrong_password_are_answered_alike(self, client: FlaskClient) -> None:
        pages = []
        for name, password in (("reader", "wrong wrong wrong"), ("nobody", PASSWORD)):
            answer = sign_in(client, name, password, address=f"10.1.0.{len(pages)}")
            assert answer.status_code == 401
            pages.append(re.sub(r'value="[^"]*"', "", answer.get_data(as_text=True)))
        assert pages[0] == pages[1]

    def test_the_cookie_is_kept_from_scripts_other_sites_and_plain_http(self, site: Workspace) -> None:
        plain, safe = configured(site), configured(site, https=True)
        for client, secure in ((plain, False), (safe, True)):
            answer = sign_in(client, "reader", address="10.2.0.1")
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Lax" in cookie
            assert ("Secure" in cookie) is secure
            assert ("Strict-Transport-Security" in answer.headers) is secure
        assert len(secret_key(site.web / "cookies.key")) == 32
        assert (site.web / "cookies.key").stat().st_mode & 0o077 == 0

    def test_a_forged_cookie_signs_nobody_in(self, client: FlaskClient) -> None:
        from flask.sessions import SecureCookieSessionInterface

        other = Flask("other")
        other.secret_key = "guessed"
        serializer = SecureCookieSessionInterface().get_signing_serializer(other)
        assert serializer is not None
        client.set_cookie("radia", serializer.dumps({"secret": "x"}))
        assert client.get("/review").status_code == 302

    @pytest.mark.parametrize(
        "wanted", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:1", ""]
    )
    def test_leads_on_within_this_site_alone(self, client: FlaskClient, wanted: str) -> None:
        said = {"csrf_token": csrf_of(client), "name": "reader", "password": PASSWORD, "next": wanted}
        assert client.post("/sign-in", data=said).headers["Location"] == "/"

    def test_waits_after_wrong_passwords_and_goes_on_elsewhere(self, tmp_path: Path) -> None:
        site = Workspace(tmp_path)
        Accounts(site.web / "people.db").add("ann", ["reader"], PASSWORD)
        client = configured(site, sign_in_attempts=3)
        assert [sign_in(client, "ann", "wrong wrong wrong").status_code for _ in range(4)] == [401, 401, 401, 429]
        late = sign_in(client, "ann")
        assert late.status_code == 429
        assert 0 < int(late.headers["Retry-After"]) <= 15 * 60 + 1
        assert "15 minutes" in late.get_data(as_text=True)
        assert sign_in(client, "ann", address="10.0.0.2").status_code == 302

    def test_another_password_asks_for_the_old_one(self, tmp_path: Path) -> None:
        site = Workspace(tmp_path)
        Accounts(site.web / "people.db").add("ann", ["reader"], PASSWORD)
        client, other = configured(site), configured(site)
        for one in (client, other):
            sign_in(one, "ann")
        token = csrf_of(client, "/account")
        for old, new, status in (("wrong", "another long phrase", 422), (PASSWORD, "short", 422)):
            said = {"csrf_token": token, "old": old, "new": new}
            assert client.post("/account/password", data=said).status_code == status
        said = {"csrf_token": token, "old": PASSWORD, "new": "another long phrase"}
        assert client.post("/account/password", data=said).status_code == 302
        assert client.get("/account").status_code == 200
        assert other.get("/account").status_code == 302
        assert Accounts(site.web / "people.db").check("ann", "another long phrase") is not None

    def test_the_old_one_cannot_be_guessed_through_an_open_session(self, tmp_path: Path) -> None:
        Accounts(tmp_path / "web" / "people.db").add("ann", ["reader"], PASSWORD)
        client = configured(Workspace(tmp_path), sign_in_attempts=3)
        sign_in(client, "ann")
        token = csrf_of(client, "/account")

        def tried(old: str) -> int:
            said = {"csrf_token": token, "old": old, "new": "another long phrase"}
            return client.post("/account/password", data=said).status_code

        assert [tried("a wrong phrase") for _ in range(4)] == [422, 422, 422, 429]
        assert tried(PASSWORD) == 429


LEAD = {"X-Remote-User": "lead"}


class TestTrustedProxy:
    def test_names_the_person_where_it_is_trusted_and_nowhere_else(self, site: Workspace) -> None:
        client = configured(site, trusted_proxies=["10.9.0.0/24"])
        for address, status in (("10.9.0.7", 200), ("10.8.0.7", 302), ("127.0.0.1", 302)):
            answer = client.get("/account", headers=LEAD, environ_base={"REMOTE_ADDR": address})
            assert answer.status_code == status, address

    def test_who_has_no_account_is_not_let_in_and_roles_are_those_of_the_account(self, site: Workspace) -> None:
        client = configured(site, trusted_proxies=["10.9.0.7"])
        there = {"REMOTE_ADDR": "10.9.0.7"}
        assert client.get("/account", headers={"X-Remote-User": "stranger"}, environ_base=there).status_code == 302
        assert client.get("/trace", headers=LEAD, environ_base=there).status_code == 200
        assert client.get("/trace", headers={"X-Remote-User": "reader"}, environ_base=there).status_code == 403

    def test_may_be_named_by_its_host_whose_address_changes(
        self, site: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = configured(site, trusted_proxies=["proxy", "no-such-host"])
        meant = {"proxy": "10.9.0.7"}

        def resolved(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
            if name not in meant:
                raise OSError
            return [(0, 0, 0, "", (meant[name], 0))]

        monkeypatch.setattr("socket.getaddrinfo", resolved)
        moment = [0.0]
        monkeypatch.setattr("radia.web.access.time.monotonic", lambda: moment[0])
        for address in ("10.9.0.7", "10.9.0.8"):
            meant["proxy"] = address
            for asked_from in ("10.9.0.7", "10.9.0.8"):
                there = {"REMOTE_ADDR": asked_from}
                status = client.get("/account", headers=LEAD, environ_base=there).status_code
                assert (status == 200) == (asked_from == address)
            moment[0] += 60

    def test_says_from_where_a_password_is_guessed_so_that_one_stranger_keeps_nobody_else_out(
        self, tmp_path: Path
    ) -> None:
        Accounts(tmp_path / "web" / "people.db").add("ann", ["reader"], PASSWORD)
        client = configured(Workspace(tmp_path), trusted_proxies=["10.9.0.7"], sign_in_attempts=1)

        def tried(name: str, password: str, sender: str) -> int:
            said = {"csrf_token": csrf_of(client), "name": name, "password": password}
            # what the sender itself says stands before what the proxy adds, and is not believed
            headers = {"X-Forwarded-For": f"10.1.1.{len(name)}, {sender}"}
            return client.post(
                "/sign-in", data=said, headers=headers, environ_base={"REMOTE_ADDR": "10.9.0.7"}
            ).status_code

        wrong = [tried(f"name{'x' * k}", "wrong", "10.5.5.5") for k in range(5)]
        assert wrong == [401, 401, 401, 401, 429]
        assert tried("ann", PASSWORD, "10.6.6.6") == 302

    def test_what_it_passes_on_still_carries_the_token_of_its_page(self, site: Workspace) -> None:
        client = configured(site, trusted_proxies=["10.9.0.7"])
        answer = client.post("/review/next", headers=LEAD, environ_base={"REMOTE_ADDR": "10.9.0.7"})
        assert answer.status_code == 400

    def test_somebody_behind_it_is_no_program_of_this_machine(self, site: Workspace) -> None:
        client = configured(site, trusted_proxies=["127.0.0.1"])
        path = next((path for rule, _, path in addresses(client.application) if "metrics" in rule.rule), None)
        if path is None:
            pytest.skip("nothing is open to programs of this machine")
        assert client.get(path).status_code == 200
        assert client.get(path, headers={"X-Forwarded-For": "10.0.0.1"}).status_code in (302, 401)


class TestRequestsThatChangeSomething:
    def test_need_the_token_of_a_page_of_this_session(self, client: FlaskClient) -> None:
        sign_in(client, "reader")
        token = csrf_of(client, "/account")
        assert client.post("/review/next").status_code == 400
        assert client.post("/review/next", data={"csrf_token": "forged"}).status_code == 400
        assert client.post("/review/next", data={"csrf_token": token}).status_code in (303, 422)
        other = client.application.test_client()
        sign_in(other, "reader")
        assert other.post("/review/next", data={"csrf_token": token}).status_code == 400

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "same-origin"}, 302),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "http://localhost"}, 302),
            ({}, 302),
        ],
    )
    def test_come_from_this_site(self, client: FlaskClient, headers: dict[str, str], status: int) -> None:
        sign_in(client, "reader")
        said = {"csrf_token": csrf_of(client, "/account")}
        assert client.post("/sign-out", data=said, headers=headers).status_code == status

    def test_bring_no_more_than_they_may(self, site: Workspace) -> None:
        client = configured(site, upload_mb=2)
        sign_in(client, "lead")
        token = csrf_of(client, "/account")
        large = client.post("/account/password", data={"csrf_token": token, "old": "x" * (FORM_BYTES + 1)})
        assert large.status_code == 413
        file = {"csrf_token": token, "export": (io.BytesIO(b"x" * (3 << 20)), "export.json")}
        assert client.post("/review/label-studio/import", data=file).status_code == 413
        draft = client.post("/review/film/x/draft", json={"answers": {"x": "y" * FORM_BYTES}})
        assert draft.status_code in (400, 413)


class TestTheOpenDemo:
    def test_has_the_demo_and_nothing_else(self, site: Workspace) -> None:
        client = create_app(site, open_demo=True).test_client()
        for path in ("/review", "/review/agreement", "/trace", "/account", "/sign-in"):
            assert client.get(path).status_code == 404
        assert client.get("/demo", headers={"Host": "evil.example"}).status_code == 403
