from __future__ import annotations

import numpy as np
import pytest
import torch

from radia.model import ChestModel, Preprocessing, build, to_input
from radia.predict import predict


@pytest.fixture(scope="module")
def model() -> ChestModel:
    torch.set_num_threads(1)
    return build("densenet-slim", preprocessing=Preprocessing(32), seed=1)


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)


def test_probabilities_and_features_are_the_models_own(model: ChestModel) -> None:
    found = predict(model, IMAGES)
    model.eval()
    with torch.no_grad():
        x = to_input(torch.from_numpy(IMAGES), model.preprocessing)
        assert np.allclose(found.probabilities, torch.sigmoid(model(x)), atol=1e-6)
        assert np.allclose(found.features, model.pooled(x), atol=1e-6)
    model.train()


def test_the_batch_size_changes_nothing(model: ChestModel) -> None:
    whole, pairs = predict(model, IMAGES), predict(model, IMAGES, batch_size=2)
    assert np.allclose(whole.probabilities, pairs.probabilities, atol=1e-6)
    assert pairs.features.shape == (5, 176)


def test_batches_from_an_iterable_keep_their_order(model: ChestModel) -> None:
    chunks = iter([IMAGES[:1], IMAGES[1:4], IMAGES[4:]])
    assert np.allclose(predict(model, chunks).probabilities, predict(model, IMAGES).probabilities, atol=1e-6)


def test_images_of_another_side_are_resized(model: ChestModel) -> None:
    large = IMAGES.repeat(4, axis=1).repeat(4, axis=2)
    assert predict(model, large).probabilities.shape == (5, 14)


def test_a_read_only_memory_map_is_fine(model: ChestModel) -> None:
    frozen = IMAGES.copy()
    frozen.flags.writeable = False
    assert np.array_equal(predict(model, frozen).probabilities, predict(model, IMAGES).probabilities)


def test_the_models_mode_stays_as_it_was_and_batch_norm_learns_nothing(model: ChestModel) -> None:
    model.train()
    before = model.trunk.norm0.running_mean.clone()
    predict(model, IMAGES)
    assert model.training
    assert torch.equal(model.trunk.norm0.running_mean, before)


def test_no_image_gives_empty_tables(model: ChestModel) -> None:
    found = predict(model, IMAGES[:0])
    assert (found.probabilities.shape, found.features.shape) == ((0, 14), (0, 176))


def test_the_temperature_is_applied(model: ChestModel) -> None:
    plain = predict(model, IMAGES).probabilities.astype(float)
    model.temperature.fill_(2.0)
    tempered = predict(model, IMAGES).probabilities
    model.temperature.fill_(1.0)
    logits = np.log(plain / (1 - plain))
    assert np.allclose(tempered, 1 / (1 + np.exp(-logits / 2)), atol=1e-5)
