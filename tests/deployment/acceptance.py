"""The acceptance run: every service of docker-compose.yml, and the main job through them. `make acceptance`.

PostgreSQL and Orthanc are Debian's. Prints each step with its time; exit status 0 where everything was as it should be.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import requests

from tests.deployment import containers, hospital
from tests.deployment.hospital import MLFLOW, PROXY, Person, await_that

LEAD, ENGINEER, AUDITOR = "claire.lead", "eric.engineer", "anne.auditor"


class Steps:
    """Says what is done and how long it took."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()

    def done(self, what: str) -> None:
        """A step is over."""
        now = time.monotonic()
        print(f"{now - self._begun:6.0f} s  (+{now - self._last:5.1f})  {what}", flush=True)
        self._last = now


def main() -> int:
    """Runs it in a folder of its own, removed where all went well."""
    if why := containers.why_not():
        print(f"the services cannot be run here: {why}")
        return 2
    containers.leave_the_network()
    home = Path(tempfile.mkdtemp(prefix="radia-acceptance-"))
    try:
        run(home)
    except (AssertionError, RuntimeError) as error:
        print(f"\nFAILED: {error}\nkept: {home}")
        return 1
    shutil.rmtree(home)
    return 0


def run(home: Path) -> None:
    """The whole of it. Raises AssertionError, RuntimeError."""
    steps = Steps()
    feed, params, secrets = hospital.prepare(home)
    steps.done("an embedded hospital, settings and secrets are written")
    with containers.Engine(home, params=params, secrets=secrets, profiles=["trial"]) as engine:
        engine.up()
        steps.done(f"{len(engine.services)} services are started and well: {', '.join(engine.services)}")
        hospital.bring_in(engine, feed)
        steps.done("one site sent by C-STORE, the other was asked over DICOMweb")
        for name, role in ((LEAD, "lead"), (ENGINEER, "engineer"), (AUDITOR, "auditor")):
            hospital.add_person(engine, name, role)
        engineer = Person(ENGINEER)
        job = engineer.launch("retrain")
        state = engineer.await_run(job)
        assert state == "SUCCESS", f"{state}: {engineer.failures(job)}"
        engineer.turn_on("approval_sensor")
        steps.done("an engineer signed in and started the job in Dagster; it ended with a candidate")
        check_doors(engine, engineer)
        steps.done("who is not signed in, or not asked for, gets in nowhere")
        hospital.make_approver(secrets, LEAD)
        tags = hospital.tags_of(LEAD, "1")
        assert tags["approval"] == "pending", tags
        before = served_model()
        # so small a candidate does not pass the gate: its approver has to say why it is put in use all the same
        hospital.approve(LEAD, "1", "acceptance run", override="trial of the services, on phantoms")
        await_that(lambda: "acted" in hospital.tags_of(LEAD, "1"), "Dagster acts on the approval", 400)
        tags = hospital.tags_of(LEAD, "1")
        assert not tags.get("refused"), tags["refused"]
        steps.done("a person approved the candidate in MLflow, and Dagster's sensor put it in use")
        await_that(lambda: served_model() not in (None, before), "the web app serves the approved model", 120)
        lead = Person(LEAD)
        answer = lead.read(hospital.a_film(feed))
        assert answer.status_code == 200, (answer.status_code, answer.text[-2000:])
        assert str(served_model()) in answer.text
        steps.done(f"the web app answered for a film with the model {served_model()} (before: {before})")
        verified = engine.execute("dagster-code", "radia", "audit", "verify", "--json")
        events = json.loads(verified.stdout)
        steps.done(f"the ledger verifies: {events}")
        restarted = {name: count for name, count in engine.restarts.items() if count}
        assert not restarted, f"services ended by themselves: {restarted}"
        check_logs(engine, feed)
        ended = {name: engine.stop(name) for name in reversed(list(engine.running))}
        assert set(ended.values()) <= {0, 143}, ended
    steps.done("everything was told to end and did")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:6.0f} s of CPU, in all processes together")


def check_doors(engine: containers.Engine, engineer: Person) -> None:
    """The proxy and the services behind it let in whom they should."""
    stranger = requests.Session()
    stranger.verify, stranger.trust_env = False, False
    for area in ("/dagster/", "/dagster-readonly/"):
        answer = stranger.get(f"{PROXY}{area}", allow_redirects=False, timeout=60)
        assert answer.status_code == 302, (area, answer.status_code)
        assert "/sign-in" in answer.headers["Location"], area
        named = {"X-Remote-User": ENGINEER, "X-Forwarded-User": ENGINEER, "X-Forwarded-For": "127.0.0.1"}
        assert stranger.get(f"{PROXY}{area}", headers=named, allow_redirects=False, timeout=60).status_code == 302
    assert stranger.get(f"{PROXY}/allowed/engineer", timeout=60).status_code == 404
    auditor = Person(AUDITOR)
    assert auditor.session.get(f"{PROXY}/dagster/", timeout=60).status_code == 403
    assert auditor.query("{ version }", area="/dagster-readonly")["version"]
    refused = auditor.query(hospital.LAUNCH, area="/dagster-readonly", job="retrain", config="{}")["launchRun"]
    assert refused["__typename"] == "UnauthorizedError", refused
    assert engineer.query("{ version }")["version"]
    assert requests.get(f"{MLFLOW}/api/2.0/mlflow/experiments/search", timeout=60).status_code == 401
    for name in engine.services:
        if name in engine.running and engine.running[name].ended is None:
            written = engine.execute(name, "sh", "-c", "touch /etc/x /usr/x /opt/x 2>&1; id -u", quiet=True)
            assert written.stdout.decode().split()[-1] == str(containers.USER), name
            assert written.stdout.count(b"Read-only") + written.stdout.count(b"No such file") == 3, written.stdout


def check_logs(engine: containers.Engine, feed: Path) -> None:
    """No patient and no secret stands in a log."""
    planted = json.loads((feed / "planted.json").read_text())
    names = ("last", "mrn", "ramq", "phone", "accession", "study_uid")
    words = {file[name] for file in planted.values() for name in names if len(file[name]) >= 6}
    words |= {file.read_text().strip() for file in (engine.home / "secrets").iterdir() if "tls" not in file.name}
    for name in engine.services:
        text = engine.log(name).read_text(errors="replace")
        found = [word for word in words if word in text]
        assert name == "orthanc" or not found, f"the log of {name} holds {len(found)} words that it must not"


def served_model() -> str | None:
    """The model with which the web app answers, by its health."""
    answer = requests.get(f"{PROXY}/healthz", verify=False, timeout=60)
    return dict(answer.json())["model"]


if __name__ == "__main__":
    sys.exit(main())
