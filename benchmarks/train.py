"""Speed of the training loop against its rivals, in ratios of one run.

Runs alone, from a checkout: no orchestration, no tracking; torch, torchvision, lightning-fabric, safetensors, numpy,
pydantic, pyyaml, pillow; with pandas and pyarrow, images come from real shards, else from one memory-mapped file.

    python benchmarks/train.py [--quick] [--sides 224 320 512] [--whole] [--rival FOLDER] [--out FILE]

| ratio | what over what | bar |
|---|---|---|
| loop / constant tensor | the step fed from shards by the product's loader, over the step fed one tensor | 0.95 |
| bf16 nhwc / fp32 nchw | the same step, images a second | CPU 2, GPU 5 (compiled) |
| compiled / eager | bf16 channels_last | GPU 1.3 |
| augmentation / step | time of to_input with augmentation less that without, over the step's | GPU 0.03 |
| bytes / roofline | a plain copy's time for the bytes that the step must move, over the step's time | GPU 0.65 |
| loader / torchxrayvision's | images a second of the loaders alone, with augmentation, the same images | |
| loop / torchxrayvision's | images a second of the same step, fed by either | |

--whole trains, by the product's own fit, on 10,000 images for 10 epochs at 320 px, validates after each on 1,000
others, and tells the seconds from the call to the calibrated model (bar: 75 on an H100).

torchxrayvision's is the loader of its scripts/train_model.py and train_utils.py: CheX_Dataset over JPEG files, center
crop, resize, RandomAffine, DataLoader. Where it is missing: pip install --no-deps --target FOLDER torchxrayvision
scikit-image imageio tqdm lazy-loader tifffile, and --rival FOLDER.

On a CPU times are processor time of one thread (what else the machine does does not count; the rival's loader runs in
this process then); on a GPU they are wall time with the device synchronised, and the rival has its 8 processes. Both
sides of a ratio are measured in turn, several times; the median of the turns' ratios stands.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a GPU machine has the checkout, not the installation

from radia.fit.batches import Batch, Feed, Pixels
from radia.fit.draws import draw_augmentation
from radia.fit.loss import cross_entropy
from radia.fit.setup import optimizer_of
from radia.fit.step import gradients
from radia.fit.workers import open_fabric
from radia.model import ChestModel, Preprocessing, build, to_input
from radia.settings import FinetuneSettings

STUDIES, EPOCHS, AT = 10_000, 10, 320
"""What a hospital's training is reckoned by: studies, epochs, pixels along an edge."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    backbone: str
    batch: int
    steps: int
    turns: int
    cuda: bool

    @property
    def device(self) -> str:
        return "cuda" if self.cuda else "cpu"

    def clock(self) -> float:
        """Seconds of the wall on a GPU, of the processor otherwise."""
        if not self.cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        start = self.clock()
        work()
        return self.clock() - start

    def in_turn(self, *works: Callable[[], object]) -> list[list[float]]:
        """Seconds of each work in each turn, after one turn to warm up: [turns, works]."""
        for work in works:
            work()
        return [[self.seconds(work) for work in works] for _ in range(self.turns)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps and turns: what a CPU does by itself")
    parser.add_argument("--backbone")
    parser.add_argument("--sides", type=int, nargs="+")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--turns", type=int)
    parser.add_argument("--whole", action="store_true", help=f"{STUDIES} images, {EPOCHS} epochs, by radia.fit")
    parser.add_argument("--rival", help="a folder of packages that holds torchxrayvision")
    parser.add_argument("--out", type=Path, help="JSON, for benchmarks/results")
    asked = parser.parse_args()
    if asked.rival:
        sys.path.append(asked.rival)
    cuda = torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(1)
    few = asked.quick or not cuda
    plan = Plan(
        asked.backbone or ("densenet121" if cuda else "densenet-slim"),
        asked.batch or (64 if cuda else 16),
        asked.steps or (4 if few else 30),
        asked.turns or (3 if few else 5),
        cuda,
    )
    sides = asked.sides or ([224, AT, 512] if cuda else [128, AT])
    if not cuda:
        print("no GPU: compiled against eager, and the shares of a GPU's step, are skipped", file=sys.stderr)
    results = [of_side(plan, side) for side in sides]
    report = {
        "machine": torch.cuda.get_device_name() if cuda else f"{processor()}, one thread",
        "torch": str(torch.__version__),
        "backbone": plan.backbone,
        "batch": plan.batch,
        "steps": plan.steps,
        "turns": plan.turns,
        "time": "wall" if cuda else "processor",
        "sides": results,
    }
    for result in results:
        if result["side"] == AT:
            rate = result["images_per_second"]["the loop"]
            taken = STUDIES * EPOCHS / rate
            report["computed"] = (
                f"{STUDIES} studies x {EPOCHS} epochs at {AT} px: {taken:.0f} s, computed from {rate} images/s "
                "measured; validation and the start are not in it"
            )
    if asked.whole:
        report["whole training"] = whole(plan)
    text = json.dumps(report, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


def whole(plan: Plan) -> dict[str, Any]:
    """Seconds of a hospital's training, from the call of fit to the calibrated model, and what they went into."""
    from radia.fit import fit

    judged = STUDIES // 10
    losses: list[float] = []
    seconds: list[float] = []
    with TemporaryDirectory() as folder:
        collection = Collection(Path(folder), STUDIES + judged, AT, files=False)
        rng = np.random.default_rng(0)
        targets = (rng.random((collection.count, 14)) < 0.2).astype(np.float32)
        train = np.arange(collection.count) < STUDIES
        settings = FinetuneSettings(backbone="densenet121", epochs=EPOCHS, batch_size=plan.batch, side=AT)
        model = build("densenet121", preprocessing=Preprocessing(AT))
        start = plan.clock()

        def ended(entry: Mapping[str, Any], _probabilities: Any) -> None:
            losses.append(round(entry["loss"], 4))
            seconds.append(plan.clock() - start)

        fit(
            model,
            images=collection.store,
            ids=collection.ids,
            targets=targets,
            weights=np.ones_like(targets),
            train=train,
            validation=~train,
            settings=settings,
            seed=0,
            on_epoch=ended,
        )
        taken = plan.clock() - start
    steady = [later - before for before, later in pairwise(seconds)]
    return {
        "images": STUDIES,
        "validation images": judged,
        "epochs": EPOCHS,
        "side": AT,
        "batch": plan.batch,
        "seconds": round(taken, 1),
        "seconds to the end of epoch 1": round(seconds[0], 1),
        "seconds of an epoch after it": round(median(steady), 2),
        "losses": losses,
    }


def processor() -> str:
    """The processor's name, as Linux has it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def of_side(plan: Plan, side: int) -> dict[str, Any]:
    kinds = {"fp32 nchw": ("32-true", False, False), "bf16 nhwc": ("bf16-mixed", True, False)}
    if plan.cuda:
        kinds["bf16 nhwc compiled"] = ("bf16-mixed", True, True)
    steps = {kind: Step(plan, side, *how) for kind, how in kinds.items()}
    best = steps[list(kinds)[-1]]
    batch = best.constant_batch()

    def repeated(step: Step) -> Callable[[], object]:
        return lambda: [step(batch) for _ in range(plan.steps)]

    turns = plan.in_turn(*map(repeated, steps.values()))
    images = plan.batch * plan.steps
    rates = {kind: images / median(turn[k] for turn in turns) for k, kind in enumerate(kinds)}
    ratios = {"bf16 nhwc / fp32 nchw": median(turn[0] / turn[-1] for turn in turns)}
    if plan.cuda:
        ratios["compiled / eager"] = median(turn[1] / turn[2] for turn in turns)
    a_step = median(turn[-1] for turn in turns) / plan.steps
    ratios["augmentation / step"] = best.augmentation(batch) / a_step
    ratios["bytes / roofline"] = best.least_seconds() / a_step
    with TemporaryDirectory() as folder:
        collection = Collection(Path(folder), plan.batch * plan.steps, side)
        fed, rates["the loop"] = loop(plan, best, collection, batch)
        ratios["loop / constant tensor"] = fed
        rival = torchxrayvision(plan, best, collection)
    return {
        "side": side,
        "shards": collection.kind,
        "images_per_second": {kind: round(rate, 1) for kind, rate in (rates | rival[0]).items()},
        "ratios": {name: round(ratio, 3) for name, ratio in (ratios | rival[1]).items()},
    }


def loop(plan: Plan, step: Step, collection: Collection, batch: Batch) -> tuple[float, float]:
    """Images a second of the step as it is fed, over those of the step on one tensor; and the former."""
    feed = collection.feed(step.fabric.device)
    numbers = iter(range(10**9))

    def fed() -> None:
        for one in feed(collection.drawn(plan, next(numbers))):
            step(one)

    turns = plan.in_turn(lambda: [step(batch) for _ in range(plan.steps)], fed)
    return median(turn[0] / turn[1] for turn in turns), plan.batch * plan.steps / median(turn[1] for turn in turns)


def torchxrayvision(plan: Plan, step: Step, collection: Collection) -> tuple[dict[str, float], dict[str, float]]:
    """Images a second of its training script's loader, alone and before our step; and what ours are times that."""
    try:
        import torchxrayvision as xrv
    except ImportError as error:
        print(f"torchxrayvision's loader is skipped: {error.name} is missing (see --rival)", file=sys.stderr)
        return {}, {}
    import torchvision

    side, device = collection.side, step.fabric.device
    augment = torchvision.transforms.Compose(
        [
            xrv.datasets.ToPILImage(),
            torchvision.transforms.RandomAffine(45, translate=(0.15, 0.15), scale=(0.85, 1.15)),
            torchvision.transforms.ToTensor(),
        ]
    )
    shape = torchvision.transforms.Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(side)])
    dataset = xrv.datasets.CheX_Dataset(
        imgpath=str(collection.folder / NAME),
        csvpath=str(collection.folder / NAME / "train.csv"),
        transform=shape,
        data_aug=augment,
        unique_patients=False,
    )
    workers = min(8, os.cpu_count() or 1) if plan.cuda else 0
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=plan.batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=plan.cuda,
        persistent_workers=workers > 0,  # their start counts no more than ours does
    )
    target = torch.zeros(plan.batch, 14, device=device)

    def theirs() -> Iterator[Any]:
        for samples in loader:
            yield samples["img"].float().to(device)

    def theirs_trained() -> None:
        for x in theirs():
            step.on_input(x, Batch(np.arange(plan.batch), x, target, torch.ones_like(target), None, 14.0 * plan.batch))

    feed, numbers = collection.feed(device), iter(range(10**9))

    def ours() -> None:
        for one in feed(collection.drawn(plan, next(numbers))):
            to_input(one.pixels, step.model.preprocessing, one.draws)

    def ours_trained() -> None:
        for one in feed(collection.drawn(plan, next(numbers))):
            step(one)

    turns = plan.in_turn(lambda: list(theirs()), ours, theirs_trained, ours_trained)
    images = plan.batch * plan.steps
    rates = {
        "torchxrayvision's loader": images / median(turn[0] for turn in turns),
        "our loader": images / median(turn[1] for turn in turns),
        "our step behind torchxrayvision's loader": images / median(turn[2] for turn in turns),
    }
    ratios = {
        "loader / torchxrayvision's": median(turn[0] / turn[1] for turn in turns),
        "loop / torchxrayvision's": median(turn[2] / turn[3] for turn in turns),
    }
    return rates, ratios


