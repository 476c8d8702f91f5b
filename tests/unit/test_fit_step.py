"""A batch's gradients in parts: the same number of parts in every worker, and what to do when memory runs out."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from radia.fit.batches import Batch
from radia.fit.loss import cross_entropy
from radia.fit.step import gradients, parts_of
from radia.fit.workers import part_of


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("micro", [1, 5, 6, 64])
@pytest.mark.parametrize("whole", [8, 11, 37])
def test_every_worker_takes_as_many_parts_and_none_is_too_large(whole: int, micro: int, world: int) -> None:
    shares = [part_of(rank, world, whole) for rank in range(world)]
    parts = [parts_of(share.stop - share.start, whole, world, micro) for share in shares]
    assert len({len(of_one) for of_one in parts}) == 1
    for share, of_one in zip(shares, parts, strict=True):
        rows = [row for part in of_one for row in range(share.stop - share.start)[part]]
        assert rows == list(range(share.stop - share.start))
        assert max(part.stop - part.start for part in of_one) <= micro
    assert len(parts[0]) == -(-max(share.stop - share.start for share in shares) // micro)


def a_batch(n: int) -> tuple[torch.Tensor, Batch]:
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(n, 14, generator=generator) < 0.5).float()
    pixels = torch.zeros(n, 2, 2, dtype=torch.uint8)
    weight = torch.rand(n, 14, generator=generator)
    return torch.randn(n, 6, generator=generator), Batch(
        np.arange(n), pixels, target, weight, None, float(weight.sum())
    )


class Limited(torch.nn.Linear):
    """Runs out of memory above so many rows; remembers what it held when it did."""

    limit = 3
    held: weakref.ref[torch.Tensor] | None = None
    freed: bool | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.held is not None:
            gc.collect()
            self.freed = self.held() is None
        activation = super().forward(x)
        if len(x) > self.limit:
            self.held = weakref.ref(activation)
            raise torch.OutOfMemoryError
        return activation


def test_parts_add_up_to_the_gradients_and_losses_of_the_whole() -> None:
    fabric, (x, batch) = Fabric(accelerator="cpu", devices=1), a_batch(11)
    found = []
    for micro in (11, 4):
        torch.manual_seed(1)
        network = torch.nn.Linear(6, 14)
        losses, fits = gradients(fabric, fabric.setup(network), x, batch, cross_entropy, micro)
        assert fits == micro
        found.append((losses, network.weight.grad))
    assert torch.allclose(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], atol=1e-7)


def test_what_did_not_fit_is_let_go_before_half_of_it_is_tried() -> None:
    fabric, (x, batch) = Fabric(accelerator="cpu", devices=1), a_batch(12)
    torch.manual_seed(1)
    network = Limited(6, 14)
    losses, fits = gradients(fabric, fabric.setup(network), x, batch, cross_entropy, 12)
    assert fits == 3
    assert network.freed
    assert losses.shape == (12,)
    network.zero_grad()
    per_image = cross_entropy(torch.nn.functional.linear(x, network.weight, network.bias), batch.target, batch.weight)
    assert torch.allclose(losses, per_image / batch.cells)


def test_gradients_of_a_failed_attempt_do_not_count() -> None:
    fabric, (x, batch) = Fabric(accelerator="cpu", devices=1), a_batch(8)

    class Late(torch.nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == 2:  # the second part does not fit; the first has its gradients
                raise torch.OutOfMemoryError
            return super().forward(x)

    found = []
    for kind in (torch.nn.Linear, Late):
        torch.manual_seed(1)
        network = kind(6, 14)
        gradients(fabric, fabric.setup(network), x, batch, cross_entropy, 4)
        found.append(network.weight.grad)
    assert torch.allclose(found[0], found[1], atol=1e-7)
