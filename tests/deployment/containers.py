"""The services of docker-compose.yml without a Docker engine: each a process in Linux namespaces of its own.

What an engine gives a container is given here from the same file: the command, the environment, user 10001 without any
capability, a root file system that cannot be written, tmpfs, volumes, secrets and configs in their places, a process
tree and a host name of its own, health checks, the order of starting, restarts. All share one network namespace that
has no way out, where the services' names are names of this machine. In place of an image stand this machine's /usr and
this checkout with its environment; the cgroup limits of processors are left out.

Needs root and util-linux (unshare, nsenter, setpriv). Leaving the `with` block ends every service.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
USER = 10001
OWN = ("inbox", "landing", "quarantine", "mlartifacts", "dagster", "web")
"""The folders of /data in the image (Dockerfile): a new volume begins as a copy of what it is mounted over."""
CODE = (
    "radia",
    "pipelines",
    "requirements.lock",
    "pyproject.toml",
    "README.md",
    "workspace.yaml",
    "params.yaml",
    "dvc.yaml",
)
"""What the Dockerfile copies."""
START_INTERVAL = 2.0
"""Seconds between health checks of a service that starts."""
WORKDIR = "/opt/radia"
ISOLATED = (
    "setpriv",
    "--pdeathsig=KILL",
    "unshare",
    "--mount",
    "--uts",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--propagation=private",
)
_CLONE_NEWNET = 0x40000000


def why_not() -> str:
    """What this machine lacks; empty where containers can be made."""
    if os.geteuid() != 0:
        return "needs root, for Linux namespaces"
    missing = [name for name in ("unshare", "nsenter", "setpriv", "ip") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (util-linux, iproute2)"
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "this machine allows no namespaces"


def leave_the_network() -> None:
    """From now on this process and its children reach themselves alone."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@dataclass
class Container:
    """One service that was started."""

    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)

    @property
    def first(self) -> int:
        """The process that is number 1 inside."""
        return _children(self.process.pid)[0]

    @property
    def ended(self) -> int | None:
        """Its exit status, None while it runs."""
        return self.process.poll()


