"""Faults injected into the running services, and what became of the job. `make faults` writes docs/reliability.md.

First the PACS goes away while it sends and while it is asked. Then a run that nothing disturbed says what the job must
end in. Before each further fault everything that the job made is removed (what was received, the ledger and MLflow
stay), the job is started, the fault is injected, and where the run did not end well, the job is started again until it
does. Then: the same digests, as many candidates, the same files, each once, and a ledger that verifies.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from requests import RequestException

from tests.deployment import containers, hospital, ray_nodes
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
DAY = 86_400
RAY_TIMES = 1
PARTS = 3
"""In which the feed is brought in: one fault for each of them and each way."""
TRAINING = {"epochs": 12}
"""Long enough to be met."""
DATA_BYTES = 700 << 20
"""The size of the disk for the data folder: a tmpfs, so that it can be filled."""


@dataclass(frozen=True)
class State:
    """What must be the same after every fault."""

    digests: dict[str, str]
    candidates: int
    files: list[str]


@dataclass
class Row:
    """What became of one kind of fault.

    lost: files or results that were missing, doubled or other than in the undisturbed run. restarts: how often the job
    was started again by a person; what services do by themselves does not count.
    """

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
            "sorted(f.sha256 for r in receipts(w.landing) for f in r.files)]))"
        )
        signed_in = 'MLFLOW_TRACKING_PASSWORD=$(cat "$MLFLOW_TRACKING_PASSWORD_FILE") exec python -c "$0"'
        done = self.engine.execute("dagster-code", "sh", "-c", signed_in, code)
        candidates, files = json.loads(done.stdout.splitlines()[-1])
        return State(hospital.results(self.engine), candidates, files)

    def judge(self, row: Row, injected: int, end: str) -> None:
        """Finishes the job after so many faults, unless it ended well by itself, and counts what came of them."""
        assert self.reference is not None
        if end != "SUCCESS":
            row.restarts += self.finish()
        found = self.state()
        wrong = len(set(found.digests.items()) ^ set(self.reference.digests.items()))
        wrong += abs(found.candidates - self.reference.candidates)
        wrong += differing(found.files, self.reference.files)
        row.lost += wrong
        row.survived += 0 if wrong else injected
        if wrong:
            row.why = f"{wrong} differ"

    # --- faults: each says how many it injected, and how the run that it met ended -----------------------------------

    def killed(self) -> tuple[int, str]:
        """kill -9 of every service, twice, in an order of chance and at moments of chance, while the job runs."""
        names = self.chance.sample(2 * SERVICES, 2 * len(SERVICES))
        run = self.start()
        for name in names:
            time.sleep(self.chance.uniform(1, 15))
            self.engine.kill(name)
        return len(names), self._well(run)

    def _well(self, run: str) -> str:
        """How a run ended, once all services are well."""
        for name in SERVICES:
            self.engine.await_condition(name, "service_healthy", seconds=400)
        return self.ended(run)

    def postgres_restarted(self) -> tuple[int, str]:
        """PostgreSQL is stopped and started in the middle of the job."""
        run = self.start()
        time.sleep(self.chance.uniform(10, 60))
        self.engine.stop("postgres")
        time.sleep(3)
        self.engine.start("postgres")
        return 1, self._well(run)

    def reached(self, what: str, test: str) -> None:
        """Waits until the job has come so far."""
        deadline = time.monotonic() + 400
        while self.engine.execute("dagster-code", "sh", "-c", test, quiet=True).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} was not reached")
            time.sleep(0.2)

    def mlflow_down(self) -> tuple[int, str]:
        """MLflow is gone when the candidate is to be registered."""
        run = self.start()
        self.reached("the evaluation", "test -f /data/records/evaluate.json")
        self.engine.stop("mlflow")
        end = self.ended(run)
        self.engine.start("mlflow")
        self.engine.await_condition("mlflow", "service_healthy")
        return 1, end

    def out_of_memory(self) -> tuple[int, str]:
        """The largest process is killed while it trains, as the kernel does where memory runs out."""
        run = self.start()
        self.reached("the training", "ls /data/models/resume-*/*")
        biggest = "ps -eo rss,pid,args --sort=-rss | grep -v 'api grpc' | awk 'NR==2 {print $2}' | xargs kill -9"
        self.engine.execute("dagster-code", "sh", "-c", biggest)
        return 1, self.ended(run)

    def disk_full(self) -> tuple[int, str]:
        """The disk of the data folder is filled at a moment of chance, until the run has ended."""
        run = self.start()
        time.sleep(self.chance.uniform(10, 70))
        self.engine.execute("dagster-code", "sh", "-c", "dd if=/dev/zero of=/data/filler bs=64k", quiet=True)
        end = self.ended(run)
        self.engine.execute("dagster-code", "rm", "-f", "/data/filler")
        return 1, end

    def clock_jumps(self) -> tuple[int, str]:
        """The clock of all services jumps ahead by a day in the middle of the job, and later back by two."""
        run = self.start()
        for jump in (DAY, -DAY):
            time.sleep(self.chance.uniform(10, 40))
            self.engine.set_clock(jump)
        end = self.ended(run)
        self.engine.set_clock(0)
        return 2, end

    # --- faults on the way in -----------------------------------------------------------------------------------------

    def bring_in(self, row: Row) -> int:
        """The feed in parts; Orthanc is killed while it sends each of them and while it is asked for each of them.

        How many objects it was to send in all.
        """
        sent, asked = (hospital.files_of(self.feed, site) for site in (SENT_SITE, ASKED_SITE))
        held: set[str] = set()
        for part in range(PARTS):
            hospital.empty_pacs()
            ids = hospital.fill_pacs(sent[part::PARTS])
            held |= set(ids)
            row.injected += self._kill_beside("orthanc", lambda ids=ids: hospital.send_from_pacs(ids))
            done = hospital.send_from_pacs(ids)
            assert done.get("FailedInstancesCount") == 0, done
        hospital.empty_pacs()
        for part in range(PARTS):
            hospital.fill_pacs(asked[part::PARTS])
            row.injected += self._kill_beside("orthanc", self._ask)
            self._ask()
        hospital.put_labels(self.engine, self.feed)
        return len(held)

    def arrived(self, site: str) -> list[str]:
        """The digests of a site's objects that stand in the receipts of batches."""
        return self._digests(
            f"sorted(f.sha256 for r in receipts(workspace().landing) if r.site == {site!r} for f in r.files)"
        )

    def asked_undisturbed(self) -> list[str]:
        """The digests of what the PACS gives when nothing happens, into a landing zone of its own."""
        return self._digests(
            "sorted(f.sha256 for r in take_pacs(open_run().settings.intake.pacs[0], Path(mkdtemp()), "
            "since=date(2020, 1, 1), until=date.today(), today=date.today()) for f in r.files)"
        )

    def _digests(self, expression: str) -> list[str]:
        code = (
            "import json; from datetime import date; from pathlib import Path; from tempfile import mkdtemp; "
            "from radia.intake import receipts; from radia.intake.pacs import take_pacs; "
            "from radia.settings import workspace; from radia.steps import open_run; "
        )
        done = self.engine.execute("dagster-code", "python", "-c", f"{code} print(json.dumps({expression}))")
        return list(json.loads(done.stdout.splitlines()[-1]))

    def _ask(self) -> None:
        self.engine.execute("dagster-code", "radia", "intake", "pacs", "--from", "2020-01-01")

    def _kill_beside(self, name: str, work: Callable[[], object]) -> int:
        """Kills a service while the work needs it; 1 where the work was still under way."""
        broken: list[Exception] = []

        def attempt() -> None:
            try:
                work()
            except (RequestException, RuntimeError) as error:
                broken.append(error)

        working = threading.Thread(target=attempt)
        working.start()
        spool = self.engine.volume("landing") / ".spool"
        while working.is_alive() and not any(spool.glob("[!.]*/[!.]*")):
            time.sleep(0.005)
        time.sleep(self.chance.uniform(0, 0.1))
        under_way = working.is_alive()
        self.engine.kill(name)
        working.join()
        hospital.await_that(hospital.pacs_answers, f"{name} is there again")
        return int(under_way)


