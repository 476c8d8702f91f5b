"""Faults injected into the running services, and what became of the job. `make faults` writes docs/reliability.md.

A run that nothing disturbed says what the job must end in. Before each fault everything that the job made is removed
(what was received, the ledger and MLflow stay), the job is started, the fault is injected, and the job is started again
until it succeeds. Then: the same digests, as many candidates, receipts and files as before, and a ledger that verifies.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from requests import RequestException

from tests.deployment import containers, hospital
from tests.deployment.acceptance import ENGINEER
from tests.deployment.containers import CHECKOUT, Engine
from tests.deployment.hospital import ASKED_SITE, SENT_SITE, Person

MADE = "records clean archive manifest labels quality suspects models evaluation monitoring snapshot.json reads"
"""What the job makes in the data folder."""
SERVICES = [
    "postgres",
    "mlflow",
    "dagster-code",
    "dagster-webserver",
    "dagster-webserver-readonly",
    "dagster-daemon",
    "web",
    "receiver",
    "proxy",
]
PAGE = CHECKOUT / "docs" / "reliability.md"
TRIES = 12
DATA_BYTES = 700 << 20
"""The size of the disk for the data folder: a tmpfs, so that it can be filled."""


@dataclass(frozen=True)
class State:
    """What must be the same after every fault."""

    digests: dict[str, str]
    candidates: int
    batches: dict[str, int]


@dataclass
class Row:
    """What became of one kind of fault. lost: how many of the states after it differed from the undisturbed one."""

    fault: str
    injected: int = 0
    survived: int = 0
    lost: int = 0
    restarts: int = 0
    seconds: float = 0.0
    why: str = ""


class Drill:
    """A site on which faults are injected."""

    def __init__(self, engine: Engine, feed: Path, seed: int) -> None:
        self.engine, self.feed, self.chance = engine, feed, random.Random(seed)
        self.reference: State | None = None
        self.kills = 0

    def fresh(self) -> None:
        """Removes what the job made."""
        self.engine.execute("dagster-code", "sh", "-c", f"cd /data && rm -rf {MADE}")

    def start(self) -> str:
        """Starts the job as soon as the services take it: they may be starting themselves."""
        deadline = time.monotonic() + 300
        while True:
            try:
                return Person(ENGINEER).launch("retrain")
            except (RequestException, AssertionError) as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the job cannot be started: {error}") from error
                time.sleep(2)

    def ended(self, run: str, *, seconds: float = 600) -> str:
        """The state in which a run ends; TIMEOUT where it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                state = Person(ENGINEER).state(run)
            except (RequestException, AssertionError):
                state = ""
            if state in ("SUCCESS", "FAILURE", "CANCELED"):
                return state
            time.sleep(2)
        return "TIMEOUT"

    def finish(self) -> int:
        """Starts the job until it succeeds; how often it was started. Raises RuntimeError."""
        for turn in range(1, TRIES + 1):
            if self.ended(self.start()) == "SUCCESS":
                return turn
        raise RuntimeError(f"the job did not succeed in {TRIES} times")

    def state(self) -> State:
        """What the site holds now; the ledger has verified. Raises RuntimeError."""
        self.engine.execute("dagster-code", "radia", "audit", "verify")
        code = (
            "import json; from radia import registry; from radia.intake import receipts; from radia.settings import "
            "workspace; w = workspace(); print(json.dumps([len(registry.candidates(w)), "
            "{r.batch: len(r.files) for r in receipts(w.landing)}]))"
        )
        done = self.engine.execute("dagster-code", "python", "-c", code)
        candidates, batches = json.loads(done.stdout.splitlines()[-1])
        return State(hospital.results(self.engine), candidates, batches)

    def judge(self, row: Row) -> None:
        """Finishes the job after a fault and counts what came of it."""
        try:
            row.restarts += self.finish() - 1
            found = self.state()
        except RuntimeError as error:
            row.why = str(error).splitlines()[0][:120]
            return
        if found == self.reference:
            row.survived = row.injected
        else:
            row.lost += 1
            row.why = "the state differs"

    # --- faults -----------------------------------------------------------------------------------------------------

    def killed(self, row: Row) -> None:
        """kill -9 of every service, in an order of chance and at moments of chance, while the job runs."""
        self.fresh()
        run, turns = self.start(), self.kills
        while turns:
            names = SERVICES.copy()
            self.chance.shuffle(names)
            for name in names[:turns]:
                time.sleep(self.chance.uniform(1, 12))
                self.engine.kill(name)
                row.injected += 1
                turns -= 1
                if self.ended(run, seconds=1) in ("FAILURE", "CANCELED", "SUCCESS"):
                    run = self.start()
        for name in SERVICES:
            self.engine.await_condition(name, "service_healthy", seconds=400)
        self.ended(run)

    def postgres_restarted(self, row: Row) -> None:
        """PostgreSQL is stopped and started in the middle of the job."""
        self.fresh()
        run = self.start()
        time.sleep(self.chance.uniform(15, 40))
        self.engine.stop("postgres")
        time.sleep(3)
        self.engine.start("postgres")
        row.injected += 1
        self.engine.await_condition("postgres", "service_healthy")
        self.ended(run)

    def reached(self, what: str, test: str) -> None:
        """Waits until the job has come so far."""
        deadline = time.monotonic() + 400
        while self.engine.execute("dagster-code", "sh", "-c", test, quiet=True).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} was not reached")
            time.sleep(1)

    def mlflow_down(self, row: Row) -> None:
        """MLflow is gone when the candidate is to be registered."""
        self.fresh()
        run = self.start()
        self.reached("the evaluation", "test -f /data/evaluation/metrics.json")
        self.engine.stop("mlflow")
        row.injected += 1
        self.ended(run)
        self.engine.start("mlflow")
        self.engine.await_condition("mlflow", "service_healthy")

    def out_of_memory(self, row: Row) -> None:
        """The process that trains is killed while it does, as the kernel does where memory runs out."""
        self.fresh()
        run = self.start()
        self.reached("the training", "test -f /data/records/suspects.json || test -d /data/suspects")
        time.sleep(self.chance.uniform(1, 5))
        biggest = "ps -eo rss,pid,args --sort=-rss | grep -v 'api grpc' | awk 'NR==2 {print $2}' | xargs kill -9"
        self.engine.execute("dagster-code", "sh", "-c", biggest)
        row.injected += 1
        self.ended(run)

    def disk_full(self, row: Row) -> None:
        """The disk of the data folder is filled at a moment of chance, until the run has failed."""
        self.fresh()
        run = self.start()
        time.sleep(self.chance.uniform(10, 45))
        self.engine.execute("dagster-code", "sh", "-c", "dd if=/dev/zero of=/data/filler bs=64k", quiet=True)
        row.injected += 1
        self.ended(run)
        self.engine.execute("dagster-code", "rm", "-f", "/data/filler")

    def pacs_gone(self, row: Row) -> None:
        """Orthanc is killed while it sends, and while it is asked; then both are done again."""
        ids = hospital.fill_pacs(self.feed / "inbox" / SENT_SITE)
        hospital.fill_pacs(self.feed / "inbox" / ASKED_SITE)
        self._kill_beside("orthanc", lambda: hospital.send_from_pacs(ids))
        self._kill_beside("orthanc", lambda: self.engine.execute("dagster-code", *_ASK, quiet=True))
        row.injected += 2
        hospital.fill_pacs(self.feed / "inbox" / SENT_SITE)
        hospital.empty_pacs()
        self.fresh()

    def _kill_beside(self, name: str, work: Callable[[], object]) -> None:
        import threading

        def quietly() -> None:
            try:
                work()
            except (RequestException, RuntimeError):
                return

        working = threading.Thread(target=quietly)
        working.start()
        time.sleep(self.chance.uniform(0.2, 2))
        self.engine.kill(name)
        working.join()
        hospital.await_that(hospital.pacs_answers, "Orthanc is there again")


