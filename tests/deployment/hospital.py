"""The main job through the services of docker-compose.yml, as people meet it: PACS, candidate, approval, web app."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydicom
import requests
import urllib3
import yaml

from radia.operations import accounts
from radia.operations.secret_files import write_secrets
from radia.settings import Settings
from radia.synthetic.hospital import write_hospital
from tests.acceptance.conftest import PARAMS
from tests.deployment.containers import USER, Engine

urllib3.disable_warnings()  # the certificate is its own authority until the hospital's takes its place

PROXY, ORTHANC, MLFLOW = "https://localhost:8443", "http://localhost:8042", "http://localhost:5000"
SENT_SITE, ASKED_SITE = "HSH", "CGC"
"""One site's modalities send (C-STORE), the other's PACS is asked (DICOMweb)."""
PASSWORD = "a long enough passphrase 7"


def prepare(home: Path, *, studies: int = 90, finetune: Mapping[str, object] | None = None) -> tuple[Path, Path, Path]:
    """Writes an embedded hospital, settings and secrets: (hospital, params.yaml, secrets)."""
    hospital, secrets, params = home / "hospital", home / "secrets", home / "params.yaml"
    if not hospital.is_dir():
        write_hospital(hospital, studies=studies, seed=3)
    write_secrets(secrets)
    for file in (secrets, *secrets.iterdir()):
        shutil.chown(file, USER, USER)
    values = PARAMS | {
        "finetune": PARAMS["finetune"] | (finetune or {}),
        "web": {"https": True},
        "intake": {
            "receiver": {"senders": {"ORTHANC": SENT_SITE}, "hosts": ["127.0.0.0/8"], "min_free_bytes": 0},
            "pacs": [{"site": ASKED_SITE, "url": "http://orthanc:8042/dicom-web", "requests_per_second": 1000}],
        },
    }
    params.write_text(yaml.safe_dump(Settings.model_validate(values).model_dump(mode="json", exclude_unset=True)))
    home.chmod(0o755)
    return hospital, params, secrets


# --- PACS -----------------------------------------------------------------------------------------------------------


def files_of(hospital: Path, site: str) -> list[Path]:
    """Everything that a site's inbox holds."""
    return sorted(path for path in (hospital / "inbox" / site).rglob("*") if path.is_file())


def fill_pacs(files: Iterable[Path]) -> list[str]:
    """Stores DICOM objects in Orthanc. Their ids there; what is no DICOM stays outside."""
    ids: set[str] = set()
    for path in files:
        answer = requests.post(f"{ORTHANC}/instances", data=path.read_bytes(), timeout=60)
        if answer.ok:
            ids.add(str(answer.json()["ID"]))
    assert ids, "no DICOM object"
    return sorted(ids)


def pacs_answers() -> bool:
    """Whether Orthanc is up."""
    try:
        return requests.get(f"{ORTHANC}/system", timeout=10).ok
    except requests.RequestException:
        return False


def empty_pacs() -> None:
    """Deletes every patient of Orthanc."""
    for patient in requests.get(f"{ORTHANC}/patients", timeout=60).json():
        requests.delete(f"{ORTHANC}/patients/{patient}", timeout=60)


def send_from_pacs(ids: Sequence[str]) -> dict[str, Any]:
    """C-STORE from Orthanc to the receiver. What Orthanc says of it: `FailedInstancesCount`, `InstancesCount`."""
    answer = requests.post(f"{ORTHANC}/modalities/radia/store", json={"Resources": list(ids)}, timeout=300)
    answer.raise_for_status()
    return dict(answer.json())


# --- Dagster, as an engineer in a browser ----------------------------------------------------------------------------


class Person:
    """Somebody at the proxy, signed in."""

    def __init__(self, name: str) -> None:
        self.session = requests.Session()
        self.session.verify, self.session.trust_env = False, False
        page = self.session.get(f"{PROXY}/sign-in", timeout=60)
        form = {"name": name, "password": PASSWORD, "csrf_token": token_of(page.text), "next": "/account"}
        answer = self.session.post(f"{PROXY}/sign-in", data=form, headers={"Referer": f"{PROXY}/sign-in"}, timeout=60)
        assert answer.status_code == 200, f"{name} cannot sign in: {answer.status_code}"

    def query(self, text: str, area: str = "/dagster", **variables: object) -> dict[str, Any]:
        """An answer of Dagster's GraphQL."""
        body = {"query": text, "variables": variables}
        answer = self.session.post(f"{PROXY}{area}/graphql", json=body, timeout=120)
        answer.raise_for_status()
        result = dict(answer.json())
        assert "errors" not in result, result["errors"]
        return dict(result["data"])

    def launch(self, job: str, config: Mapping[str, object] | None = None) -> str:
        """Starts a job; the run's id."""
        done = self.query(LAUNCH, job=job, config=json.dumps(config or {}))["launchRun"]
        assert done["__typename"] == "LaunchRunSuccess", done
        return str(done["run"]["runId"])

    def state(self, run: str) -> str:
        """A run's state, such as SUCCESS."""
        return str(
            self.query("query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }", run=run)["runOrError"][
                "status"
            ]
        )

    def await_run(self, run: str, *, seconds: float = 600) -> str:
        """The state in which a run ends."""
        await_that(lambda: self.state(run) in ("SUCCESS", "FAILURE", "CANCELED"), f"the run {run} ends", seconds)
        return self.state(run)

    def failures(self, run: str) -> list[str]:
        """What Dagster says of the steps that failed."""
        events = self.query(EVENTS, run=run)["logsForRun"]["events"]
        return [f"{one['stepKey']}: {told(one['error'])}" for one in events if one.get("error")]

    def turn_on(self, sensor: str) -> None:
        """Starts a sensor."""
        done = self.query(START_SENSOR, sensor=sensor)["startSensor"]
        assert done["__typename"] == "Sensor", done

    def read(self, film: Path) -> requests.Response:
        """Has the model in use read a film, as the demo page does."""
        page = self.session.get(f"{PROXY}/demo", timeout=60)
        with film.open("rb") as file:
            return self.session.post(
                f"{PROXY}/api/predict",
                files={"image": ("film.dcm", file)},
                data={"csrf_token": token_of(page.text)},
                headers={"Referer": f"{PROXY}/demo"},
                timeout=120,
            )


