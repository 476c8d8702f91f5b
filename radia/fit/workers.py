"""Several devices, or several machines, that train one model together.

Each worker has its own part of every batch; gradients are averaged by DDP, batch norms see the images of all, and so
the losses are those of one worker. Who starts the processes (radia.fit.launch, or torchrun) says how many there are in
the environment. What must be the same everywhere (a state to go on from, how an epoch was judged) is the first's.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def open_fabric(accelerator: str, precision: str, *, rests: bool = False) -> Fabric:
    """One device, or as many as there are workers. rests: parts of the model may be left out of a step."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    class _Started(TorchElasticEnvironment):
        """Processes that were started by others, not always the same number on each machine."""

        def validate_settings(self, num_devices: int, num_nodes: int) -> None:
            """The environment alone says how many there are."""

    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.deterministic = True
    options: dict[str, Any] = {"accelerator": accelerator, "precision": precision, "devices": 1}
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        strategy = DDPStrategy(cluster_environment=_Started(), find_unused_parameters=rests)
        options |= {"strategy": strategy, "devices": local, "num_nodes": max(1, world // local)}
    fabric = Fabric(**options)
    fabric.launch()
    return fabric


@contextmanager
def quiet_fabric() -> Iterator[None]:
    """Without Fabric's own remarks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric")
        for name in ("lightning_fabric", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        yield


def first_says(value: Any) -> Any:
    """The first worker's value, in every worker."""
    if not _several():
        return value
    told = [value]
    torch.distributed.broadcast_object_list(told, 0)
    return told[0]


def agreed(number: int, choose: Callable[[Sequence[int]], int]) -> int:
    """What is chosen (`min`, `max`) of the workers' numbers, in every worker."""
    if not _several():
        return number
    numbers: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(numbers, number)
    return choose(numbers)


def lost_another(error: BaseException) -> bool:
    """Whether this is how a worker hears that another is gone: cut off, silent for too long, or dead."""
    if isinstance(error, torch.distributed.DistError):
        return True
    # gloo has no class of its own
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ("/gloo/", "pair closure"))


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def part_of(rank: int, world: int, n: int) -> slice:
    """A worker's part of a batch of n images; the parts differ by one image at most."""
    return slice(n * rank // world, n * (rank + 1) // world)


def gathered(fabric: Fabric, mine: Tensor, n: int) -> Tensor:
    """The losses of all workers' images, [n], in the batch's order."""
    if fabric.world_size == 1:
        return mine
    whole = torch.zeros(n, device=mine.device)
    whole[part_of(fabric.global_rank, fabric.world_size, n)] = mine
    torch.distributed.all_reduce(whole)
    return whole


class _Sum(torch.autograd.Function):
    """The sum of the workers' values in each of them; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all workers; torch's own knows GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        channels, n = x.shape[1], torch.tensor([x.numel() / x.shape[1]], device=x.device)
        values = x.float()
        sums = _sum(torch.cat([values.sum((0, 2, 3)), n]))
        count = sums[-1]
        mean = sums[:channels] / count
        centred = values - mean.view(1, -1, 1, 1)  # a mean of squares less a squared mean would lose digits
        variance = _sum((centred**2).sum((0, 2, 3))) / count
        with torch.no_grad():
            cast(Tensor, self.running_mean).lerp_(mean, self.momentum or 0.1)
            cast(Tensor, self.running_var).lerp_(variance * count / (count - 1), self.momentum or 0.1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shared: Tensor = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return shared.to(x.dtype)


def share_batch_norms(model: nn.Module) -> None:
    """Makes every batch norm take its statistics from the images of all workers, as one worker would."""
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared: Any = nn.SyncBatchNorm if child.weight.is_cuda else _SharedBatchNorm
            new: nn.Module = shared(child.num_features, child.eps, child.momentum or 0.1).to(child.weight.device)
            new.load_state_dict(child.state_dict())
            setattr(model, name, new)
        else:
            share_batch_norms(child)