_ASK = ("radia", "intake", "pacs", "--from", "2020-01-01")

FAULTS: dict[str, tuple[str, Callable[[Drill, Row], None], int]] = {
    "kill": ("kill -9 of every service, at random moments of the job", Drill.killed, 1),
    "postgres": ("PostgreSQL restarted during the job", Drill.postgres_restarted, 3),
    "mlflow": ("MLflow down at registration", Drill.mlflow_down, 2),
    "memory": ("the training process killed, as by the kernel out of memory", Drill.out_of_memory, 3),
    "disk": ("disk of the data folder full", Drill.disk_full, 5),
    "pacs": ("PACS gone in the middle of an association and of a query", Drill.pacs_gone, 2),
}


def drill(engine: Engine, feed: Path, *, chosen: list[str], kills: int, seed: int, prepared: bool = False) -> list[Row]:
    """Injects the chosen faults; a row a kind. The services run, the feed is in, and an engineer has an account."""
    site = Drill(engine, feed, seed)
    site.kills = kills
    if not prepared:
        hospital.bring_in(engine, feed)
        hospital.add_person(engine, ENGINEER, "engineer")
    site.finish()
    site.reference = site.state()
    rows = []
    for name in chosen:
        words, inject, times = FAULTS[name]
        row = Row(words)
        begun = time.monotonic()
        for _ in range(times):
            try:
                inject(site, row)
            except (RuntimeError, AssertionError, RequestException) as error:
                row.why = str(error).splitlines()[0][:120]
                continue
            site.judge(row)
        row.seconds = time.monotonic() - begun
        rows.append(row)
        print(row, flush=True)
    return rows


def page(rows: list[Row], *, command: str) -> str:
    """The table as Markdown."""
    lines = [
        "| fault | injected | survived | data lost | job started again | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        fate = f"{row.survived}{f' ({row.why})' if row.why else ''}"
        lines.append(
            f"| {row.fault} | {row.injected} | {fate} | {row.lost} | {row.restarts} | {row.seconds / 60:.1f} |"
        )
    return "\n".join([f"Measured by `{command}`:", "", *lines, ""])


def write_page(text: str) -> None:
    """Puts the table between its marks in docs/reliability.md."""
    begin, end = "<!-- measured -->", "<!-- /measured -->"
    before, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}")


def main() -> int:
    """Runs it in a folder of its own; exit status 0 where nothing was lost."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("faults", nargs="*", choices=[*FAULTS, []], help="which; all where none is named")
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    given = options.parse_args()
    if why := containers.why_not():
        print(f"the services cannot be run here: {why}")
        return 2
    containers.leave_the_network()
    home = Path(tempfile.mkdtemp(prefix="radia-faults-"))
    feed, params, secrets = hospital.prepare(home)
    with Engine(
        home, params=params, secrets=secrets, profiles=["trial"], volumes={"data": f"size={DATA_BYTES},mode=750"}
    ) as engine:
        engine.up()
        rows = drill(engine, feed, chosen=given.faults or list(FAULTS), kills=given.kills, seed=given.seed)
    text = page(rows, command=f"make faults # python -m tests.deployment.faults --kills {given.kills}")
    print(text)
    if given.write:
        write_page(text)
    lost = any(row.lost or row.survived < row.injected for row in rows)
    if not lost:
        shutil.rmtree(home)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
