from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from radia.errors import CheckpointError
from radia.findings import FINDINGS
from radia.model import (
    META_FILE,
    WEIGHTS_FILE,
    Augmentation,
    Preprocessing,
    build,
    describe,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    to_input,
)

SMALL = Preprocessing(side=32)


def pixels(n: int = 2, side: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def unmoved(n: int) -> Augmentation:
    return Augmentation(torch.eye(2, 3).repeat(n, 1, 1), torch.ones(n), torch.ones(n), torch.zeros(n))


class TestToInput:
    def test_black_and_white_become_minus_and_plus_two(self) -> None:
        gray = torch.tensor([[[0, 255], [255, 0]]], dtype=torch.uint8)
        x = to_input(gray, Preprocessing(side=2))
        assert x.tolist() == [[[[-2.0, 2.0], [2.0, -2.0]]]]

    def test_mean_and_std_are_the_checkpoints(self) -> None:
        gray = torch.full((1, 4, 4), 255, dtype=torch.uint8)
        assert to_input(gray, Preprocessing(4, mean=0.5, std=1 / 2048)).unique().tolist() == [1024.0]

    def test_a_larger_image_is_averaged_down_without_aliasing(self) -> None:
        stripes = torch.zeros((1, 64, 64), dtype=torch.uint8)
        stripes[:, :, ::4] = 255
        x = to_input(stripes, Preprocessing(16, mean=0.0, std=1.0))
        assert x.shape == (1, 1, 16, 16)
        assert x[..., 1:-1].sub(0.25).abs().max() < 0.05

    def test_an_augmentation_that_moves_nothing_changes_nothing(self) -> None:
        gray = pixels(3)
        x = to_input(gray, SMALL, unmoved(3))
        assert torch.allclose(x, to_input(gray, SMALL), atol=1e-3)

    def test_the_grid_is_torchs_affine_grid(self) -> None:
        gray = pixels(4)
        affine = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1)) * 0.3 + torch.eye(2, 3)
        x = to_input(gray, Preprocessing(32, 0.0, 1.0), replace(unmoved(4), affine=affine))
        grid = functional.affine_grid(affine, [4, 1, 32, 32], align_corners=False)
        expected = functional.grid_sample(gray[:, None] / 255, grid, align_corners=False)
        assert torch.allclose(x, expected.clamp(1e-4, 1), atol=1e-5)

    def test_what_is_shifted_in_is_black(self) -> None:
        white = torch.full((1, 32, 32), 255, dtype=torch.uint8)
        shifted = replace(unmoved(1), affine=torch.tensor([[[1.0, 0, 1.0], [0, 1.0, 0]]]))
        x = to_input(white, SMALL, shifted)
        assert x[0, 0, 16, 4] == 2.0
        assert x[0, 0, 16, 30] == pytest.approx(-2.0, abs=1e-3)

    def test_gain_and_offset_stay_within_black_and_white(self) -> None:
        draws = replace(unmoved(2), gain=torch.tensor([3.0, 1.0]), offset=torch.tensor([0.0, -0.9]))
        x = to_input(pixels(2), Preprocessing(32, 0.0, 1.0), draws)
        assert x.min() == 0.0
        assert x.max() == 1.0


class TestBuild:
    @pytest.mark.parametrize(
        ("backbone", "channels"), [("densenet121", 1024), ("densenet-slim", 176), ("convnext-tiny", 768)]
    )
    def test_a_model_gives_a_logit_a_finding(self, backbone: str, channels: int) -> None:
        model = build(backbone, preprocessing=Preprocessing(64)).eval()
        x = to_input(pixels(2, 64), model.preprocessing)
        assert model(x).shape == (2, 14)
        assert model.pooled(x).shape == (2, channels)
        assert model.features(x).min() >= 0

    def test_densenet121_is_torchvisions_with_one_input_channel(self) -> None:
        from torchvision.models import densenet121

        theirs = {name: tuple(value.shape) for name, value in densenet121().features.state_dict().items()}
        ours = {name: tuple(value.shape) for name, value in build("densenet121").trunk.state_dict().items()}
        assert theirs | {"conv0.weight": (64, 1, 7, 7)} == ours

    def test_the_head_is_linear_over_the_pooled_maps(self) -> None:
        model = build("densenet-slim", preprocessing=SMALL).eval()
        x = to_input(pixels(), SMALL)
        assert torch.allclose(model(x), model.head(model.features(x).mean((2, 3))))

    def test_pcam_weighs_each_place_by_the_findings_probability_there(self) -> None:
        model = build("densenet-slim", preprocessing=SMALL, pooling="pcam").eval()
        features = model.features(to_input(pixels(), SMALL))
        maps = functional.conv2d(features, model.head.weight[:, :, None, None], model.head.bias)
        weights = torch.sigmoid(maps) / torch.sigmoid(maps).sum((2, 3), keepdim=True)
        pooled = torch.einsum("nfhw,nchw->nfc", weights, features)
        expected = (pooled * model.head.weight).sum(2) + model.head.bias
        assert torch.allclose(model(to_input(pixels(), SMALL)), expected, atol=1e-5)

    def test_an_unknown_pooling_is_named(self) -> None:
        with pytest.raises(CheckpointError, match="'max'"):
            build("densenet-slim", pooling="max")

    def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_own_generator_alone(self) -> None:
        torch.manual_seed(5)
        expected = torch.rand(1)
        torch.manual_seed(5)
        first, second, other = (build("densenet-slim", seed=seed).state_dict() for seed in (1, 1, 2))
        assert torch.equal(torch.rand(1), expected)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first["trunk.conv0.weight"], other["trunk.conv0.weight"])

    def test_an_unknown_backbone_is_named_with_the_known_ones(self) -> None:
        with pytest.raises(CheckpointError, match=r"'resnet'.*densenet121, densenet-slim"):
            build("resnet")

    def test_temperature_draws_probabilities_towards_a_half(self) -> None:
        model = build("densenet-slim")
        logits = torch.tensor([[2.0] * 14])
        sharp = model.probabilities(logits)
        model.temperature.fill_(2.0)
        assert torch.allclose(sharp, torch.sigmoid(torch.tensor(2.0)))
        assert torch.allclose(model.probabilities(logits), torch.sigmoid(torch.tensor(1.0)))