_SELECTOR = 'repositoryName: "__repository__", repositoryLocationName: "radia"'
LAUNCH = f"""mutation($job: String!, $config: RunConfigData) {{ launchRun(executionParams: {{
  selector: {{jobName: $job, {_SELECTOR}}}, runConfigData: $config}}) {{
  __typename ... on LaunchRunSuccess {{ run {{ runId }} }} ... on PythonError {{ message }}
  ... on RunConfigValidationInvalid {{ errors {{ message }} }} ... on UnauthorizedError {{ message }} }} }}"""
START_SENSOR = f"""mutation($sensor: String!) {{ startSensor(sensorSelector: {{sensorName: $sensor, {_SELECTOR}}}) {{
  __typename ... on PythonError {{ message }} }} }}"""
EVENTS = """query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
  ... on ExecutionStepFailureEvent { stepKey error { message cause { message cause { message } } } } } } } }"""


def told(error: Mapping[str, Any] | None) -> str:
    """An error of Dagster and its causes."""
    words = []
    while error:
        words.append(str(error["message"]).strip())
        error = error.get("cause")
    return " < ".join(reversed(words))


def token_of(page: str) -> str:
    """The CSRF token of a page's form."""
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"|value="([^"]+)"[^>]*name="csrf_token"', page)
    assert found is not None, "the page has no form"
    return found[1] or found[2]


# --- MLflow, as the lead ----------------------------------------------------------------------------------------------


def make_approver(secrets: Path, name: str) -> None:
    """What an administrator does once (`radia accounts URL --approver NAME`): an account that may edit candidates."""
    os.environ["MLFLOW_AUTH_ADMIN_PASSWORD_FILE"] = str(secrets / "mlflow_admin_password")
    accounts.make_approver(MLFLOW, name, PASSWORD)
    accounts.make_approver(MLFLOW, name, PASSWORD)  # said twice, it is done once


def approve(name: str, version: str, reason: str, *, override: str = "") -> None:
    """What that person says of a candidate, by its tags; the one that counts comes last."""
    said = {"approver": name, "reason": reason} | ({"override": override} if override else {})
    for key, value in {**said, "approval": "approved"}.items():
        answer = requests.post(
            f"{MLFLOW}/api/2.0/mlflow/model-versions/set-tag",
            json={"name": "cxr-candidate", "version": version, "key": key, "value": value},
            auth=(name, PASSWORD),
            timeout=60,
        )
        assert answer.ok, (key, answer.status_code, answer.text)


def tags_of(name: str, version: str) -> dict[str, str]:
    """The tags of a candidate, as that person sees them."""
    answer = requests.get(
        f"{MLFLOW}/api/2.0/mlflow/model-versions/get",
        params={"name": "cxr-candidate", "version": version},
        auth=(name, PASSWORD),
        timeout=60,
    )
    answer.raise_for_status()
    return {tag["key"]: tag["value"] for tag in answer.json()["model_version"].get("tags", [])}


# --- the ways of data ------------------------------------------------------------------------------------------------


def await_that(true: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Waits until something is so. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)


def bring_in(engine: Engine, hospital: Path) -> None:
    """One site sends, the other is asked, and the table of labels is put beside."""
    await_that(pacs_answers, "Orthanc answers")
    sent = fill_pacs(files_of(hospital, SENT_SITE))
    done = send_from_pacs(sent)
    assert done.get("FailedInstancesCount") == 0, done
    empty_pacs()
    fill_pacs(files_of(hospital, ASKED_SITE))
    engine.execute("dagster-code", "radia", "intake", "pacs", "--from", "2020-01-01")
    put_labels(engine, hospital)


def put_labels(engine: Engine, hospital: Path) -> None:
    """As `docker compose cp` does."""
    engine.execute("dagster-code", "sh", "-c", "cat > /data/labels.csv", stdin=(hospital / "labels.csv").read_bytes())


def add_person(engine: Engine, name: str, *roles: str) -> None:
    """An account of the web app."""
    options = [word for role in roles for word in ("--role", role)]
    asked_twice = f"{PASSWORD}\n{PASSWORD}\n".encode()
    engine.execute("web", "radia", "people", "add", name, *options, stdin=asked_twice)


def results(engine: Engine) -> dict[str, str]:
    """The digests in which the job ended."""
    code = (
        "import json; from radia.steps import open_run, recorded; w = open_run().workspace; print(json.dumps({step: "
        "recorded(w, step)[0].outputs for step in ('snapshot', 'suspects', 'finetune', 'evaluate', 'gate')}))"
    )
    done = engine.execute("dagster-code", "python", "-c", code)
    return {
        f"{step} {name}": digest
        for step, outputs in json.loads(done.stdout.splitlines()[-1]).items()
        for name, digest in outputs.items()
    }


def a_film(hospital: Path) -> Path:
    """A usable radiograph of the hospital."""
    unusable = json.loads((hospital / "truth.json").read_text())["unusable"]
    for path in files_of(hospital, ASKED_SITE):
        if str(path.relative_to(hospital)) not in unusable and pydicom.misc.is_dicom(path):
            return path
    raise AssertionError("the hospital has no radiograph")
