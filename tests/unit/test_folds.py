"""An ensemble of folds: what each network sees, how ranks are joined, and that a killed one goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from radia.errors import CheckpointError, LabelError
from radia.explain import grad_cam
from radia.fit import FitResult, fit_folds
from radia.members import LEVELS, RankMean
from radia.metrics import auroc, midranks
from radia.model import (
    ChestModel,
    Preprocessing,
    build,
    describe,
    load_checkpoint,
    member,
    save_checkpoint,
    to_input,
    together,
)
from radia.predict import predict
from radia.settings import FinetuneSettings
from tests.unit.test_fit import Squares, same_weights, slim

SETTINGS = FinetuneSettings(
    epochs=2, batch_size=16, learning_rate=3e-3, threads=1, precision="32-true", folds=3, augment=False
)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 32, 32), dtype=np.uint8)


def logits_of(model: ChestModel, pixels: NDArray[np.uint8]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(to_input(torch.from_numpy(pixels), model.preprocessing))


def joined(models: Sequence[ChestModel], pixels: NDArray[np.uint8] = IMAGES) -> ChestModel:
    return together(models, torch.stack([logits_of(model, pixels) for model in models]))


class TestRankMean:
    def test_networks_that_are_alike_give_their_own_logit_also_beyond_what_was_seen(self) -> None:
        one = slim(1)
        other = np.random.default_rng(1).integers(0, 256, (5, 32, 32), dtype=np.uint8)
        assert torch.allclose(logits_of(joined([one, one]), other), logits_of(one, other), atol=1e-4)

    def test_the_order_is_that_of_the_mean_of_ranks(self) -> None:
        draws = torch.randn(3, LEVELS, 2, generator=torch.Generator().manual_seed(0))
        draws[1] *= 40  # a network whose logits lie far apart counts no more than the others
        found = RankMean.of([torch.zeros(2)] * 3, draws)(draws).numpy()
        for finding in range(2):
            ranks = np.mean([midranks(draws[k, :, finding].numpy().astype(float)) for k in range(3)], axis=0)
            apart = ranks[:, None] - ranks
            assert (np.sign(found[:, None, finding] - found[:, finding]) == np.sign(apart))[abs(apart) > 0.1].all()

    def test_its_slopes_are_its_derivative(self) -> None:
        ranks = RankMean.of([torch.zeros(4)] * 2, torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(1)))
        logits = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
        ranks(logits).sum().backward()
        assert torch.allclose(ranks.joint(logits)[1], logits.grad, atol=1e-5)

    def test_a_network_that_says_the_same_of_all_images_breaks_nothing(self) -> None:
        reference = torch.stack([torch.zeros(9, 1), torch.linspace(-2, 2, 9)[:, None]])
        assert torch.isfinite(RankMean.of([torch.zeros(1)] * 2, reference)(reference)).all()


class TestTogether:
    @pytest.mark.parametrize("pooling", ["average", "pcam"])
    def test_what_is_kept_says_the_same_when_it_is_read_again(self, tmp_path: Path, pooling: str) -> None:
        models = [build("densenet-slim", preprocessing=Preprocessing(32), seed=s, pooling=pooling) for s in range(2)]
        whole = joined(models)
        save_checkpoint(tmp_path / "model", whole, describe(whole))
        again, checkpoint = load_checkpoint(tmp_path / "model")
        assert checkpoint.members == again.members == 2
        assert torch.equal(logits_of(again, IMAGES), logits_of(whole, IMAGES))
        assert predict(again, IMAGES).features.shape == (12, 2 * 176)

    def test_one_network_of_it_is_that_network(self) -> None:
        models = [slim(1), slim(2)]
        assert torch.allclose(logits_of(member(joined(models), 1), IMAGES), logits_of(models[1], IMAGES), atol=1e-5)

    @pytest.mark.parametrize("pooling", ["average", "pcam"])
    def test_its_heat_maps_are_grad_cam_of_the_joint_logit(self, pooling: str) -> None:
        models = [build("densenet-slim", preprocessing=Preprocessing(32), seed=s, pooling=pooling) for s in range(2)]
        whole = joined(models)
        features = whole.features(to_input(torch.from_numpy(IMAGES[:2]), whole.preprocessing)).detach()
        features.requires_grad_()
        logits = whole.judge(features)
        found = grad_cam(whole, IMAGES[:2])
        assert np.allclose(found.logits, logits.detach(), atol=1e-4)
        cells = features.shape[-1] * features.shape[-2]
        for finding in (0, 7):
            (gradient,) = torch.autograd.grad(logits[:, finding].sum(), features, retain_graph=True)
            expected = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu() * cells
            assert expected.max() > 0
            assert np.allclose(found.maps[:, finding], expected.detach(), atol=1e-3)

    def test_networks_of_two_kinds_are_refused(self) -> None:
        other = build("densenet-slim", preprocessing=Preprocessing(64))
        with pytest.raises(CheckpointError, match="single networks of one kind"):
            together([slim(), other], torch.zeros(2, 3, 14))


class TestFitFolds:
    squares = Squares(96, seed=1)
    patients = np.array([f"P{number // 2}" for number in range(96)])
    sites = np.where(np.arange(96) < 60, "North", "South")

    def fitted(self, squares: Squares | None = None, model: ChestModel | None = None, **options: Any) -> FitResult:
        squares = squares or self.squares
        known: dict[str, Any] = {
            "images": squares,
            "ids": squares.ids,
            "targets": squares.targets,
            "weights": squares.weights,
            "train": np.arange(96) // 2 % 4 > 0,
            "validation": np.arange(96) // 2 % 4 == 0,
            "settings": SETTINGS,
            "seed": 7,
            "patients": self.patients,
            "sites": self.sites,
        }
        return fit_folds(model or slim(), **(known | options))

    @pytest.fixture(scope="class")
    def result(self) -> FitResult:
        return self.fitted()

    def test_every_network_goes_without_other_patients_and_sites_are_dealt_evenly(self) -> None:
        asked: list[set[str]] = []

        def watched(model: ChestModel, *, train: NDArray[np.bool_], **call: Any) -> FitResult:
            asked.append(set(self.squares.ids[train]))
            raise KeyboardInterrupt

        for seed in range(2):
            with pytest.raises(KeyboardInterrupt):
                self.fitted(by=watched, seed=seed)
        from radia.fit.folds import _folds

        train = np.arange(96) // 2 % 4 > 0
        fold = _folds(self.patients, self.sites, train, 3, 0)
        assert asked[0] == set(self.squares.ids[train & (fold != 0)])
        assert asked[0] != asked[1]
        assert all(len({fold[row] for row in np.flatnonzero(self.patients == p)}) == 1 for p in set(self.patients))
        for site in ("North", "South"):
            counts = np.bincount(fold[train & (self.sites == site)], minlength=3)
            assert counts.max() - counts.min() <= 2  # one patient of two images

    def test_it_is_one_model_that_is_calibrated_with_thresholds_and_says_what_it_is(self, result: FitResult) -> None:
        assert result.model.members == 3
        assert float(result.model.temperature) != 1.0
        assert result.training["folds"] == 3
        assert len(result.training["best_epoch"]) == 3
        assert [entry["fold"] for entry in result.history] == [0] * 3 + [1] * 3 + [2] * 3 + [None]
        assert set(result.thresholds) == set(result.model.findings)

    def test_its_last_entry_is_its_own(self, result: FitResult) -> None:
        inside = np.arange(96) // 2 % 4 == 0
        found = predict(result.model, self.squares.pixels[inside]).probabilities
        mean = np.mean([auroc(self.squares.targets[inside, k], found[:, k]) for k in range(14)])
        assert result.history[result.best_epoch]["validation_auroc"] == pytest.approx(mean, abs=1e-6)

    def test_killed_in_its_second_network_it_goes_on_to_the_same_weights(
        self, result: FitResult, tmp_path: Path
    ) -> None:
        def killer(done: int, total: int) -> None:
            if done == 9:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.fitted(progress=killer, resume=tmp_path / "state")
        seen: list[int] = []
        again = self.fitted(progress=lambda done, _: seen.append(done), resume=tmp_path / "state")
        assert min(seen) > 6  # the first network was not trained again
        assert same_weights(again.model, result.model)
        assert again.history == result.history
        assert again.thresholds == result.thresholds
        assert not (tmp_path / "state").exists()

    def test_networks_of_another_run_are_not_taken(self, result: FitResult, tmp_path: Path) -> None:
        def killer(done: int, total: int) -> None:
            if done == 9:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.fitted(progress=killer, resume=tmp_path / "state", seed=8)
        assert same_weights(self.fitted(resume=tmp_path / "state").model, result.model)

    def test_an_ensemble_as_the_base_is_gone_on_with_network_by_network(self, result: FitResult) -> None:
        starts: list[ChestModel] = []

        def noted(model: ChestModel, **call: Any) -> FitResult:
            starts.append(model)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.fitted(model=result.model, by=noted)
        assert starts[0].members == 1
        assert same_weights(starts[0], member(result.model, 0))

    def test_fewer_patients_than_folds_are_an_error(self) -> None:
        with pytest.raises(LabelError, match="1 patients cannot be dealt into 3 folds"):
            self.fitted(patients=np.full(96, "P"))
