"""Heat maps: where on the image a model sees each finding. Nothing here draws; it returns arrays.

Grad-CAM (Selvaraju et al., ICCV 2017) weighs each map of features by the mean gradient of the logit over it. This
model's head is linear over average-pooled maps, so that gradient is the head's own weight divided by the number of
cells, and all findings' maps come from one forward pass: relu(sum_c w_kc A_c), equal to Grad-CAM up to that number.
With PCAM pooling the gradient is the head's weight times one number an image and finding, known in closed form.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from radia.model import ChestModel, to_input
from radia.predict import as_tensor, evaluating, predict


class GradCam(NamedTuple):
    """logits: [n, findings]. maps: [n, findings, h, w], ≥ 0, in units of the logit. pooled: [n, channels] features.

    With average pooling and before the ReLU, a map's mean plus the head's bias is the logit: a cell's value is what it
    speaks for the finding.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32]
    pooled: NDArray[np.float32]


def grad_cam(model: ChestModel, pixels: NDArray[np.uint8] | Tensor) -> GradCam:
    """The maps of all findings at once, for uint8 images [n, rows, columns], in one forward pass."""
    device = next(model.parameters()).device
    with torch.inference_mode(), evaluating(model):
        features = model.features(to_input(as_tensor(pixels, device), model.preprocessing))
        logits = model.judge(features)
        maps = torch.einsum("fc,nchw->nfhw", model.head.weight, features)
        if model.pooling == "pcam":
            maps = maps * _pcam_gradient(maps + model.head.bias.view(1, -1, 1, 1), logits)
        pooled = features.float().mean(dim=(2, 3))
        return GradCam(logits.cpu().numpy(), maps.relu().cpu().numpy(), pooled.cpu().numpy())


class Explained(NamedTuple):
    """What `predict` says, with the maps of `grad_cam`: probabilities [n, findings], features [n, channels]."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    maps: NDArray[np.float32]


def explained(model: ChestModel, pixels: NDArray[np.uint8]) -> Explained:
    """Probabilities, features and maps of uint8 images [n, rows, columns]; in one forward pass where there is one view.

    A model that averages views is asked for each of them; its maps are of the image as it stands.
    """
    if model.views > 1:
        predicted = predict(model, pixels)
        return Explained(predicted.probabilities, predicted.features, grad_cam(model, pixels).maps)
    seen = grad_cam(model, pixels)
    with torch.inference_mode():
        device = next(model.parameters()).device
        probabilities = model.probabilities(torch.from_numpy(seen.logits).to(device)).cpu().numpy()
    return Explained(probabilities, seen.pooled, seen.maps)


def _pcam_gradient(maps: Tensor, logits: Tensor) -> Tensor:
    """The logit's derivative by the head's map, summed over the map, [n, findings, 1, 1]; 1 for average pooling.

    PCAM's logit is sum(p m) / sum(p) with p = sigmoid(m), so the derivative is (p + p (1 - p) (m - logit)) / sum(p).
    """
    p = torch.sigmoid(maps)
    beyond = (p * (1 - p) * (maps - logits[:, :, None, None])).sum((2, 3), keepdim=True)
    return 1 + beyond / p.sum((2, 3), keepdim=True)


def upsampled(maps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Maps [..., h, w] enlarged to [..., side, side] (bilinear), each scaled to a peak of 1; an empty one stays 0."""
    flat = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32)).reshape(-1, 1, *maps.shape[-2:])
    large = functional.interpolate(flat, (side, side), mode="bilinear", align_corners=False)
    peak = large.amax(dim=(2, 3), keepdim=True)
    scaled = torch.where(peak > 0, large / peak.clamp(min=torch.finfo(torch.float32).tiny), torch.zeros_like(large))
    result: NDArray[np.float32] = scaled.reshape(*maps.shape[:-2], side, side).numpy()
    return result