class TestCheckpoint:
    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        model = build("densenet-slim", preprocessing=Preprocessing(48, 0.4, 0.3), pooling="pcam", seed=3)
        model.temperature.fill_(1.5)
        checkpoint = describe(
            model, thresholds={"Edema": 0.25}, snapshot="abc", licence="CC0", training={"seed": 3}, source="test"
        )
        save_checkpoint(tmp_path / "base", model, checkpoint)
        return tmp_path / "base"

    def test_what_was_saved_comes_back(self, saved: Path) -> None:
        model, checkpoint = load_checkpoint(saved)
        assert checkpoint == read_checkpoint(saved)
        assert (checkpoint.findings, checkpoint.backbone, checkpoint.side) == (FINDINGS, "densenet-slim", 48)
        assert (checkpoint.thresholds, checkpoint.temperature, checkpoint.snapshot) == ({"Edema": 0.25}, 1.5, "abc")
        assert (checkpoint.licence, checkpoint.source, checkpoint.training) == ("CC0", "test", {"seed": 3})
        assert model.preprocessing == Preprocessing(48, 0.4, 0.3)
        assert model.temperature == 1.5
        assert not model.training
        assert model.pooling == checkpoint.pooling == "pcam"
        original = build("densenet-slim", seed=3)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), original.parameters(), strict=True))

    def test_saving_twice_gives_the_same_bytes(self, saved: Path) -> None:
        before = {path.name: path.read_bytes() for path in saved.iterdir()}
        save_checkpoint(saved, *load_checkpoint(saved))
        assert {path.name: path.read_bytes() for path in saved.iterdir()} == before

    def test_an_empty_folder_is_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"model\.json is missing"):
            load_checkpoint(tmp_path)

    def test_one_flipped_byte_in_the_weights_is_found(self, saved: Path) -> None:
        path = saved / WEIGHTS_FILE
        damaged = bytearray(path.read_bytes())
        damaged[-5] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="SHA-256"):
            load_checkpoint(saved)

    def test_missing_weights_are_never_replaced_by_random_ones(self, saved: Path) -> None:
        (saved / WEIGHTS_FILE).unlink()
        with pytest.raises(CheckpointError, match="holds no weights"):
            load_checkpoint(saved)

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1}'])
    def test_a_damaged_description_is_an_error(self, saved: Path, text: str) -> None:
        (saved / META_FILE).write_text(text)
        with pytest.raises(CheckpointError, match=META_FILE):
            load_checkpoint(saved)

    @pytest.mark.parametrize(("name", "value"), [("side", 0), ("std", 0.0), ("temperature", -1.0), ("side", "wide")])
    def test_an_impossible_description_is_an_error(self, saved: Path, name: str, value: object) -> None:
        meta = json.loads((saved / META_FILE).read_text()) | {name: value}
        (saved / META_FILE).write_text(json.dumps(meta))
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(saved)

    def test_weights_of_another_backbone_are_an_error(self, saved: Path) -> None:
        meta = json.loads((saved / META_FILE).read_text()) | {"backbone": "densenet121"}
        (saved / META_FILE).write_text(json.dumps(meta))
        with pytest.raises(CheckpointError, match="not those of a densenet121"):
            load_checkpoint(saved)

    def test_a_model_of_other_findings_is_refused_naming_the_difference(self, tmp_path: Path) -> None:
        model = build("densenet-slim", (*FINDINGS[:-1], "Hernia"))
        save_checkpoint(tmp_path / "nih", model, describe(model))
        with pytest.raises(CheckpointError, match="lacks Support Devices; it has Hernia"):
            load_checkpoint(tmp_path / "nih")
        assert load_checkpoint(tmp_path / "nih", findings=None)[1].findings[-1] == "Hernia"

    def test_the_same_findings_in_another_order_are_refused(self, tmp_path: Path) -> None:
        model = build("densenet-slim", FINDINGS[::-1])
        save_checkpoint(tmp_path / "reversed", model, describe(model))
        with pytest.raises(CheckpointError, match="another order"):
            load_checkpoint(tmp_path / "reversed")
