"""Two machines of a Ray cluster on this one, a training over both, and what becomes of it when they are torn apart.

Each is a network namespace, a mount namespace and a process tree of its own; a cable (veth) lies between them and leads
nowhere else. In both runs `ray start`, one worker each, started again when it ends, as systemd would. The first one is
also where `radia finetune` is called, with `train: {backend: ray, workers: 2}`: every gradient crosses the cable.

A fault is injected after an epoch was kept; what ends with an error is called again. It has survived when checkpoint,
learning curve and thresholds are those of a run that nothing disturbed, byte for byte, nothing half done is left, and
the ledger verifies. `python -m tests.deployment.ray_nodes` prints the table. Needs root, util-linux, iproute2 and Ray.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.deployment import containers
from tests.deployment.containers import CHECKOUT

ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 6379
CABLE = "cable0"
PACKAGE = [sys.executable, "-P", "-m"]
EPOCHS, IMAGES, SIDE = 6, 160, 64
PATIENCE = 300
"""train.wait_seconds: also how long a training waits for a node to come back."""
LOST_AFTER = {"health_check_period_ms": 2000, "health_check_timeout_ms": 6000, "health_check_failure_threshold": 2}
"""A node that does not answer counts as lost after some 15 seconds; Ray's own settings take about a minute."""
BLIP_SECONDS, CUT_SECONDS = 3, 60
RUNS = 4
LIMIT_SECONDS = 900
"""A call of the command that takes longer hangs."""
STORE_BYTES = 80_000_000
_TOKEN = secrets.token_hex(32)
"""Nodes and callers of one cluster show each other the same."""


@dataclass(frozen=True)
class Injection:
    """What became of a training into which a fault was injected.

    lost: 1 where its outcome is not that of an undisturbed one. recovered: how often the training went on by itself.
    restarts: how often the command had to be called again. seconds: until its end. why: what was wrong, or the error
    that it ended with before it was called again.
    """

    fault: str
    survived: bool
    lost: int
    recovered: int
    restarts: int
    seconds: float
    why: str = ""


