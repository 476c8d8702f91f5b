from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from radia.explain import explained, grad_cam, upsampled
from radia.model import ChestModel, Preprocessing, build, to_input
from radia.predict import predict

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)


@pytest.fixture(
    scope="module", params=[("densenet-slim", "average"), ("densenet-slim", "pcam"), ("densenet121", "average")]
)
def model(request: pytest.FixtureRequest) -> ChestModel:
    torch.set_num_threads(1)
    backbone, pooling = request.param
    return build(backbone, preprocessing=Preprocessing(64), pooling=pooling, seed=2).eval()


def classical(model: ChestModel, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grad-CAM as its paper has it: one backward pass a finding, gradients averaged over the map."""
    features = model.features(to_input(torch.from_numpy(pixels), model.preprocessing)).detach().requires_grad_()
    logits = model.judge(features)
    maps = []
    for finding in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, finding].sum(), features, retain_graph=True)
        maps.append((gradient.mean((2, 3), keepdim=True) * features).sum(1).relu())
    return torch.stack(maps, 1).detach().numpy()


def test_all_maps_of_one_pass_are_classical_grad_cam_times_the_number_of_cells(model: ChestModel) -> None:
    found, expected = grad_cam(model, IMAGES).maps, classical(model, IMAGES)
    cells = found.shape[-2] * found.shape[-1]
    assert found.shape == expected.shape
    assert expected.max() > 0
    assert np.allclose(found, expected * cells, atol=1e-5)


def test_the_logits_are_the_models(model: ChestModel) -> None:
    with torch.no_grad():
        expected = model(to_input(torch.from_numpy(IMAGES), model.preprocessing))
    assert np.allclose(grad_cam(model, IMAGES).logits, expected, atol=1e-5)


@pytest.mark.parametrize("views", [1, 5])
def test_what_is_explained_in_one_pass_is_what_is_predicted(views: int) -> None:
    model = build("densenet-slim", preprocessing=Preprocessing(64), seed=2, views=views).eval()
    together, alone = explained(model, IMAGES), predict(model, IMAGES)
    assert np.allclose(together.probabilities, alone.probabilities, atol=1e-6)
    assert np.allclose(together.features, alone.features, atol=1e-5)
    assert np.allclose(together.maps, grad_cam(model, IMAGES).maps)


def test_a_map_speaks_in_the_logits_units() -> None:
    model = build("densenet-slim", preprocessing=Preprocessing(64), seed=2).eval()
    with torch.no_grad():
        model.head.weight.abs_()  # nothing for the ReLU to cut
    logits, maps, _ = grad_cam(model, IMAGES)
    assert np.allclose(maps.mean((2, 3)) + model.head.bias.detach().numpy(), logits, atol=1e-4)


class Darkness(torch.nn.Module):
    """A trunk whose one map is the image itself, brighter than the mean or nothing, in cells of four pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 4)


def test_maps_of_moved_views_are_moved_back_to_where_the_image_has_it() -> None:
    maps = {}
    spot = np.zeros((1, 128, 128), np.uint8)
    spot[0, 20:32, 88:100] = 255  # far from the middle, where turning moves most
    for views in (1, 5):
        model = ChestModel("densenet-slim", Darkness(), 1, ("Edema",), Preprocessing(128, 0.0, 1.0), views=views)
        with torch.no_grad():
            model.head.weight.fill_(1.0)
        maps[views] = grad_cam(model, spot).maps[0, 0]
    assert np.unravel_index(maps[5].argmax(), (32, 32)) in [
        (row, column) for row in (5, 6, 7) for column in (22, 23, 24)
    ]
    assert maps[5][5:8, 22:25].sum() > 0.8 * maps[1].sum()  # left where each view has it: 0.68
    assert maps[5].sum() == pytest.approx(maps[1].sum(), rel=0.05)


@pytest.mark.parametrize("views", [1, 3])
def test_a_map_explains_the_probability_that_is_given(views: int) -> None:
    model = build("densenet-slim", preprocessing=Preprocessing(64), seed=2, views=views).eval()
    predicted, seen = predict(model, IMAGES), explained(model, IMAGES)
    assert np.allclose(seen.probabilities, predicted.probabilities, atol=1e-5)
    assert np.allclose(seen.features, predicted.features, atol=1e-5)
    assert (
        np.abs(seen.maps - grad_cam(build("densenet-slim", preprocessing=Preprocessing(64), seed=2), IMAGES).maps)
        > 1e-4
    ).any() == (views > 1)


def test_upsampled_maps_peak_at_one_where_the_small_one_does() -> None:
    maps = np.zeros((1, 2, 4, 4), np.float32)
    maps[0, 0, 1, 2] = 0.3
    large = upsampled(maps, 64)
    assert large.shape == (1, 2, 64, 64)
    assert large[0, 0].max() == 1.0
    row, column = np.unravel_index(large[0, 0].argmax(), (64, 64))
    assert (row // 16, column // 16) == (1, 2)


def test_a_map_of_nothing_stays_nothing() -> None:
    assert not upsampled(np.zeros((3, 4, 4), np.float32), 8).any()
