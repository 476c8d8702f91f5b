"""How many images fit at once: the estimate against what a step really takes, and what is done with it."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from radia.errors import TrainingError
from radia.fit.memory import BESIDE_ACTIVATIONS, WEIGHTS, bytes_an_image, free_bytes, images_at_once
from radia.model import ChestModel, Preprocessing, build

ROOT = Path(__file__).resolve().parents[2]


def slim() -> ChestModel:
    return build("densenet-slim", preprocessing=Preprocessing(128), seed=0)


STEP = """
import sys, torch
from tests.unit.test_fit_memory import slim
from radia.model import to_input
images, bf16 = int(sys.argv[1]), sys.argv[2] == "True"
torch.set_num_threads(1)
model = slim().train().to(memory_format=torch.channels_last)
x = to_input(torch.zeros(images, 128, 128, dtype=torch.uint8), model.preprocessing)
with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
    loss = model(x.contiguous(memory_format=torch.channels_last)).float().sum()
loss.backward()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(images: int, *, bf16: bool) -> int:
    """The most memory that a process of its own held over one forward and one backward pass, in bytes."""
    command = [sys.executable, "-c", STEP, str(images), str(bf16)]
    return 1024 * int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_estimate_is_no_less_than_a_step_takes_and_not_twice_as_much(bf16: bool) -> None:
    few, many = 24, 72
    taken = (peak(many, bf16=bf16) - peak(few, bf16=bf16)) / (many - few)
    with torch.random.fork_rng():
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        estimate = BESIDE_ACTIVATIONS * bytes_an_image(slim(), 128, autocast)
    print(f"measured {taken / 1e6:.2f} MB an image, estimated {estimate / 1e6:.2f} MB")
    assert 0.9 * taken < estimate < 2 * taken


class TestImagesAtOnce:
    @staticmethod
    def room_for(images: float) -> int:
        model = slim()
        weights = WEIGHTS * sum(value.nbytes for value in model.parameters())
        return int((weights + images * BESIDE_ACTIVATIONS * bytes_an_image(model, 128, nullcontext())) / 0.9) + 1000

    @pytest.mark.parametrize(("room", "expected"), [(64, 64), (63, 32), (20, 16), (8.5, 8), (1, 1)])
    def test_the_batch_is_halved_until_it_fits(self, room: float, expected: int) -> None:
        assert images_at_once(slim(), 64, 128, nullcontext(), free=self.room_for(room)) == expected

    def test_what_was_found_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            images_at_once(slim(), 64, 128, nullcontext(), free=self.room_for(20))
        assert "for 16 images at once" in caplog.text
        assert "gradients of 64 are added up over such parts" in caplog.text

    def test_an_image_that_does_not_fit_alone_is_an_error(self) -> None:
        with pytest.raises(TrainingError, match=r"needed for one image alone: choose a smaller finetune\.side"):
            images_at_once(slim(), 8, 128, nullcontext(), free=self.room_for(0.5))

    def test_the_model_is_as_before(self) -> None:
        model = slim().eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        images_at_once(model, 8, 128, nullcontext())
        assert not model.training
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert all(value.grad is None for value in model.parameters())

    def test_several_workers_of_a_machine_share_its_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import psutil

        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 12_000}))
        assert free_bytes(torch.device("cpu")) == 12_000
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
        assert free_bytes(torch.device("cpu")) == 4_000
