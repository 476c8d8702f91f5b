"""The web app under load, and against what would harm it. Run on an idle machine: `python benchmarks/web.py all`.

latency   CPU time from upload to result of a 2500 x 2500 12-bit DICOM, over decoding plus one forward pass
batching  throughput of 16 clients with batches, over the same one image at a time
load      50 clients for 60 s against a real server: errors, p95 over queue length x single-image time
steady    5,000 requests: memory at the end over memory after the first thousand
workers   two processes: memory of each (PSS), weights shared; the model swapped under load without a lost request
hostile   10,000 mutated uploads: status codes, slowest, memory, files left behind

The network is DenseNet-121 at 320 pixels with random weights where time counts, a slim one where only behaviour does.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mutations lie with the tests

SIDE = 320


def model_folder(folder: Path, *, slim: bool, seed: int = 1) -> Path:
    from radia.findings import FINDINGS
    from radia.model import Preprocessing, build, describe, save_checkpoint

    model = build(
        "densenet-slim" if slim else "densenet121", preprocessing=Preprocessing(64 if slim else SIDE), seed=seed
    )
    save_checkpoint(folder, model, describe(model, thresholds=dict.fromkeys(FINDINGS, 0.4)))
    return folder


def site_with_model(root: Path, *, slim: bool) -> Path:
    from radia import registry
    from radia.workspace import Workspace

    registry.register_champion(Workspace(root), model_folder(root / "first", slim=slim), description="benchmark")
    return root


def chest(side: int) -> np.ndarray:
    """A phantom in 0..1, enlarged to any side."""
    from PIL import Image

    from radia.synthetic.phantom import examples

    return np.asarray(Image.fromarray(examples(1, seed=3, side=512)[0]).resize((side, side)), np.float32) / 255


def dicom(side: int, syntax: str = "explicit") -> bytes:
    """Twelve bits, with a complete header of the embedded hospital."""
    from radia.synthetic.hospital import encode_exam, plan_hospital

    exam = replace(plan_hospital(10, 1)[0].exam, syntax=syntax, bits=12, traps=())
    return encode_exam(exam, chest(side))


def png(side: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.rint(chest(side) * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


# --- in this process ------------------------------------------------------------------------------------------------


def latency(given: argparse.Namespace) -> dict[str, Any]:
    from radia.explain import explained
    from radia.images import letterbox
    from radia.predict import predict
    from radia.web import create_app
    from radia.web.imaging import read_film
    from radia.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        client = create_app(Workspace(site_with_model(Path(folder), slim=False)), open_demo=True).test_client()
        shared = client.application.extensions["radia"]
        model, side = shared.model.now().model, max(SIDE, shared.settings.images.side)
        found: dict[str, Any] = {}
        for syntax in ("explicit", "jpeg-lossless", "jpeg-2000"):
            content = dicom(2500, syntax)
            small = letterbox(read_film(content).gray, side)[None]

            def asked(address: str, content: bytes = content) -> None:
                answer = client.post(address, data={"image": (io.BytesIO(content), "film.dcm")})
                assert answer.status_code == 200, answer.data[:300]

            work: dict[str, Callable[[], Any]] = {
                "decode": lambda content=content: read_film(content).gray,
                "forward": lambda small=small: predict(model, small),
                "forward with maps": lambda small=small: explained(model, small),
                "API": lambda: asked("/api/predict"),
                "page": lambda: asked("/demo/read"),
                "film": lambda: asked("/demo/film"),
            }
            seconds = interleaved(work, given.repeats)
            bare = seconds["decode"] + seconds["forward"]
            found[syntax] = {
                **{name: round(value, 3) for name, value in seconds.items()},
                "API / (decode + forward)": round(seconds["API"] / bare, 2),
                "page / (decode + forward)": round(seconds["page"] / bare, 2),
            }
    return found


def interleaved(work: dict[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """The median CPU seconds of each, of all threads, taken in turns: a busy machine slows all alike."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(times + 1):
        for name, task in work.items():
            began = time.process_time()
            task()
            if turn:
                taken[name].append(time.process_time() - began)
    return {name: float(np.median(values)) for name, values in taken.items()}