def why_not() -> str:
    """What this machine lacks; empty where the cluster can be made."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed: pip install 'radia[ray]'"
    return containers.why_not()


# --- two machines ---------------------------------------------------------------------------------------------------


class Machine:
    """A machine with a cable to the other: network, /tmp/ray and processes of its own, this machine's files."""

    def __init__(self, address: str, log: Path) -> None:
        self.address, self._log = address, log
        self._ray = log.parent / f"ray-{address}"
        self._ray.mkdir()
        ends_with_us = ("setpriv", "--pdeathsig=KILL")
        isolated = (
            *ends_with_us,
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
        )
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [*isolated, "--propagation=private", "sh", "-c", self._life()],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=_environment(),
            )
        own = Path("/proc/self/ns/net").readlink()
        _await(lambda: Path(f"/proc/{self.pid}/ns/net").readlink() != own, "a machine", seconds=30)

    @property
    def pid(self) -> int:
        """The process that holds its namespaces, as this machine counts."""
        return self._process.pid

    def _life(self) -> str:
        head = self.address == ADDRESSES[0]
        role = (
            ["--head", f"--port={PORT}", "--include-dashboard=false"] if head else [f"--address={ADDRESSES[0]}:{PORT}"]
        )
        start = [*PACKAGE, "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-cpus=1"]
        start.append("--include-log-monitor=false")
        start += [f"--node-ip-address={self.address}", f"--object-store-memory={STORE_BYTES}", *role]
        return (
            f"mkdir -p /tmp/ray && mount --bind {self._ray} /tmp/ray && mount -t tmpfs none /dev/shm\n"
            f"until ip addr show {CABLE} 2>/dev/null | grep -q {self.address}; do sleep 0.1; done\n"
            f"while :; do {' '.join(start)}; sleep 1; done"
        )

    def plug_in(self) -> None:
        """Gives its end of the cable an address."""
        self.enter("ip", "link", "set", "lo", "up")
        self.enter("ip", "link", "set", CABLE, "up")
        self.enter("ip", "addr", "add", f"{self.address}/24", "dev", CABLE)

    def cut(self) -> None:
        """Takes the cable out at this end."""
        self.enter("ip", "link", "set", CABLE, "down")

    def mend(self) -> None:
        """Puts it in again."""
        self.enter("ip", "link", "set", CABLE, "up")

    def enter(self, *command: str) -> str:
        """Runs a command on this machine; what it said. Raises CalledProcessError."""
        inside = ["nsenter", f"--target={self.pid}", "--net", *command]
        return subprocess.run(inside, check=True, capture_output=True, text=True).stdout

    def call(self, command: Sequence[str], *, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Starts a command that sees this machine's network, processes and /tmp/ray."""
        inside = ["nsenter", f"--target={self._first()}", "--net", "--mount", "--pid", f"--wd={CHECKOUT}", *command]
        with log.open("ab") as sink:
            return subprocess.Popen(
                inside, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=_environment() | environment
            )

    def raylets(self) -> list[int]:
        """Ray's own process on this node; none while it starts."""
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name() == "raylet" and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def end(self) -> None:
        """Ends everything that runs on it."""
        self._process.kill()
        self._process.wait()

    def _first(self) -> int:
        return int(psutil.Process(self.pid).children()[0].pid)


def _environment() -> dict[str, str]:
    """Of everything that runs on the machines."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "RADIA_", "GLOO_"))}
    return kept | {
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _TOKEN,
        "GLOO_SOCKET_IFNAME": CABLE,
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_worker_niceness": "0",
        "RAY_enable_open_telemetry": "0",
        **{f"RAY_{name}": str(value) for name, value in LOST_AFTER.items()},
    }


@contextmanager
def cluster(home: Path) -> Iterator[tuple[Machine, Machine]]:
    """The head of the cluster and the other node, once both are known to it. Raises RuntimeError."""
    machines = [Machine(address, home / f"node-{address}.log") for address in ADDRESSES]
    try:
        one, other = machines
        ends = ("link", "add", CABLE, "netns", str(one.pid), "type", "veth", "peer", "name", CABLE, "netns")
        subprocess.run(["ip", *ends, str(other.pid)], check=True)
        for machine in machines:
            machine.plug_in()
        _await(lambda: bool(one.raylets() and other.raylets()), "the cluster")
        yield one, other
    finally:
        for machine in machines:
            machine.end()


def _await(happened: Callable[[], bool], what: str, *, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come in {seconds:.0f} s")
        time.sleep(0.1)


# --- a training -----------------------------------------------------------------------------------------------------


def write_collection(folder: Path) -> None:
    """Phantoms with labels, as a collection that `radia finetune --data chexpert:DIR` reads."""
    from PIL import Image

    from radia.findings import FINDINGS
    from radia.synthetic.phantom import public_set

    made = public_set(IMAGES, SIDE, seed=5, workers=1)
    for name, side in (("train", slice(0, IMAGES * 3 // 4)), ("valid", slice(IMAGES * 3 // 4, IMAGES))):
        lines = [",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS])]
        for number in range(IMAGES)[side]:
            where = f"{name}/patient{number:05d}/study1/view1_frontal.jpg"
            (folder / where).parent.mkdir(parents=True)
            Image.fromarray(made.images[number]).save(folder / where)
            labels = ",".join(f"{value:.1f}" for value in made.labels[number])
            lines.append(f"CheXpert-v1.0-small/{where},Female,50,Frontal,PA,{labels}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def params() -> str:
    """The site's settings: JSON is YAML too."""
    own = {
        "base": "random",
        "backbone": "densenet-slim",
        "epochs": EPOCHS,
        "batch_size": 16,
        "side": SIDE,
        "threads": 1,
    }
    own |= {"precision": "32-true", "device": "cpu", "learning_rate": 1e-3}
    where = {"backend": "ray", "ray_address": f"{ADDRESSES[0]}:{PORT}", "workers": 2, "wait_seconds": PATIENCE}
    return json.dumps({"seed": 1, "finetune": own, "train": where})


class Training:
    """`radia finetune`, called on the first machine for a site of its own."""

    def __init__(self, machine: Machine, collection: Path, site: Path) -> None:
        self._machine, self._collection, self.site = machine, collection, site
        self.log = site.with_suffix(".log")
        site.mkdir()
        (site / "params.yaml").write_text(params())
        self.calls = 0
        self._process: subprocess.Popen[bytes] | None = None

    def call(self) -> None:
        """Calls the command."""
        self.calls += 1
        self._process = self._radia("finetune", "--data", f"chexpert:{self._collection}")

    def ended(self) -> bool:
        """Whether it ended well. Raises RuntimeError where it did not end at all."""
        assert self._process is not None
        try:
            return self._process.wait(timeout=LIMIT_SECONDS) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise RuntimeError(f"the training did not end in {LIMIT_SECONDS} s") from None

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process is not None and self._process.poll() is None

    def kept(self) -> int:
        """Epochs of which the state is kept."""
        return max((int(path.stem[-5:]) for path in self.site.glob("models/resume-*/*.state")), default=0)

    def outcome(self) -> dict[str, bytes]:
        """The files of its checkpoint. Raises RuntimeError where something else is left, or the ledger is not whole."""
        verified = self._radia("audit", "verify")
        if verified.wait(timeout=LIMIT_SECONDS) != 0:
            raise RuntimeError("the ledger does not verify")
        half_done = [*self.site.glob("models/resume-*"), *self.site.glob("models/**/.partial-*")]
        if half_done:
            raise RuntimeError(f"left behind: {half_done[0].name}")
        folder = self.site / "models" / "public-chexpert"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def said(self, words: str) -> list[str]:
        """The lines of its log with these words."""
        return [line.strip() for line in self.log.read_text(errors="replace").splitlines() if words in line]

    def last_words(self) -> str:
        """The line that it ended with."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""

    def _radia(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [*PACKAGE, "radia", *arguments]
        return self._machine.call(command, log=self.log, environment={"RADIA_DATA": str(self.site)})


# --- faults ---------------------------------------------------------------------------------------------------------


def _blip(one: Machine, other: Machine, chance: random.Random) -> None:
    _cut_for(BLIP_SECONDS, chance.choice((one, other)))


def _cut(one: Machine, other: Machine, chance: random.Random) -> None:
    _cut_for(CUT_SECONDS, chance.choice((one, other)))


def _cut_for(seconds: float, machine: Machine) -> None:
    machine.cut()
    try:
        time.sleep(seconds)
    finally:
        machine.mend()


def _kill_other(_one: Machine, other: Machine, _chance: random.Random) -> None:
    for pid in other.raylets():
        os.kill(pid, signal.SIGKILL)


def _kill_head(one: Machine, _other: Machine, _chance: random.Random) -> None:
    for pid in one.raylets():
        os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Fault:
    """words: for the table. loses: whether workers must have been lost, for it to have been what it says."""

    words: str
    inject: Callable[[Machine, Machine, random.Random], None]
    loses: bool


FAULTS = {
    "blip": Fault(f"network between two Ray nodes cut for {BLIP_SECONDS} s of a training", _blip, False),
    "cut": Fault(f"network between two Ray nodes cut for {CUT_SECONDS} s: one counts as lost", _cut, True),
    "raylet": Fault("kill -9 of Ray on one of two nodes that train", _kill_other, True),
    "head": Fault("kill -9 of Ray on its first node, where the training was called", _kill_head, True),
}

BETWEEN = ("blip", "cut", "raylet")
"""Those in which the machine on which the training was called goes on."""


def network_cut(times: int, *, kinds: Sequence[str] = BETWEEN, seed: int = 0) -> list[Injection]:
    """Injects each kind of fault so many times, each into a training of its own, all on one cluster.

    Leaves nothing running. Its folder is kept where one did not survive, and said. Raises RuntimeError where the
    cluster cannot be made (see why_not) or an undisturbed training does not end well.
    """
    if why := why_not():
        raise RuntimeError(why)
    home, chance = Path(tempfile.mkdtemp(prefix="radia-ray-")), random.Random(seed)
    collection = home / "CheXpert-v1.0-small"
    write_collection(collection)
    found: list[Injection] = []
    with cluster(home) as machines:
        undisturbed = Training(machines[0], collection, home / "undisturbed")
        undisturbed.call()
        if not undisturbed.ended():
            raise RuntimeError(f"an undisturbed training ended with: {undisturbed.last_words()} ({home})")
        expected = undisturbed.outcome()
        for number in range(times):
            for kind in kinds:
                training = Training(machines[0], collection, home / f"{kind}-{number}")
                found.append(_disturbed(training, machines, FAULTS[kind], expected, chance))
                print(found[-1], flush=True)
    if all(one.survived for one in found):
        shutil.rmtree(home)
    else:
        print(f"kept: {home}")
    return found


def _disturbed(
    training: Training,
    machines: tuple[Machine, Machine],
    fault: Fault,
    expected: dict[str, bytes],
    chance: random.Random,
) -> Injection:
    begun = time.monotonic()
    lost, why = 0, ""
    try:
        _await(lambda: all(machine.raylets() for machine in machines), "the cluster")
        training.call()
        _await(lambda: training.kept() > 0 or not training.runs(), "the first epoch", seconds=LIMIT_SECONDS)
        time.sleep(chance.uniform(0, 1))
        if not training.runs() or training.kept() > EPOCHS - 2:
            raise RuntimeError(f"the training ended before the fault: {training.last_words()}")
        fault.inject(*machines, chance)
        while not training.ended():
            why = training.last_words()
            if training.calls == RUNS:
                raise RuntimeError(f"called {RUNS} times, it ended with: {why}")
            _await(lambda: all(machine.raylets() for machine in machines), "the cluster")
            training.call()
        disturbed = len(training.said("all are started again")) + training.calls > 1
        if fault.loses and not disturbed:
            raise RuntimeError("no worker was lost by it")
        if training.outcome() != expected:
            lost = 1
            raise RuntimeError("its outcome is another")
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        why, survived = str(error).splitlines()[0], False
    else:
        survived = True
    recovered = len(training.said("all are started again"))
    return Injection(fault.words, survived, lost, recovered, max(0, training.calls - 1), time.monotonic() - begun, why)


def table(rows: Sequence[Injection]) -> str:
    """The injections as Markdown, a row each."""
    lines = [
        "| fault | survived | data lost | went on by itself | called again | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        fate = "yes" if row.survived else f"no: {row.why}"
        lines.append(f"| {row.fault} | {fate} | {row.lost} | {row.recovered} | {row.restarts} | {row.seconds:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Exit status 0 where every training survived, 2 where the cluster cannot be made here."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "kinds", nargs="*", choices=[*FAULTS, []], help=f"which; {', '.join(BETWEEN)} where none is named"
    )
    options.add_argument("--times", type=int, default=1)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    if why := why_not():
        print(f"two Ray nodes cannot be made here: {why}")
        return 2
    rows = network_cut(given.times, kinds=given.kinds or BETWEEN, seed=given.seed)
    print(table(rows))
    return 0 if all(row.survived for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
