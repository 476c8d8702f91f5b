from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from radia.errors import TrainingError, UnknownFinding
from radia.findings import FINDINGS
from radia.fit import FitResult, balanced, fit
from radia.fit.draws import draw_augmentation, learning_rate_factor
from radia.fit.loss import auc_margin
from radia.fit.validation import Validation, best_temperature
from radia.metrics import auroc, choose_thresholds
from radia.model import ChestModel, Preprocessing, build, describe
from radia.predict import predict
from radia.settings import FinetuneSettings

SETTINGS = FinetuneSettings(epochs=3, batch_size=16, learning_rate=3e-3, threads=1, precision="32-true")


class Squares:
    """Images whose findings are bright squares, each in its own place; a store with `read`, like ImageStore."""

    def __init__(self, n: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.targets = (rng.random((n, 14)) < 0.4).astype(np.float32)
        self.pixels = rng.integers(0, 60, (n, 32, 32)).astype(np.uint8)
        for k in range(14):
            row, column = divmod(k, 4)
            self.pixels[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += (
                self.targets[:, k, None, None] * 190
            ).astype(np.uint8)
        self.ids = np.array([f"I{i:03d}" for i in range(n)])
        self.train = np.arange(n) % 4 > 0
        self.weights = np.ones_like(self.targets)

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        return self.pixels[[int(name[1:]) for name in ids]]


def slim(seed: int = 0) -> ChestModel:
    return build("densenet-slim", preprocessing=Preprocessing(32), seed=seed)


def fitted(squares: Squares, model: ChestModel | None = None, **options: Any) -> FitResult:
    settings = options.pop("settings", SETTINGS)
    known = {
        "images": squares,
        "ids": squares.ids,
        "targets": squares.targets,
        "weights": squares.weights,
        "train": squares.train,
        "validation": ~squares.train,
        "seed": 7,
    }
    return fit(model or slim(), settings=settings, **(known | options))


def frozen_norm(norm: torch.nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def same_weights(first: ChestModel, second: ChestModel) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


class TestLearning:
    @pytest.fixture(scope="class")
    def squares(self) -> Squares:
        return Squares(192)

    @pytest.fixture(scope="class")
    def result(self, squares: Squares) -> FitResult:
        return fitted(squares, settings=SETTINGS.model_copy(update={"epochs": 8, "augment": False}))

    def test_a_slim_net_learns_the_squares(self, result: FitResult) -> None:
        assert result.history[0]["validation_auroc"] == pytest.approx(0.5, abs=0.1)
        assert result.history[result.best_epoch]["validation_auroc"] > 0.8
        assert result.history[-1]["loss"] < result.history[1]["loss"]

    def test_the_history_starts_with_the_base_and_counts_epochs(self, result: FitResult) -> None:
        assert [entry["epoch"] for entry in result.history] == list(range(9))
        assert result.history[0]["loss"] is None

    def test_the_weights_are_those_of_the_best_epoch(self, squares: Squares, result: FitResult) -> None:
        best = max(result.history, key=lambda entry: entry["validation_auroc"])
        assert result.best_epoch == best["epoch"]
        found = predict(result.model, squares.pixels[~squares.train]).probabilities
        truth = squares.targets[~squares.train]
        mean = np.mean([auroc(truth[:, k], found[:, k]) for k in range(14)])
        assert mean == pytest.approx(best["validation_auroc"], abs=1e-6)

    def test_thresholds_are_chosen_on_the_calibrated_validation_probabilities(
        self, squares: Squares, result: FitResult
    ) -> None:
        found = predict(result.model, squares.pixels[~squares.train]).probabilities
        expected = choose_thresholds(squares.targets[~squares.train], found)
        assert tuple(result.thresholds) == FINDINGS
        assert np.allclose(list(result.thresholds.values()), expected, atol=1e-5)
        assert float(result.model.temperature) != 1.0

    def test_the_checkpoint_keeps_how_it_was_trained(self, result: FitResult) -> None:
        kept = result.checkpoint(describe(slim(), licence="CC0"), snapshot="abc")
        assert (kept.licence, kept.snapshot, kept.thresholds) == ("CC0", "abc", result.thresholds)
        assert kept.training["seed"] == 7
        assert kept.training["settings"]["learning_rate"] == 3e-3


class TestRepeatability:
    squares = Squares(48, seed=1)

    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
    def test_two_runs_end_with_the_same_bits(self, precision: str) -> None:
        settings = SETTINGS.model_copy(update={"precision": precision})
        first = fitted(self.squares, settings=settings)
        torch.rand(3)  # torch's own generator plays no part
        second = fitted(self.squares, settings=settings)
        assert first.best_epoch > 0
        assert same_weights(first.model, second.model)
        assert first.history == second.history

    def test_another_seed_ends_elsewhere(self) -> None:
        first, second = fitted(self.squares), fitted(self.squares, seed=8)
        assert not same_weights(first.model, second.model)

    @pytest.mark.parametrize("last_step", [6, 7])
    def test_a_killed_run_that_goes_on_ends_with_the_same_bits(self, tmp_path: Path, last_step: int) -> None:
        whole = fitted(self.squares)
        seen: list[int] = []

        def killer(done: int, total: int) -> None:
            if done == last_step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fitted(self.squares, progress=killer, resume=tmp_path / "state")
        resumed = fitted(self.squares, progress=lambda done, _: seen.append(done), resume=tmp_path / "state")
        assert seen[0] == (4 if last_step == 6 else 7)
        assert whole.best_epoch > 0
        assert same_weights(whole.model, resumed.model)
        assert whole.history == resumed.history
        assert whole.thresholds == resumed.thresholds
        assert not (tmp_path / "state").exists()

    def test_the_state_of_another_run_is_not_gone_on_with(self, tmp_path: Path) -> None:
        def killer(done: int, total: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fitted(self.squares, progress=killer, resume=tmp_path)
        seen: list[int] = []
        fitted(self.squares, progress=lambda done, _: seen.append(done), resume=tmp_path, seed=8)
        assert seen[0] == 1


class TestWhatTrainingLooksAt:
    def test_cells_of_weight_zero_change_nothing(self) -> None:
        squares = Squares(32)
        settings = SETTINGS.model_copy(update={"epochs": 1})
        weights = squares.weights.copy()
        weights[1::4, 5] = 0.0
        flipped = squares.targets.copy()
        flipped[1::4, 5] = 1 - flipped[1::4, 5]
        first = fitted(squares, settings=settings, weights=weights)
        second = fitted(squares, settings=settings, weights=weights, targets=flipped)
        assert first.history == second.history

    def test_validation_images_are_never_trained_on(self) -> None:
        squares, settings = Squares(32), SETTINGS.model_copy(update={"epochs": 1})
        read: list[str] = []

        class Watched(Squares):
            def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
                read.append(",".join(ids))
                return super().read(ids)

        fitted(squares, images=Watched(32), settings=settings)
        held_out = set(squares.ids[~squares.train])
        batches = [set(text.split(",")) for text in read]
        assert all(batch <= held_out or not batch & held_out for batch in batches)

    def test_a_finding_without_positives_is_named_and_its_head_left_alone(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        squares = Squares(64)
        squares.targets[:, 12] = 0.0
        base = slim()
        before = base.head.weight[12].detach().clone()
        settings = SETTINGS.model_copy(update={"epochs": 1, "weight_decay": 0.0})
        with caplog.at_level(logging.WARNING):
            result = fitted(squares, base, settings=settings)
        assert result.untrained == ("Fracture",)
        assert result.unvalidated == ("Fracture",)
        assert "Fracture" in caplog.text
        assert result.history[-1]["auroc"]["Fracture"] is None
        assert result.thresholds["Fracture"] == 0.5
        assert torch.equal(result.model.head.weight[12], before)

    def test_the_loss_that_is_not_finite_stops_with_the_images_ids(self) -> None:
        squares = Squares(32)
        base = slim()
        with torch.no_grad():
            base.head.bias[3] = float("nan")
        with pytest.raises(TrainingError, match=r"loss of 16 of 16 images .*I0\d\d.* and 8 more.*learning_rate"):
            fitted(squares, base)

    def test_progress_counts_every_step_to_the_end(self) -> None:
        seen: list[tuple[int, int]] = []
        fitted(Squares(32), progress=lambda done, total: seen.append((done, total)))
        assert seen == [(step, 6) for step in range(1, 7)]

    def test_a_batch_larger_than_the_data_is_all_of_it(self) -> None:
        result = fitted(Squares(8), settings=SETTINGS.model_copy(update={"batch_size": 64, "epochs": 1}))
        assert result.training["batch_size"] == 6


class TestLocalRecipe:
    squares = Squares(48, seed=1)

    def test_parts_of_a_batch_add_up_to_the_batch(self) -> None:
        settings = SETTINGS.model_copy(update={"epochs": 1, "learning_rate": 1e-4, "augment": False})
        base = slim().eval()
        for module in base.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0  # the one thing that differs between parts
                module.forward = partial(frozen_norm, module)  # type: ignore[method-assign]
        twin = deepcopy(base)
        for module in twin.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.forward = partial(frozen_norm, module)  # type: ignore[method-assign]
        whole = fitted(self.squares, base, settings=settings)
        parts = fitted(self.squares, twin, settings=settings.model_copy(update={"micro_batch": 5}))
        assert parts.history[1]["loss"] == pytest.approx(whole.history[1]["loss"], rel=1e-4)
        assert parts.training["micro_batch"] == 5

    def test_out_of_memory_halves_what_is_done_at_once_and_keeps_the_batch(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Greedy(ChestModel):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if self.training and len(x) > 6:
                    raise torch.OutOfMemoryError
                return super().forward(x)

        base = slim()
        base.__class__ = Greedy
        with caplog.at_level(logging.WARNING):
            result = fitted(self.squares, base, settings=SETTINGS.model_copy(update={"epochs": 1}))
        assert result.training["micro_batch"] == 4
        assert result.training["batch_size"] == 16
        assert "4 images at once from here on, the batch stays 16" in caplog.text

    def test_an_image_that_never_fits_is_an_error(self) -> None:
        class Glutton(ChestModel):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if self.training:
                    raise torch.OutOfMemoryError
                return super().forward(x)

        base = slim()
        base.__class__ = Glutton
        with pytest.raises(TrainingError, match=r"one image alone does not fit"):
            fitted(self.squares, base)

    def test_while_the_head_is_probed_the_trunk_rests(self) -> None:
        base = slim()
        before = {name: value.clone() for name, value in base.trunk.state_dict().items()}
        head = base.head.weight.detach().clone()
        settings = SETTINGS.model_copy(update={"epochs": 2, "probe_epochs": 2})
        seen: list[float] = []
        fitted(self.squares, base, settings=settings, on_epoch=lambda entry, _: seen.append(entry["loss"]))
        assert all(torch.equal(before[name], value) for name, value in base.trunk.state_dict().items())
        assert seen[1] < seen[0]
        assert base.head.weight.requires_grad
        assert base.trunk.conv0.weight.requires_grad
        assert head.shape == base.head.weight.shape

    def test_lower_layers_learn_more_slowly(self) -> None:
        moved = {}
        for decay in (1.0, 0.5):
            base, start = slim(), slim()
            settings = SETTINGS.model_copy(update={"layer_decay": decay, "weight_decay": 0.0})
            fitted(self.squares, base, settings=settings)
            moved[decay] = (base.trunk.conv0.weight - start.trunk.conv0.weight).abs().mean().item()
        assert moved[0.5] < 0.1 * moved[1.0]

    def test_the_averaged_weights_are_judged_and_a_killed_run_keeps_them(self, tmp_path: Path) -> None:
        settings = SETTINGS.model_copy(update={"average": 0.9})
        whole, plain = fitted(self.squares, settings=settings), fitted(self.squares)
        assert [e["loss"] for e in whole.history] == [e["loss"] for e in plain.history]
        assert [e["validation_auroc"] for e in whole.history[1:]] != [e["validation_auroc"] for e in plain.history[1:]]

        def killer(done: int, total: int) -> None:
            if done == 7:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fitted(self.squares, settings=settings, progress=killer, resume=tmp_path)
        resumed = fitted(self.squares, settings=settings, resume=tmp_path)
        assert resumed.history == whole.history
        assert same_weights(resumed.model, whole.model)

    def test_patience_ends_a_run_that_does_not_improve(self) -> None:
        settings = SETTINGS.model_copy(update={"epochs": 6, "patience": 1, "learning_rate": 1e-9})
        seen: list[tuple[int, int]] = []
        result = fitted(self.squares, settings=settings, progress=lambda done, total: seen.append((done, total)))
        assert len(result.history) == result.best_epoch + 2 < 7
        assert seen[-1] == (18, 18)

    def test_a_later_epoch_that_chance_may_have_put_below_the_best_is_kept(self, tmp_path: Path) -> None:
        settings = SETTINGS.model_copy(
            update={"epochs": 4, "learning_rate": 3e-2}
        )  # so fast that epochs go up and down
        plain = fitted(self.squares, settings=settings)
        values = [entry["validation_auroc"] for entry in plain.history]
        assert plain.best_epoch < 4
        wide = fitted(self.squares, settings=settings.model_copy(update={"tolerance": 100.0}))
        assert (wide.best_epoch, wide.training["top_epoch"]) == (4, plain.best_epoch)
        assert [entry["validation_auroc"] for entry in wide.history] == values

        def killer(done: int, total: int) -> None:
            if done == 10:
                raise KeyboardInterrupt

        narrow = settings.model_copy(update={"tolerance": 1.0})
        whole = fitted(self.squares, settings=narrow)
        with pytest.raises(KeyboardInterrupt):
            fitted(self.squares, settings=narrow, progress=killer, resume=tmp_path)
        resumed = fitted(self.squares, settings=narrow, resume=tmp_path)
        assert (resumed.best_epoch, resumed.history) == (whole.best_epoch, whole.history)
        assert same_weights(resumed.model, whole.model)

    def test_chance_between_two_epochs_is_that_of_drawing_the_images_again(self) -> None:
        rng = np.random.default_rng(0)
        truth = (rng.random((120, 14)) < 0.4).astype(float)
        first, second = (truth + rng.normal(0, spread, truth.shape) for spread in (1.0, 1.2))
        told = Validation(slim(), self.squares, np.arange(120).astype(str), truth, None, fast=False)

        def mean(rows: NDArray[Any], scores: NDArray[Any]) -> float:
            return float(np.mean([auroc(truth[rows, k], scores[rows, k]) for k in range(14)]))

        again = (rng.integers(0, 120, 120) for _ in range(300))
        spread = np.std([mean(rows, first) - mean(rows, second) for rows in again])
        assert told.chance(first, second, errors=1.0) == pytest.approx(spread, rel=0.2)
        assert told.chance(first, second, errors=2.0) == 2 * told.chance(first, second, errors=1.0)

    def test_a_findings_weight_scales_its_part_of_the_loss(self) -> None:
        settings = SETTINGS.model_copy(update={"epochs": 1})
        only = settings.model_copy(update={"finding_weights": {f: 0.0 for f in FINDINGS if f != "Edema"}})
        alone = np.zeros_like(self.squares.weights)
        alone[:, FINDINGS.index("Edema")] = 1.0
        first = fitted(self.squares, settings=only)
        second = fitted(self.squares, settings=settings, weights=alone)
        assert first.history[1]["loss"] == second.history[1]["loss"]

    def test_a_weight_of_an_unknown_finding_is_an_error(self) -> None:
        with pytest.raises(UnknownFinding, match="Hernia"):
            fitted(self.squares, settings=SETTINGS.model_copy(update={"finding_weights": {"Hernia": 2.0}}))

    def test_every_site_is_drawn_as_often_and_every_patient_of_it(self) -> None:
        chances = balanced(["a", "a", "a", "b", "c"], ["X", "X", "X", "X", "Y"])
        assert chances[:4].sum() == pytest.approx(chances[4])
        assert chances[:3].sum() == pytest.approx(chances[3])

    def test_images_of_other_sides_play_no_part_in_how_often_a_site_is_drawn(self) -> None:
        patients, sites = ["a", "b", "c", "d", "e"], ["X", "X", "Y", "Y", "Y"]
        chances = balanced(patients, sites, np.array([True, True, True, False, False]))
        assert chances[:2].sum() == pytest.approx(chances[2])
        assert chances[3:].tolist() == [0, 0]

    def test_an_image_of_no_chance_is_never_drawn(self) -> None:
        read: set[str] = set()

        class Watched(Squares):
            def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
                read.update(ids)
                return super().read(ids)

        chances = np.ones(48)
        chances[[1, 2]] = 0.0
        fitted(self.squares, images=Watched(48, seed=1), sampling=chances)
        assert not {"I001", "I002"} & read
        assert len(read) > 30

    def test_the_margin_loss_falls_as_positives_and_negatives_part(self) -> None:
        target = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
        weight = torch.ones_like(target)
        wrong, mixed, right = (
            auc_margin(torch.tensor(values)[:, None], target, weight).sum()
            for values in ([-9.0, -9, 9, 9], [0.0, 1, 0, 1], [9.0, 9, -9, -9])
        )
        assert wrong > mixed > right
        assert right == pytest.approx(0.0, abs=1e-5)

    def test_the_margin_loss_leaves_a_finding_of_one_class_out(self) -> None:
        target = torch.ones(3, 1)
        assert auc_margin(torch.randn(3, 1), target, torch.ones(3, 1)).sum() == 0

    def test_the_last_epochs_may_use_the_margin(self) -> None:
        settings = SETTINGS.model_copy(update={"epochs": 2})
        plain = fitted(self.squares, settings=settings)
        margin = fitted(self.squares, settings=settings.model_copy(update={"margin_epochs": 1}))
        assert margin.history[1] == plain.history[1]
        assert margin.history[2]["loss"] != plain.history[2]["loss"]


class TestRefusals:
    squares = Squares(16)

    def test_no_image_to_train_on(self) -> None:
        with pytest.raises(TrainingError, match="0 images to train on and 16 to validate on"):
            fitted(self.squares, train=np.zeros(16, bool), validation=np.ones(16, bool))

    def test_no_positive_at_all(self) -> None:
        with pytest.raises(TrainingError, match="no finding has a single positive"):
            fitted(self.squares, targets=np.zeros_like(self.squares.targets))

    def test_validation_that_judges_nothing(self) -> None:
        targets = self.squares.targets.copy()
        targets[~self.squares.train] = 1.0
        with pytest.raises(TrainingError, match="both present and absent among the validation"):
            fitted(self.squares, targets=targets)

    def test_targets_of_another_shape(self) -> None:
        with pytest.raises(TrainingError, match=r"expected \(16, 14\)"):
            fitted(self.squares, targets=self.squares.targets[:, :5])

    @pytest.mark.parametrize("value", [-1.0, float("nan"), 2.0])
    def test_labels_without_a_policy(self, value: float) -> None:
        targets = self.squares.targets.copy()
        targets[0, 0] = value
        with pytest.raises(TrainingError, match="apply the uncertainty policy"):
            fitted(self.squares, targets=targets)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
    def test_cuda_that_is_not_there(self) -> None:
        with pytest.raises(TrainingError, match="CUDA was asked for"):
            fitted(self.squares, settings=SETTINGS.model_copy(update={"device": "cuda"}))


class TestSchedule:
    def test_the_learning_rate_rises_then_falls_to_nearly_nothing(self) -> None:
        factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
        assert factors[0] == pytest.approx(0.1)
        assert max(factors) == factors[9] == 1.0
        assert factors == sorted(factors[:10]) + sorted(factors[10:], reverse=True)
        assert 0 < factors[-1] < 0.001

    def test_a_single_step_is_taken_at_the_full_rate(self) -> None:
        assert learning_rate_factor(0, 1, 0.1) == 1.0


class TestAugmentation:
    def test_the_draws_depend_on_seed_epoch_and_step_alone(self) -> None:
        first, again, other = (draw_augmentation(4, 0, 1, step) for step in (2, 2, 3))
        assert torch.equal(first.affine, again.affine)
        assert torch.equal(first.gamma, again.gamma)
        assert not torch.equal(first.affine, other.affine)

    def test_no_image_is_mirrored_and_none_is_moved_far(self) -> None:
        affine = draw_augmentation(1000, 0, 0, 0).affine
        determinant = affine[:, 0, 0] * affine[:, 1, 1] - affine[:, 0, 1] * affine[:, 1, 0]
        assert determinant.min() > 0.8
        assert determinant.max() < 1.25
        assert affine[:, :, 2].abs().max() <= 0.08


class TestTemperature:
    def test_overconfident_logits_are_divided_by_the_factor_that_they_were_multiplied_by(self) -> None:
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(20000, 2))
        truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
        assert best_temperature(truth, 1 / (1 + np.exp(-2.5 * logits))) == pytest.approx(2.5, rel=0.05)

    def test_blank_cells_are_left_out(self) -> None:
        truth = np.array([[1.0, np.nan], [0.0, np.nan]])
        assert best_temperature(truth, np.array([[0.9, 0.0], [0.1, 1.0]])) == 0.25