def batching(given: argparse.Namespace) -> dict[str, Any]:
    from radia.explain import explained
    from radia.model import Preprocessing, build
    from radia.web.batching import LARGEST, Batches

    found: dict[str, Any] = {}
    for backbone, side in (("densenet121", SIDE), ("densenet-slim", 128)):
        model = build(backbone, preprocessing=Preprocessing(side), seed=1).eval()
        image = np.random.default_rng(0).integers(0, 256, (384, 384), dtype=np.uint8)

        def answer(_group: object, questions: Any, model: Any = model) -> list[Any]:
            said = explained(model, np.stack(questions))
            return list(zip(said.probabilities, said.features, said.maps, strict=True))

        seconds: dict[str, list[tuple[float, float]]] = {"one by one": [], "batches": []}
        for turn in range(3):
            for name, largest in (("one by one", 1), ("batches", LARGEST)):
                waiting: Batches[object, Any, Any] = Batches(answer, largest=largest)
                began, used = time.perf_counter(), time.process_time()
                with ThreadPoolExecutor(16) as pool:
                    list(pool.map(lambda _: waiting.ask(model, [image]), range(given.images)))  # noqa: B023
                if turn:
                    seconds[name].append((time.perf_counter() - began, time.process_time() - used))
        wall, cpu = (
            {name: float(np.median([pair[k] for pair in pairs])) for name, pairs in seconds.items()} for k in (0, 1)
        )
        found[backbone] = {
            "one by one /s": round(given.images / wall["one by one"], 2),
            "batches /s": round(given.images / wall["batches"], 2),
            "ratio": round(wall["one by one"] / wall["batches"], 2),
            "ratio of CPU time": round(cpu["one by one"] / cpu["batches"], 2),
        }
    return found