# --- images ---------------------------------------------------------------------------------------------------------

NAME = "CheXpert-v1.0-small"


class Collection:
    """Images as JPEG files in CheXpert's layout, and the same images, decoded once, in shards."""

    def __init__(self, folder: Path, count: int, side: int, *, files: bool = True) -> None:
        self.folder, self.side, self.count = folder, side, count
        self.ids = np.array([f"I{number:06d}" for number in range(count)])
        rng = np.random.default_rng(0)
        pixels = self._files(rng) if files else rng.integers(0, 256, (count, side, side), dtype=np.uint8)
        self.store, self.kind = self._stored(pixels)

    def _files(self, rng: np.random.Generator) -> Any:
        from PIL import Image

        folder, count, side = self.folder, self.count, self.side
        pixels = np.empty((count, side, side), np.uint8)
        rows = []
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
            shown = np.clip(smooth + rng.normal(0, 6, (side, side)), 0, 255).astype(np.uint8)
            path = Path(NAME, "train", f"patient{number:05d}", "study1", "view1_frontal.jpg")
            (folder / path).parent.mkdir(parents=True)
            Image.fromarray(shown).save(folder / path, quality=90)
            pixels[number] = np.asarray(Image.open(folder / path))
            rows.append({"Path": str(path), "Sex": "Male", "Age": 50, "Frontal/Lateral": "Frontal", "AP/PA": "PA"})
        with (folder / NAME / "train.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, [*rows[0], "No Finding", "Edema"], restval="0")
            table.writeheader()
            table.writerows(rows)
        return pixels

    def _stored(self, pixels: Any) -> tuple[Pixels, str]:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq

            from radia.images import INDEX, ImageStore
        except ImportError:
            np.save(self.folder / "pixels.npy", pixels)
            return _Mapped(np.load(self.folder / "pixels.npy", mmap_mode="r")), "one memory-mapped file"
        batch = self.folder / "images" / "batch"
        batch.mkdir(parents=True)
        for shard, part in enumerate(np.array_split(pixels, 4)):
            (batch / f"shard-{shard:05d}.u8").write_bytes(part.tobytes())
        lengths = [len(part) for part in np.array_split(pixels, 4)]
        columns = {
            "image": self.ids.tolist(),
            "batch": ["batch"] * self.count,
            "shard": [f"shard-{shard:05d}.u8" for shard, length in enumerate(lengths) for _ in range(length)],
            "row": [row for length in lengths for row in range(length)],
            "reason": pa.nulls(self.count, pa.string()),
        }
        pq.write_table(pa.table(columns).replace_schema_metadata({b"radia.side": str(self.side)}), batch / INDEX)
        return ImageStore(self.folder / "images"), "ImageStore, 4 shards"

    def feed(self, device: torch.device) -> Feed:
        labels = np.zeros((self.count, 14), np.float32)
        return Feed(self.store, self.ids, labels, labels + 1, device)

    def drawn(self, plan: Plan, turn: int) -> Iterator[Any]:
        """Batches in a new order, with their augmentation, as the loop makes them."""
        rng = np.random.default_rng(turn)
        for number, part in enumerate(rng.permutation(self.count).reshape(plan.steps, plan.batch)):
            yield part, slice(None), draw_augmentation(plan.batch, 0, turn, number)


class _Mapped:
    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def read(self, ids: Any) -> Any:
        return self.pixels[[int(name[1:]) for name in ids]]


# --- the step -------------------------------------------------------------------------------------------------------


class Step:
    """One training step as radia.fit does it."""

    def __init__(self, plan: Plan, side: int, precision: str, nhwc: bool, compiled: bool) -> None:
        self.plan = plan
        self.fabric = open_fabric(plan.device, precision)
        self.layout = torch.channels_last if nhwc else torch.contiguous_format
        self.model: ChestModel = build(plan.backbone, preprocessing=Preprocessing(side))
        self.model.to(self.fabric.device).to(memory_format=self.layout)
        optimizer = optimizer_of(self.model, FinetuneSettings())
        network: nn.Module = torch.compile(self.model) if compiled else self.model  # type: ignore[assignment]
        self.network, self.optimizer = self.fabric.setup(network, optimizer)
        self.network.train()
        self.side = side

    def __call__(self, batch: Batch) -> None:
        self.on_input(to_input(batch.pixels, self.model.preprocessing, batch.draws), batch)

    def on_input(self, x: torch.Tensor, batch: Batch) -> None:
        """From the model's input on."""
        gradients(
            self.fabric, self.network, x.contiguous(memory_format=self.layout), batch, cross_entropy, len(batch.rows)
        )
        self.fabric.clip_gradients(self.network, self.optimizer, max_norm=1.0, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def constant_batch(self) -> Batch:
        """A batch that stays on the device."""
        device, n = self.fabric.device, self.plan.batch
        pixels = torch.full((n, self.side, self.side), 128, dtype=torch.uint8, device=device)
        target = torch.zeros(n, 14, device=device)
        drawn = draw_augmentation(n, 0, 1, 0)
        draws = type(drawn)(*(getattr(drawn, one.name).to(device) for one in fields(drawn)))
        return Batch(np.arange(n), pixels, target, torch.ones_like(target), draws, 14.0 * n)

    def augmentation(self, batch: Batch) -> float:
        """Seconds a batch."""
        how = self.model.preprocessing

        def plain() -> None:
            for _ in range(self.plan.steps):
                to_input(batch.pixels, how)

        def augmented() -> None:
            for _ in range(self.plan.steps):
                to_input(batch.pixels, how, batch.draws)

        turns = self.plan.in_turn(plain, augmented)
        return median(turn[1] - turn[0] for turn in turns) / self.plan.steps

    def least_seconds(self) -> float:
        """What a plain copy needs for the bytes that a step must move at least: each layer's output written and read,
        its gradient written and read, itself read again for the gradient of weights, all in two bytes a value."""
        moved = 0

        def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
            nonlocal moved
            moved += output.numel() * 2 * 5

        kinds = (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d)
        hooks = [m.register_forward_hook(count) for m in self.model.modules() if isinstance(m, kinds)]
        with torch.no_grad():
            self.model(torch.zeros(1, 1, self.side, self.side, device=self.fabric.device))
        for hook in hooks:
            hook.remove()
        block = torch.empty(1 << 28, dtype=torch.uint8, device=self.fabric.device)
        target = torch.empty_like(block)
        bandwidth = 2 * block.numel() / median(turn[0] for turn in self.plan.in_turn(lambda: target.copy_(block)))
        return moved * self.plan.batch / bandwidth


if __name__ == "__main__":
    main()
