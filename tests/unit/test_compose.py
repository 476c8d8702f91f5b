"""docker-compose.yml: valid, of the catalogue's services, closed by default, with no more secrets than there are."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from radia.operations.secret_files import write_secrets
from radia.services import SERVICES
from radia.settings import MEASURED

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
RADIA = {name: one for name, one in COMPOSE["services"].items() if str(one.get("image")).startswith("radia:")}
ONCE = {"migrate": ["radia", "migrate"], "accounts": ["radia", "accounts"], "backup": ["radia", "doctor"]}
LIBRARIES = {"PGPASSFILE", "MLFLOW_TRACKING_USERNAME"}
"""Variables that libpq and MLflow read by themselves."""


@lru_cache
def sources() -> str:
    return "\n".join(file.read_text() for file in (ROOT / "radia").rglob("*.py"))


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.gpu.yml"])
def test_the_file_is_valid_by_the_compose_specification(name: str) -> None:
    schema = json.loads(files("check_jsonschema.builtin_schemas").joinpath("vendor", "compose-spec.json").read_text())
    jsonschema.validate(yaml.safe_load((ROOT / name).read_text()), schema)


def test_every_service_of_the_catalogue_runs_by_its_name_and_no_other_does() -> None:
    assert set(RADIA) - set(ONCE) == {service.name for service in SERVICES}
    for service in SERVICES:
        one = RADIA[service.name]
        listens = ["--host", "0.0.0.0"] if service.port else []
        assert one["command"] == ["radia", "serve", service.name, *listens]
        assert one["healthcheck"]["test"] == ["CMD", "radia", "serve", service.name, "--check"]
        assert one["restart"] == "unless-stopped"
    for name, command in ONCE.items():
        assert (RADIA[name]["command"][:2], RADIA[name]["restart"]) == (command, "no")


def test_no_service_starts_before_the_databases_are_migrated() -> None:
    def after(name: str) -> set[str]:
        direct = set(COMPOSE["services"][name].get("depends_on", ()))
        return direct.union(*map(after, direct))

    for name in set(RADIA) - {"migrate", "backup"}:
        assert "migrate" in after(name), name
    assert RADIA["mlflow"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_addresses_are_those_where_services_listen() -> None:
    known = dict(entry.split("=") for entry in RADIA["proxy"]["environment"]["RADIA_ADDRESSES"].split())
    others = {one.name: f"{one.name}:{one.port}" for one in SERVICES if one.port}
    assert known == {name: place for name, place in others.items() if name not in ("receiver", "proxy")}


@pytest.mark.parametrize("name", COMPOSE["services"])
class TestEveryService:
    def test_is_nobody_in_particular_and_writes_to_volumes_alone(self, name: str) -> None:
        one = COMPOSE["services"][name]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", one["user"])
        assert (one["read_only"], one["cap_drop"], one["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
        assert not one.get("privileged")
        for volume in one.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"]

    def test_is_on_the_network_without_a_way_out(self, name: str) -> None:
        assert COMPOSE["networks"]["inside"] == {"internal": True}
        outward = ["edge"] if name in ("proxy", "receiver") else []
        assert COMPOSE["services"][name]["networks"] == ["inside", *outward]

    def test_publishes_nothing_but_the_proxy_and_dicom_on_this_machine(self, name: str) -> None:
        ports = COMPOSE["services"][name].get("ports", [])
        assert bool(ports) == (name in ("proxy", "receiver"))
        for port in ports:
            assert re.match(r"\$\{RADIA_\w+_ADDRESS:-127\.0\.0\.1\}:\d+:\d+$", port)

    def test_has_bounds(self, name: str) -> None:
        assert set(COMPOSE["services"][name]["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}

    def test_fills_no_disk_with_its_log(self, name: str) -> None:
        logging = COMPOSE["services"][name]["logging"]
        assert logging == {"driver": "json-file", "options": {"max-size": "20m", "max-file": "5"}}

    def test_says_whether_it_is_well_or_why_it_need_not(self, name: str) -> None:
        asked = "test" in COMPOSE["services"][name].get("healthcheck", {})
        assert asked == (name not in {*ONCE, "orthanc"})
        if name == "orthanc":
            assert COMPOSE["services"][name]["healthcheck"] == {"disable": True}

    def test_is_of_a_version_that_stays_what_it_is(self, name: str) -> None:
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+(\.\d+)?(-[a-z]+)?", COMPOSE["services"][name]["image"])

    def test_has_the_secrets_that_its_environment_names_and_no_other(self, name: str) -> None:
        one = COMPOSE["services"][name]
        texts = [*one.get("environment", {}).values(), *one.get("command", ())]
        named = {text.removeprefix("/run/secrets/") for text in texts if text.startswith("/run/secrets/")}
        assert named == set(one.get("secrets", ()))


def test_pages_for_prometheus_are_on_the_inner_network_each_on_a_port_of_its_own_and_never_published() -> None:
    pages = {
        name: one["environment"]["RADIA_METRICS"]
        for name, one in RADIA.items()
        if "RADIA_METRICS" in one["environment"]
    }
    assert set(pages) == set(MEASURED)
    ports = {name: re.fullmatch(rf"{name}=0\.0\.0\.0:(\d+)", entry)[1] for name, entry in pages.items()}  # type: ignore[index]
    assert len(set(ports.values()) | {str(service.port) for service in SERVICES}) == len(ports) + len(SERVICES)
    published = {port.rsplit(":", 1)[-1] for one in COMPOSE["services"].values() for port in one.get("ports", ())}
    assert not published & set(ports.values())
    proxied = files("radia.services").joinpath("nginx.conf").read_text()
    assert not [port for port in ports.values() if port in proxied]


def test_secrets_are_those_that_radia_makes(tmp_path: Path) -> None:
    assert set(COMPOSE["secrets"]) == set(write_secrets(tmp_path))
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}


@pytest.mark.parametrize("name", RADIA)
def test_variables_are_ones_that_are_read(name: str) -> None:
    for variable in set(RADIA[name]["environment"]) - LIBRARIES:
        # radia.settings.secret(NAME) reads NAME_FILE
        assert re.search(rf'"{variable}"|"{variable.removesuffix("_FILE")}"', sources()), variable


def test_the_image_holds_no_secret_and_no_address_of_an_index() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"index-url|INDEX|https?://|secrets|\bCOPY \.|\bADD ", text)
    assert re.search(r"^USER radia$", text, re.MULTILINE)
    assert "secrets" in (ROOT / ".dockerignore").read_text().split()


def test_the_image_can_dump_the_database_and_keeps_no_installer_that_only_built_it() -> None:
    """pg_dump refuses a server newer than itself: both come from one Debian release and PostgreSQL's major in it."""
    text = (ROOT / "Dockerfile").read_text()
    base = re.search(r"^FROM python:3\.11\.\d+-slim-([a-z]+)$", text, re.MULTILINE)
    server = re.fullmatch(r"postgres:(\d+)\.\d+-([a-z]+)", COMPOSE["services"]["postgres"]["image"])
    assert base is not None
    assert server is not None
    assert (base[1], server[2]) == ("trixie", "trixie")
    assert int(server[1]) <= {"trixie": 17}[base[1]]
    assert re.search(r"pip install --no-cache-dir uv .*&& pip uninstall --yes uv", text, re.DOTALL)


def test_what_the_image_installs_is_pinned() -> None:
    """`--constraint` binds what it names alone: every requirement of the package, extras too, must be in the lock."""
    import importlib.metadata

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pinned = set(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    names = {canonicalize_name(name) for name in pinned}
    for text in importlib.metadata.requires("radia") or []:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"extra": "postgres"}):
            assert canonicalize_name(wanted.name) in names, text