def hostile(asked: argparse.Namespace) -> dict[str, Any]:
    import psutil

    from radia.web import create_app
    from radia.workspace import Workspace
    from tests.spec.hostile_uploads import hostile as mutated
    from tests.spec.hostile_uploads import seeds_of

    syntaxes = ("explicit", "implicit", "rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000")
    seeds = seeds_of(np.rint(chest(160) * 255).astype(np.uint8), [dicom(160, syntax) for syntax in syntaxes])
    with tempfile.TemporaryDirectory() as folder:
        root = site_with_model(Path(folder), slim=True)
        client = create_app(Workspace(root), open_demo=True).test_client()
        for address in ("/api/predict", "/api/report/structured-report"):
            client.post(address, data={"image": (io.BytesIO(seeds[-1]), "x")})
        before = {path for path in root.rglob("*") if "ledger" not in path.name}
        process, statuses = psutil.Process(), Counter[int]()
        addresses = ("/api/predict", "/demo/read", "/demo/film", "/api/report/secondary-capture")
        seconds, memory = [], []
        for number, (name, content) in enumerate(mutated(seeds, asked.uploads, seed=asked.seed)):
            began = time.process_time()
            answer = client.post(addresses[number % 4], data={"image": (io.BytesIO(content), name)})
            seconds.append(time.process_time() - began)
            statuses[answer.status_code] += 1
            memory.append(process.memory_info().rss)
            if answer.status_code >= 500:
                print(number, addresses[number % 4], answer.data[:200], file=sys.stderr)
        left = {path for path in root.rglob("*") if "ledger" not in path.name} - before
    warm = memory[len(memory) // 10]
    return {
        "uploads": len(seconds),
        "statuses": {str(code): count for code, count in sorted(statuses.items())},
        "slowest, CPU s": round(max(seconds), 2),
        "which": int(np.argmax(seconds)),
        "p99, CPU s": round(float(np.percentile(seconds, 99)), 2),
        "memory after a tenth MB": warm >> 20,
        "greatest later MB": max(memory[len(memory) // 10 :]) >> 20,
        "at the end MB": memory[-1] >> 20,
        "files left": len(left),
    }


# --- against a real server ------------------------------------------------------------------------------------------


class Server:
    """`radia web` in processes of its own."""

    def __init__(self, root: Path, *, workers: int = 1) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        command = [
            sys.executable,
            "-m",
            "radia",
            "web",
            "--port",
            str(self.port),
            "--open-demo",
            "--workers",
            str(workers),
        ]
        self.process = subprocess.Popen(
            command, env={**os.environ, "RADIA_DATA": str(root)}, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while True:
            try:
                if self.ask(png(256))[0] == 200:
                    return
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.5)

    def ask(self, content: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            return post(connection, content)
        finally:
            connection.close()

    def processes(self) -> list[int]:
        import psutil

        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children] or [self.process.pid]

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(60)


BOUNDARY = "radia-benchmark"


def body(content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(connection: http.client.HTTPConnection, content: bytes) -> tuple[int, bytes]:
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", "/api/predict", body(content), kind)
    answer = connection.getresponse()
    return answer.status, answer.read()


def clients(
    server: Server, count: int, content: bytes, *, until: Callable[[int], bool]
) -> tuple[list[float], Counter[str]]:
    """Seconds of each answered request and what was answered, until `until` (given the requests so far) says so."""
    seconds: list[float] = []
    answered: Counter[str] = Counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        while not until(len(seconds)):
            began = time.perf_counter()
            try:
                status, said = post(connection, content)
            except OSError as error:
                answered[type(error).__name__] += 1
                connection.close()
                continue
            seconds.append(time.perf_counter() - began)
            answered[f"{status} {json.loads(said).get('model', '')}"] += 1
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds, answered


def load(asked: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(site_with_model(Path(folder), slim=False))
        try:
            content = png(1024)
            alone, _ = clients(server, 1, content, until=lambda done: done >= 12)
            single = float(np.median(alone[2:]))
            end = time.monotonic() + asked.seconds
            seconds, answered = clients(server, 50, content, until=lambda _: time.monotonic() > end)
        finally:
            server.end()
    p95 = float(np.percentile(seconds, 95))
    return {
        "single image s": round(single, 3),
        "requests": len(seconds),
        "answers": dict(answered),
        "p50 s": round(float(np.median(seconds)), 2),
        "p95 s": round(p95, 2),
        "p95 / (50 x single)": round(p95 / (50 * single), 2),
    }


def steady(asked: argparse.Namespace) -> dict[str, Any]:
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        server = Server(site_with_model(Path(folder), slim=True))
        try:
            (process,) = server.processes()
            content, memory, answered = png(512), [], Counter[str]()
            for _ in range(asked.requests // 500):
                _, told = clients(server, 8, content, until=lambda done: done >= 500)
                answered += told
                memory.append(psutil.Process(process).memory_info().rss >> 20)
        finally:
            server.end()
    return {
        "answers": dict(answered),
        "memory MB, every 500": memory,
        "last / second": round(memory[-1] / memory[1], 3),
    }


def workers(_: argparse.Namespace) -> dict[str, Any]:
    from radia import registry
    from radia.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        root = site_with_model(Path(folder), slim=False)
        second = model_folder(root / "second", slim=False, seed=2)
        server = Server(root, workers=2)
        try:
            content = png(512)
            clients(server, 8, content, until=lambda done: done >= 60)
            memory = [_memory(process) for process in server.processes()]
            end = time.monotonic() + 40
            swap = threading.Timer(8, lambda: registry.register_champion(Workspace(root), second, description="second"))
            swap.start()
            _, answered = clients(server, 8, content, until=lambda _: time.monotonic() > end)
            swap.join()
        finally:
            server.end()
    return {"processes": memory, "answers around the exchange": dict(answered)}


def _memory(process: int) -> dict[str, int]:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    whole = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    weights = [0, 0]
    inside = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith("model.safetensors")
        elif inside and line.startswith(("Rss", "Pss:")):
            weights[line.startswith("Pss")] += int(line.split()[1])
    return {
        "RSS MB": whole["Rss"] >> 10,
        "PSS MB": whole["Pss"] >> 10,
        "of it weights, RSS kB": weights[0],
        "of it weights, PSS kB": weights[1],
    }


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    part.__name__: part for part in (latency, batching, load, steady, workers, hostile)
}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("part", choices=[*PARTS, "all"])
    given.add_argument("--seconds", type=float, default=60)
    given.add_argument("--requests", type=int, default=5000)
    given.add_argument("--uploads", type=int, default=10_000)
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--repeats", type=int, default=9)
    given.add_argument("--images", type=int, default=48)
    asked = given.parse_args()
    for name in PARTS if asked.part == "all" else [asked.part]:
        print(json.dumps({name: PARTS[name](asked)}, indent=1), flush=True)


if __name__ == "__main__":
    main()
