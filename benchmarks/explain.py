"""Heat maps of all findings against one forward pass and against the package `grad-cam`, in the same run.

usage: python benchmarks/explain.py [--backbone densenet121] [--side 320] [--images 4] [--rival FOLDER]

Asked for: the 14 maps cost at most 1.05 times one forward pass; they are at least 30 times as fast as `grad-cam` looped
over the findings; both give the same maps within 1e-5, for average pooling and for PCAM. `grad-cam` is no dependency of
RADIA: where it is missing, `python -m venv V && V/bin/pip install --no-deps grad-cam ttach`, and --rival
V/lib/python3.11/site-packages. Times are processor time of one thread, alternating, and the median is taken.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from radia.explain import grad_cam
from radia.model import ChestModel, Preprocessing, build, to_input


class Unfolded(nn.Module):
    """The same network with its last ReLU as a layer of its own, which `grad-cam` needs as its target."""

    def __init__(self, model: ChestModel) -> None:
        super().__init__()
        self.model, self.last = model, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.model.judge(self.last(self.model.trunk(x)))


def paired(first: Callable[[], object], second: Callable[[], object], times: int) -> tuple[float, float, float]:
    """Median processor seconds of both, run in turn, and the median of the ratios first / second of neighbours."""
    first(), second()
    taken: list[tuple[float, float]] = []
    for _ in range(times):
        pair = []
        for work in (first, second):
            start = time.process_time()
            work()
            pair.append(time.process_time() - start)
        taken.append((pair[0], pair[1]))
    return median(a for a, _ in taken), median(b for _, b in taken), median(a / b for a, b in taken)


def one_pass(model: ChestModel, pixels: NDArray[np.uint8]) -> None:
    """What a prediction costs: pixels to logits."""
    with torch.inference_mode():
        model(to_input(torch.from_numpy(pixels), model.preprocessing)).numpy()


def rival_maps(model: ChestModel, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`grad-cam` looped over findings: [n, findings, side, side], each map scaled to 0..1 as the package does."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network = Unfolded(model)
    x = to_input(torch.from_numpy(pixels), model.preprocessing)
    with GradCAM(network, [network.last]) as cam:
        return np.stack([cam(x, [ClassifierOutputTarget(k)] * len(x)) for k in range(len(model.findings))], axis=1)


def as_the_rival_scales(maps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Our maps scaled and enlarged by the rival's own functions."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    flat = scale_cam_image(scale_cam_image(maps.reshape(-1, *maps.shape[-2:]), (side, side)))
    return np.asarray(flat).reshape(*maps.shape[:2], side, side)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--backbone", default="densenet121")
    options.add_argument("--side", type=int, default=320)
    options.add_argument("--images", type=int, default=4)
    options.add_argument("--times", type=int, default=9)
    options.add_argument("--rival", help="a folder of site-packages that holds grad-cam")
    given = options.parse_args()
    if given.rival:
        sys.path.append(given.rival)
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (given.images, given.side, given.side), dtype=np.uint8)
    models = {
        pooling: build(given.backbone, preprocessing=Preprocessing(given.side), pooling=pooling, seed=1).eval()
        for pooling in ("average", "pcam")
    }
    for pooling, model in models.items():
        maps, forward, ratio = paired(
            lambda m=model: grad_cam(m, pixels), lambda m=model: one_pass(m, pixels), given.times
        )
        print(
            f"{given.backbone}, {pooling} pooling, {given.images} images of {given.side}²: 14 maps {maps:.3f} s, "
            f"one forward pass {forward:.3f} s, ratio {ratio:.3f} (asked for at most 1.05)"
        )
    try:
        import pytorch_grad_cam  # noqa: F401
    except ImportError as error:
        sys.exit(f"grad-cam cannot be imported ({error.name} is missing): see the first lines of this file")
    for pooling, model in models.items():
        _, _, ratio = paired(lambda m=model: rival_maps(m, pixels), lambda m=model: grad_cam(m, pixels), 2)
        ours, theirs = as_the_rival_scales(grad_cam(model, pixels).maps, given.side), rival_maps(model, pixels)
        print(
            f"{pooling} pooling: grad-cam looped over 14 findings takes {ratio:.0f} times as long (asked for 30); "
            f"largest difference of a map {np.abs(ours - theirs).max():.1e} (asked for 1e-5)"
        )


if __name__ == "__main__":
    main()