class Engine:
    """Runs the services of a compose file; `with` ends them all."""

    def __init__(
        self,
        home: Path,
        *,
        params: Path,
        secrets: Path,
        profiles: Sequence[str] = (),
        volumes: Mapping[str, str] | None = None,
        clock_can_jump: bool = False,
    ) -> None:
        """home: where volumes and logs lie. volumes: options of a tmpfs that takes a volume's place, by its name.

        clock_can_jump: see set_clock; needs a C compiler.
        """
        self.home, self._secrets = home, secrets
        self.clock_can_jump = clock_can_jump
        text = _interpolated((CHECKOUT / "docker-compose.yml").read_text(), {"RADIA_PARAMS_FILE": str(params)})
        self.compose: dict[str, Any] = yaml.safe_load(text)
        self.services: dict[str, Any] = {
            name: one
            for name, one in self.compose["services"].items()
            if not one.get("profiles") or set(one["profiles"]) & set(profiles)
        }
        self.running: dict[str, Container] = {}
        self.restarts: dict[str, int] = dict.fromkeys(self.services, 0)
        """How often each had to be started again that ended by itself."""
        self._killed: set[str] = set()
        self._wanted: set[str] = set()
        self._well: set[str] = set()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._tmpfs = dict(volumes or {})
        self._make_places()
        threading.Thread(target=self._restart_ended, name="restarts", daemon=True).start()

    def __enter__(self) -> Engine:
        """The engine. Who ends this process ends the services too."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        return self

    def __exit__(self, *_: object) -> None:
        """Ends every service, whatever happened."""
        self._over.set()
        for name in reversed(list(self.running)):
            self.stop(name, seconds=10)
        for name in self._tmpfs:
            subprocess.run(["umount", "--lazy", str(self.volume(name))], check=False)

    # --- places -----------------------------------------------------------------------------------------------------

    def volume(self, name: str) -> Path:
        """Where a volume lies on this machine."""
        return self.home / "volumes" / name

    def log(self, name: str) -> Path:
        """What a service said."""
        return self.home / "logs" / f"{name}.log"

    def _make_places(self) -> None:
        for folder in ("volumes", "logs", "roots"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        image = self.home / "image"
        for name in ("anchor", "backup", *(f"data/{one}" for one in OWN)):
            (image / name).mkdir(parents=True, exist_ok=True)
        _give(image)
        for name in self.compose["volumes"]:
            self._make_volume(name)
        (self.home / "etc").mkdir(exist_ok=True)
        names = " ".join(self.compose["services"])
        (self.home / "etc" / "hosts").write_text(f"127.0.0.1 localhost {names}\n")
        (self.home / "etc" / "passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\nradia:x:{USER}:{USER}::/home/radia:/bin/sh\n"
        )
        (self.home / "etc" / "group").write_text(f"root:x:0:\nradia:x:{USER}:\n")
        shutil.copyfile("/usr/share/zoneinfo/Etc/UTC", self.home / "etc" / "localtime")
        (self.home / "etc" / "nsswitch.conf").write_text("hosts: files\npasswd: files\ngroup: files\n")
        if self.clock_can_jump:
            build = ["cc", "-O2", "-shared", "-fPIC", "-o", str(self.home / "etc" / "clock.so")]
            subprocess.run([*build, str(Path(__file__).with_name("clock.c"))], check=True)
            self.set_clock(0)

    def _make_volume(self, name: str) -> None:
        place = self.volume(name)
        place.mkdir(exist_ok=True)
        if name in self._tmpfs:
            subprocess.run(["mount", "-t", "tmpfs", "-o", self._tmpfs[name], "none", str(place)], check=True)
        if name == "data" and not any(place.iterdir()):
            for one in OWN:
                (place / one).mkdir()
        _give(place)

    # --- life -------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Starts all services, each when those that it depends on are well or done. Raises RuntimeError."""
        waiting = list(self.services)
        while waiting:
            ready = [name for name in waiting if all(self._is_met(*need) for need in self._needs(name))]
            for name in ready:
                self.start(name)
                waiting.remove(name)
            if not ready:
                time.sleep(START_INTERVAL)
        for name, one in self.services.items():
            if "healthcheck" in one:
                self.await_condition(name, "service_healthy")

    def _needs(self, name: str) -> list[tuple[str, str]]:
        needs = self.services[name].get("depends_on", {})
        return [(other, wanted["condition"]) for other, wanted in needs.items()]

    def _is_met(self, name: str, condition: str) -> bool:
        """Whether a dependency is as it must be. Raises RuntimeError where it never will be."""
        one = self.running.get(name)
        if one is None:
            return False
        if self.restarts[name] > 3 or (condition == "service_completed_successfully" and one.ended):
            raise RuntimeError(f"{name} did not get {condition}:\n{self.said(name)}")
        if condition == "service_completed_successfully":
            return one.ended == 0
        if name not in self._well and one.ended is None and self.is_well(name):
            self._well.add(name)
        return name in self._well

    def await_condition(self, name: str, condition: str, *, seconds: float = 240) -> None:
        """Waits as `depends_on` does. Raises RuntimeError with the end of the service's log."""
        deadline = time.monotonic() + seconds
        while not self._is_met(name, condition):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not {condition} after {seconds:.0f} s:\n{self.said(name)}")
            time.sleep(START_INTERVAL)

    def is_well(self, name: str) -> bool:
        """The answer of the service's own health check."""
        check = self.services[name].get("healthcheck", {}).get("test")
        return check is None or self.execute(name, *check[1:], quiet=True).returncode == 0

    def start(self, name: str) -> None:
        """Starts a service, or starts it again."""
        with self._lock:
            self._wanted.add(name)
            self._well.discard(name)
            root = self.home / "roots" / f"{name}-{time.monotonic_ns()}"
            root.mkdir()
            script = root.with_suffix(".sh")
            script.write_text(self._script(name, root))
            with self.log(name).open("ab") as sink:
                os.fchown(sink.fileno(), USER, USER)  # as engines do: nginx opens /dev/stdout anew
                process = subprocess.Popen(
                    [*ISOLATED, "sh", "-eu", str(script)], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
                )
            self.running[name] = Container(process)

    def stop(self, name: str, *, seconds: float | None = None) -> int:
        """Asks a service to end, and after its grace period makes it. Its exit status."""
        with self._lock:
            self._wanted.discard(name)
        one = self.running[name]
        if one.ended is None:
            _signal(one, signal.SIGTERM)
            grace = seconds or float(str(self.services[name].get("stop_grace_period", "10s")).rstrip("s"))
            try:
                one.process.wait(timeout=grace)
            except subprocess.TimeoutExpired:
                self.kill(name)
        return int(one.process.wait())

    def kill(self, name: str) -> None:
        """kill -9 of everything in a container; its restart policy does the rest."""
        one = self.running[name]
        with self._lock:
            self._killed.add(name)
        _signal(one, signal.SIGKILL)
        one.process.wait()

    def set_clock(self, seconds: int) -> None:
        """So far from this machine's time all services' clocks stand from now on."""
        handle = os.open(self.home / "etc" / "clock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.pwrite(handle, f"{seconds:<15}\0".encode(), 0)  # in place: the processes have it mapped
        finally:
            os.close(handle)

    def pids(self, name: str) -> list[int]:
        """The service's processes, as this machine counts them, without the one that looks after the others."""
        found: list[int] = []
        waiting = list(_children(self.running[name].first))
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting += _children(pid)
        return found

    def _restart_ended(self) -> None:
        while not self._over.wait(0.2):
            with self._lock:
                for name in list(self._wanted):
                    one = self.running.get(name)
                    again = self.services[name].get("restart") == "unless-stopped"
                    if again and one is not None and one.ended is not None and time.monotonic() - one.started > 1:
                        self.restarts[name] += name not in self._killed
                        self._killed.discard(name)
                        self.start(name)

    # --- inside -----------------------------------------------------------------------------------------------------

    def execute(
        self, name: str, *command: str, quiet: bool = False, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command in a service's container, as `docker compose exec` does. Raises RuntimeError unless quiet."""
        try:
            inner = _children(self.running[name].first)[0]
        except IndexError:
            if quiet:
                return subprocess.CompletedProcess(command, 125)
            raise RuntimeError(f"{name} does not run:\n{self.said(name)}") from None
        enter = ["nsenter", "--target", str(inner), "--mount", "--uts", "--pid", "--root", "--wd"]
        done = subprocess.run([*enter, *self._as_user(name, command)], input=stdin, capture_output=True)
        if done.returncode and not quiet:
            raise RuntimeError(f"{name}: {shlex.join(command)} ended with {done.returncode}:\n{done.stderr.decode()}")
        return done

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Another command in a new container of a service, as `docker compose run --rm` does. Raises RuntimeError."""
        root = self.home / "roots" / f"{name}-{time.monotonic_ns()}"
        root.mkdir()
        script = root.with_suffix(".sh")
        script.write_text(self._script(name, root, command))
        done = subprocess.run([*ISOLATED, "sh", "-eu", str(script)], stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {shlex.join(command)} ended with {done.returncode}:\n{done.stderr.decode()}")
        return done

    def said(self, name: str, lines: int = 30) -> str:
        """The end of a service's log."""
        path = self.log(name)
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.is_file() else ""

    def _as_user(self, name: str, command: Sequence[str]) -> list[str]:
        drop = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
        variables = [f"{key}={value}" for key, value in self._environment(name).items()]
        return [
            "/usr/bin/setpriv",
            *drop,
            "--no-new-privs",
            "/usr/bin/env",
            "-i",
            "--default-signal=INT,QUIT",
            *variables,
            *command,
        ]

    def _environment(self, name: str) -> dict[str, str]:
        base = {
            "PATH": f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "HOME": "/home/radia",
            "LANG": "C.UTF-8",
        }
        given = self.compose["services"][name].get("environment", {})
        base |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": WORKDIR}  # wherever else it is installed
        if self.clock_can_jump:
            base["LD_PRELOAD"] = "/etc/clock.so"
        return base | {key: str(value) for key, value in given.items()}

    def _script(self, name: str, root: Path, command: Sequence[str] = ()) -> str:
        one, shell = self.compose["services"][name], _Script(root)
        shell.add("mount", "-t", "tmpfs", "-o", "mode=755", "none", str(root))
        shell.bind(Path("/usr"), "/usr")
        for link in ("bin", "sbin", "lib", "lib32", "lib64"):
            if (Path("/") / link).is_symlink():
                shell.add("ln", "-s", str((Path("/") / link).readlink()), f"{root}/{link}")
        for place in CODE:
            shell.bind(CHECKOUT / place, f"{WORKDIR}/{place}")
        for place in (sys.prefix, sys.base_prefix):  # Python and its packages
            shell.bind(Path(place), place)
        for place in (Path("/etc/ld.so.cache"), Path("/etc/ssl"), Path("/etc/alternatives"), Path("/etc/mime.types")):
            if place.exists():
                shell.bind(place, str(place))
        for file in (self.home / "etc").iterdir():
            shell.bind(file, f"/etc/{file.name}")
        shell.devices(one.get("shm_size", "64m"))
        shell.bind(self.home / "image" / "data", "/data")
        for place in ("anchor", "backup"):
            shell.bind(self.home / "image" / place, f"/{place}")
        for volume in sorted(one.get("volumes", []), key=lambda text: text.split(":")[1]):
            source, target = volume.split(":")[:2]
            shell.bind(self.volume(source), target, writable=True)
        for secret in one.get("secrets", []):
            shell.bind(self._secrets / secret, f"/run/secrets/{secret}")
        for config in one.get("configs", []):
            shell.bind(Path(self.compose["configs"][config["source"]]["file"]), config["target"])
        for place in one.get("tmpfs", []):
            shell.add("mkdir", "-p", f"{root}{place}")
            shell.add("mount", "-t", "tmpfs", "-o", "mode=1777", "none", f"{root}{place}")
        if one["read_only"]:
            shell.add("mount", "-o", "remount,ro,bind", str(root))
        shell.add("hostname", one.get("hostname") or os.urandom(6).hex())
        words = self._as_user(name, command or self._command(name))
        line = shlex.join(["chroot", str(root), "sh", "-c", f"cd {WORKDIR} && exec {shlex.join(words)}"])
        # as an engine's init does: passes SIGTERM on, and ends as the service ends
        shell.lines += [f"{line} & child=$!", "trap 'kill -TERM $child' TERM", "set +e", "wait $child; code=$?"]
        shell.lines += ["while kill -0 $child 2>/dev/null; do wait $child; code=$?; done", "exit $code"]
        return "\n".join(shell.lines)

    def _command(self, name: str) -> list[str]:
        from tests.deployment.images import COMMANDS

        one = self.services[name]
        command = one.get("command") or COMMANDS[name](one.get("environment", {}))
        return [str(word) for word in command]


class _Script:
    """Lines of a shell script that builds a root file system."""

    def __init__(self, root: Path) -> None:
        self.root, self.lines = root, list[str]()

    def add(self, *words: str) -> None:
        """A command."""
        self.lines.append(shlex.join(words))

    def bind(self, source: Path, target: str, *, writable: bool = False) -> None:
        """Shows a file or folder of this machine at a place inside, to be read alone unless writable."""
        place = f"{self.root}{target}"
        if source.is_dir():
            self.add("mkdir", "-p", place)
        else:
            self.add("mkdir", "-p", str(Path(place).parent))
            self.add("touch", place)
        self.add("mount", "--bind", str(source), place)
        if not writable:
            self.add("mount", "-o", "remount,bind,ro", place)

    def devices(self, shared_memory: str) -> None:
        """/proc of its own processes, /sys, and the devices that an engine gives."""
        for folder in ("proc", "sys", "dev"):
            self.add("mkdir", "-p", f"{self.root}/{folder}")
        self.add("mount", "-t", "proc", "proc", f"{self.root}/proc")
        self.add("mount", "--bind", "/sys", f"{self.root}/sys")
        self.add("mount", "-o", "remount,bind,ro", f"{self.root}/sys")
        for device in ("null", "zero", "full", "random", "urandom", "tty"):
            self.add("touch", f"{self.root}/dev/{device}")
            self.add("mount", "--bind", f"/dev/{device}", f"{self.root}/dev/{device}")
        for number, stream in enumerate(("stdin", "stdout", "stderr")):
            self.add("ln", "-s", f"/proc/self/fd/{number}", f"{self.root}/dev/{stream}")
        self.add("ln", "-s", "/proc/self/fd", f"{self.root}/dev/fd")
        self.add("mkdir", f"{self.root}/dev/shm")
        self.add("mount", "-t", "tmpfs", "-o", f"mode=1777,size={shared_memory}", "none", f"{self.root}/dev/shm")


def _interpolated(text: str, values: Mapping[str, str]) -> str:
    """`${NAME:-default}` as compose reads it."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: values.get(found[1], found[2]), text)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal(one: Container, which: signal.Signals) -> None:
    for pid in _children(one.process.pid)[:1]:
        os.kill(pid, which)


def _give(folder: Path) -> None:
    """As the Dockerfile does: to the one who writes there, and to nobody else."""
    for place in (folder, *folder.rglob("*")):
        os.chown(place, USER, USER)
    folder.chmod(0o750)
