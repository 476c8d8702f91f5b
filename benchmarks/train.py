"""Speed of the training loop against its rivals, in ratios of one run.

Runs alone, from a checkout, with torch, torchvision, lightning-fabric, safetensors, numpy, pydantic and pyyaml.

    python benchmarks/train.py [--backbone densenet121] [--sides 224 320 512] [--batch 64] [--steps 30] [--out FILE]

| ratio | what over what | bar |
|---|---|---|
| bf16 nhwc / fp32 nchw | the same step, images a second | CPU 2, GPU 5 (compiled) |
| compiled / eager | bf16 channels_last, GPU only | 1.3 |
| loop / constant tensor | the step fed by the loader from a memory-mapped file, over the step fed one tensor | 0.95 |
| augmentation / step | time of to_input with augmentation, less that without, in a step | GPU 0.03 |
| bytes / roofline | bytes that the step must move at least, over what a plain copy moves in its time | GPU 0.65 |
| all maps / forward | 14 Grad-CAM maps over one forward pass, time | 1.05 |
| one by one / all maps | classical Grad-CAM looped over findings, over all at once, time | 30 |
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a GPU machine has the checkout, not the installation

from radia.explain import grad_cam
from radia.fit.batches import Batch, Feed
from radia.fit.draws import draw_augmentation
from radia.fit.loss import cross_entropy
from radia.fit.setup import optimizer_of
from radia.fit.step import gradients
from radia.fit.workers import open_fabric
from radia.model import ChestModel, Preprocessing, build, to_input
from radia.settings import FinetuneSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone")
    parser.add_argument("--sides", type=int, nargs="+")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--images", type=int, help="in the memory-mapped file")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON, added to benchmarks/results by a person")
    asked = parser.parse_args()
    cuda = torch.cuda.is_available()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    backbone = asked.backbone or ("densenet121" if cuda else "densenet-slim")
    sides = asked.sides or ([224, 320, 512] if cuda else [128])
    batch = asked.batch or (64 if cuda else 32)
    results = [of_side(backbone, side, batch, asked.steps, asked.images or 40 * batch, cuda) for side in sides]
    machine = torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    report = {
        "machine": machine,
        "torch": str(torch.__version__),
        "backbone": backbone,
        "batch": batch,
        "sides": results,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


def of_side(backbone: str, side: int, batch: int, steps: int, images: int, cuda: bool) -> dict[str, Any]:
    device = "cuda" if cuda else "cpu"
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.npy"
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(images, side, side))
        for row in range(images):
            file[row] = rng.integers(0, 256, (side, side), dtype=np.uint8)
        file.flush()
        store = Shards(np.load(path, mmap_mode="r"))
        kinds = {"fp32 nchw": ("32-true", False, False), "bf16 nhwc": ("bf16-mixed", True, False)}
        if cuda:
            kinds["bf16 nhwc compiled"] = ("bf16-mixed", True, True)
        rates = {kind: Step(backbone, side, device, *how).rate_constant(batch, steps) for kind, how in kinds.items()}
        best = Step(backbone, side, device, *kinds[list(kinds)[-1]])
        ratios = {"bf16 nhwc / fp32 nchw": rates[list(kinds)[-1]] / rates["fp32 nchw"]}
        if cuda:
            ratios["compiled / eager"] = rates["bf16 nhwc compiled"] / rates["bf16 nhwc"]
            ratios["bytes / roofline"] = best.roofline(batch, rates[list(kinds)[-1]])
        ratios["loop / constant tensor"] = best.loop_over_constant(store, batch, steps)
        ratios["augmentation / step"] = best.augmentation(batch, steps) * rates[list(kinds)[-1]] / batch
        ratios |= heat_maps(best.model, side, device)
    return {
        "side": side,
        "images_per_second": {kind: round(rate, 1) for kind, rate in rates.items()},
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
    }


class Shards:
    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def read(self, ids: Any) -> Any:
        return self.pixels[[int(name) for name in ids]]


class Step:
    """One training step as radia.fit does it."""

    def __init__(self, backbone: str, side: int, device: str, precision: str, nhwc: bool, compiled: bool) -> None:
        self.fabric = open_fabric(device, precision)
        self.layout = torch.channels_last if nhwc else torch.contiguous_format
        self.model: ChestModel = build(backbone, preprocessing=Preprocessing(side))
        self.model.to(self.fabric.device).to(memory_format=self.layout)
        optimizer = optimizer_of(self.model, FinetuneSettings())
        network: nn.Module = torch.compile(self.model) if compiled else self.model  # type: ignore[assignment]
        self.network, self.optimizer = self.fabric.setup(network, optimizer)
        self.network.train()
        self.side = side

    def __call__(self, batch: Batch) -> None:
        n = len(batch.rows)
        x = to_input(batch.pixels, self.model.preprocessing, batch.draws).contiguous(memory_format=self.layout)
        gradients(self.fabric, self.network, x, batch, cross_entropy, n)
        self.fabric.clip_gradients(self.network, self.optimizer, max_norm=1.0, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def rate_constant(self, batch: int, steps: int) -> float:
        return batch / seconds(lambda number: self(self._constant(batch, number)), steps)

    def loop_over_constant(self, store: Shards, batch: int, steps: int) -> float:
        """Both ways in turn, several times: what disturbs the machine disturbs both."""
        ids = np.array([str(row) for row in range(len(store.pixels))])
        ratios = []
        labels = np.zeros((len(ids), 14), np.float32)
        feed = Feed(store, ids, labels, labels + 1, self.fabric.device)
        self(self._constant(batch, 0))
        for turn in range(5):
            order = np.random.default_rng(turn).permutation(len(ids))
            batches = [order[i : i + batch] for i in range(0, len(ids) - batch + 1, batch)][:steps]
            start = clock()
            for number in range(len(batches)):
                self(self._constant(batch, number))
            middle = clock()
            drawn = ((rows, slice(None), draw_augmentation(batch, 0, 1, k)) for k, rows in enumerate(batches))
            for fed in feed(drawn):
                self(fed)
            ratios.append((middle - start) / (clock() - middle))
        return float(np.median(ratios))

    def augmentation(self, batch: int, steps: int) -> float:
        """Seconds a batch."""
        constant, how = self._constant(batch, 0), self.model.preprocessing
        plain = seconds(lambda _: to_input(constant.pixels, how), steps)
        return seconds(lambda _: to_input(constant.pixels, how, constant.draws), steps) - plain

    def roofline(self, batch: int, rate: float) -> float:
        """What the step must move at least (each layer's output written and read, forwards and backwards, in two bytes)
        over what a copy moves in the step's time."""
        moved = 0

        def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
            nonlocal moved
            # written forwards and read; its gradient written and read; itself read again for the gradient of weights
            moved += output.numel() * 2 * 5

        kinds = (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d)
        hooks = [m.register_forward_hook(count) for m in self.model.modules() if isinstance(m, kinds)]
        with torch.no_grad():
            self.model(torch.zeros(1, 1, self.side, self.side, device=self.fabric.device))
        for hook in hooks:
            hook.remove()
        block = torch.empty(1 << 28, dtype=torch.uint8, device=self.fabric.device)
        target = torch.empty_like(block)
        bandwidth = 2 * block.numel() / seconds(lambda _: target.copy_(block), 20)
        return moved * batch / bandwidth / (batch / rate)

    def _constant(self, n: int, number: int) -> Batch:
        device = self.fabric.device
        pixels = torch.full((n, self.side, self.side), 128, dtype=torch.uint8, device=device)
        target = torch.zeros(n, 14, device=device)
        drawn = draw_augmentation(n, 0, 1, number)
        draws = type(drawn)(*(getattr(drawn, one.name).to(device) for one in fields(drawn)))
        return Batch(np.arange(n), pixels, target, torch.ones_like(target), draws, 14.0 * n)


def heat_maps(model: ChestModel, side: int, device: str) -> dict[str, float]:
    model.eval()
    pixels = torch.randint(0, 256, (4, side, side), dtype=torch.uint8, device=device)

    def forward(_: int) -> None:
        with torch.inference_mode():
            model(to_input(pixels, model.preprocessing)).cpu()

    def one_by_one(_: int) -> None:
        """As the package grad-cam does it: a forward and a whole backward pass for each finding."""
        for finding in range(14):
            kept = model.features(to_input(pixels, model.preprocessing))
            kept.retain_grad()
            model.zero_grad()
            model.judge(kept)[:, finding].sum().backward()
            assert kept.grad is not None
            (kept.grad.mean((2, 3), keepdim=True) * kept).sum(1).relu().detach().cpu()

    every = seconds(lambda _: grad_cam(model, pixels), 10)
    return {
        "all maps / forward": every / seconds(forward, 10),
        "one by one / all maps": seconds(one_by_one, 3) / every,
    }


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[int], object], times: int) -> float:
    """Median time of a call, after two to warm up."""
    for number in range(2):
        work(number)
    taken = []
    for number in range(times):
        start = clock()
        work(number)
        taken.append(clock() - start)
    return float(np.median(taken))


if __name__ == "__main__":
    main()