def differing(found: list[str], expected: list[str]) -> int:
    """How many of them are missing or there too often."""
    here, there = Counter(found), Counter(expected)
    return ((here - there) + (there - here)).total()


PACS, CLOCK, RAY = "pacs", "clock", "ray"
FAULTS: dict[str, tuple[str, Callable[[Drill], tuple[int, str]], int]] = {
    "kill": ("kill -9 of every service, at random moments of the job", Drill.killed, 3),
    "postgres": ("PostgreSQL restarted during the job", Drill.postgres_restarted, 2),
    "mlflow": ("MLflow down at registration", Drill.mlflow_down, 2),
    "memory": ("the training process killed, as by the kernel out of memory", Drill.out_of_memory, 2),
    "disk": ("disk of the data folder full", Drill.disk_full, 3),
    CLOCK: ("the clock jumps a day ahead, then back", Drill.clock_jumps, 1),
}
"""What it is called, how it is injected, and how often."""
ALL = [PACS, *FAULTS, RAY]


def drill(engine: Engine, feed: Path, *, chosen: Sequence[str], seed: int) -> list[Row]:
    """Injects the chosen faults into services that run; a row a kind."""
    site, rows = Drill(engine, feed, seed), []
    hospital.add_person(engine, ENGINEER, "engineer")
    hospital.await_that(hospital.pacs_answers, "Orthanc answers")
    if PACS in chosen:
        rows.append(on_the_way_in(site))
    else:
        hospital.bring_in(engine, feed)
    site.finish()
    site.reference = site.state()
    print(f"undisturbed: {site.reference.digests}, {len(site.reference.files)} files", flush=True)
    for name in chosen:
        if name in FAULTS:
            rows.append(injected(site, name))
    return rows


