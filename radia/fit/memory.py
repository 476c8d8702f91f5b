"""How many images fit into the device's memory at once, found out before the first step.

What a training holds is measured, not looked up: two images go through a copy of the model, and what autograd keeps
of them for the way back is added up.
"""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager
from copy import deepcopy

import torch
from torch import Tensor

from radia.errors import TrainingError
from radia.fit.workers import agreed
from radia.model import ChestModel, to_input

log = logging.getLogger(__name__)

BESIDE_ACTIVATIONS = 1.3
"""Gradients of activations, a convolution's workspace and gaps between blocks, over what autograd keeps."""
USED = 0.9
"""Of what is free; the rest is left to others."""
WEIGHTS = 4
"""A weight, its gradient, and the optimizer's two averages."""


def bytes_an_image(model: ChestModel, rows: int, autocast: AbstractContextManager[object]) -> float:
    """What autograd keeps of one image of so many rows and columns between the way forth and the way back."""
    probe = deepcopy(model).train()
    device = next(probe.parameters()).device
    own = {value.untyped_storage().data_ptr() for value in [*probe.parameters(), *probe.buffers()]}
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    pixels = torch.zeros(2, rows, rows, dtype=torch.uint8, device=device)
    with autocast, torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        logits = probe(to_input(pixels, probe.preprocessing).contiguous(memory_format=torch.channels_last))
    del logits
    return sum(kept.values()) / 2


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses now; of a CPU's, this worker's share."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def images_at_once(
    model: ChestModel, batch: int, rows: int, autocast: AbstractContextManager[object], *, free: int | None = None
) -> int:
    """The batch, or the largest half, quarter, ... of it that should fit. Says in the log what it came to.

    batch: this worker's part; of several workers, the largest part and what fits everywhere count, for all of them go
    through their parts in as many steps. rows: of the images as they are read. Raises TrainingError where not even one
    image fits.
    """
    device = next(model.parameters()).device
    batch = agreed(batch, max)
    room = USED * (free_bytes(device) if free is None else free)
    weights = WEIGHTS * sum(value.nbytes for value in model.parameters())
    try:
        each = BESIDE_ACTIVATIONS * bytes_an_image(model, rows, autocast)
    except torch.OutOfMemoryError:
        log.warning("memory: two images do not fit at once; one by one, gradients of %d are added up", batch)
        return agreed(1, min)
    at_once = batch
    while at_once > 1 and weights + at_once * each > room:
        at_once = (at_once + 1) // 2
    if weights + at_once * each > room:
        raise TrainingError(
            f"{room / 1e9:.2f} GB of memory to use and {(weights + each) / 1e9:.2f} GB needed for one image alone: "
            "choose a smaller finetune.side or backbone"
        )
    at_once = agreed(at_once, min)
    log.info(
        "memory: about %.2f GB for %d images at once, %.1f GB to use; %s",
        (weights + at_once * each) / 1e9,
        at_once,
        room / 1e9,
        "the whole batch" if at_once == batch else f"gradients of {batch} are added up over such parts",
    )
    return at_once