def on_the_way_in(site: Drill) -> Row:
    """The row of the PACS that goes away: each object that it held must have arrived, once."""
    row, begun = Row("PACS killed in the middle of an association or of a query"), time.monotonic()
    held = site.bring_in(row)
    hospital.await_that(lambda: len(site.arrived(SENT_SITE)) >= held, f"{held} objects have arrived", 300)
    sent = site.arrived(SENT_SITE)
    row.lost = abs(len(sent) - held) + len(sent) - len(set(sent))
    row.lost += differing(site.arrived(ASKED_SITE), site.asked_undisturbed())
    row.survived = 0 if row.lost else row.injected
    row.seconds = time.monotonic() - begun
    print(row, flush=True)
    return row


def injected(site: Drill, name: str) -> Row:
    """The row of one kind of fault."""
    words, inject, times = FAULTS[name]
    row, begun = Row(words), time.monotonic()
    for _ in range(times):
        try:
            site.fresh()
            count, end = inject(site)
            row.injected += count
            site.judge(row, count, end)
        except (RuntimeError, AssertionError, RequestException) as error:
            row.why = str(error).splitlines()[0][:200]
        print(f"{time.monotonic() - begun:6.0f} s {row}", flush=True)
    row.seconds = time.monotonic() - begun
    return row


def between_ray_nodes(times: int, seed: int) -> list[Row]:
    """A row of each kind of fault between the two nodes of a Ray cluster, each injected so often."""
    rows: dict[str, Row] = {}
    for one in ray_nodes.network_cut(times, seed=seed):
        row = rows.setdefault(one.fault, Row(one.fault))
        row.injected += 1
        row.survived += one.survived
        row.lost += one.lost
        row.restarts += one.restarts
        row.seconds += one.seconds
        row.why = row.why if one.survived else one.why
    return list(rows.values())


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = [
        "| fault | injected | survived | data lost | job started again | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        fate = f"{row.survived}{f' ({row.why})' if row.why else ''}"
        lines.append(
            f"| {row.fault} | {row.injected} | {fate} | {row.lost} | {row.restarts} | {row.seconds / 60:.1f} |"
        )
    return "\n".join([*lines, ""])


def write_page(rows: list[Row]) -> None:
    """Puts the rows between the marks of docs/reliability.md, in place of older ones of the same faults."""
    begin, end = "<!-- measured -->", "<!-- /measured -->"
    before, _, rest = PAGE.read_text().partition(begin)
    old, _, after = rest.partition(end)
    measured = {row.fault: line for row, line in zip(rows, table(rows).splitlines()[2:], strict=True)}
    kept = {line.split(" | ")[0].removeprefix("| "): line for line in old.strip().splitlines()[2:]}
    lines = [*table([]).strip().splitlines(), *(kept | measured).values()]
    PAGE.write_text("\n".join([f"{before}{begin}", *lines, f"{end}{after}"]))


def main() -> int:
    """Runs it in a folder of its own; exit status 0 where nothing was lost."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("faults", nargs="*", help=f"which of {', '.join(ALL)}; all where none is named")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--write", action="store_true", help="put what was measured into docs/reliability.md")
    given = options.parse_args()
    chosen = given.faults or ALL
    if unknown := set(chosen) - set(ALL):
        options.error(f"unknown: {', '.join(sorted(unknown))}")
    if CLOCK in chosen and shutil.which("cc") is None:
        options.error("the clock cannot jump: there is no C compiler (cc)")
    if why := containers.why_not():
        print(f"the services cannot be run here: {why}")
        return 2
    rows = between_ray_nodes(RAY_TIMES, given.seed) if RAY in chosen else []
    if set(chosen) - {RAY}:
        rows = through_services(chosen, given.seed) + rows
    print(table(rows))
    if given.write:
        write_page(rows)
    return 1 if any(row.lost or row.survived < row.injected for row in rows) else 0


def through_services(chosen: Sequence[str], seed: int) -> list[Row]:
    """The rows of the faults injected into the services, in a folder that is kept where one was not survived."""
    containers.leave_the_network()
    home = Path(tempfile.mkdtemp(prefix="radia-faults-"))
    feed, params, secrets = hospital.prepare(home, finetune=TRAINING)
    small = {"data": f"size={DATA_BYTES},mode=750"}
    with Engine(
        home, params=params, secrets=secrets, profiles=["trial"], volumes=small, clock_can_jump=CLOCK in chosen
    ) as engine:
        engine.up()
        rows = drill(engine, feed, chosen=chosen, seed=seed)
    if all(row.survived == row.injected for row in rows):
        shutil.rmtree(home)
    else:
        print(f"kept: {home}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
