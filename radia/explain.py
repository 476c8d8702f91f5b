"""Heat maps: where on the image a model sees each finding. Nothing here draws; it returns arrays.

Grad-CAM (Selvaraju et al., ICCV 2017) weighs each map of features by the mean gradient of the logit over it. This
model's head is linear over average-pooled maps, so that gradient is the head's own weight divided by the number of
cells, and all findings' maps come from one forward pass: relu(sum_c w_kc A_c), equal to Grad-CAM up to that number.
With PCAM pooling the gradient is the head's weight times one number an image and finding, known in closed form.

A map explains what the probability is made of: where a model averages over moved copies of an image, the map is the
mean of theirs, each moved back; where it averages networks, each one's map counts as the joint logit changes with it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from radia.model import ChestModel
from radia.predict import as_tensor, evaluating, looks


class GradCam(NamedTuple):
    """logits: [n, findings]. maps: [n, findings, h, w], ≥ 0, in units of the logit. pooled: [n, channels] features.

    With average pooling, one view and before the ReLU, a map's mean plus the head's bias is the logit: a cell's value
    is what it speaks for the finding.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32]
    pooled: NDArray[np.float32]


def grad_cam(model: ChestModel, pixels: NDArray[np.uint8] | Tensor) -> GradCam:
    """The maps of all findings at once, for uint8 images [n, rows, columns], in one forward pass a view."""
    device = next(model.parameters()).device
    logits, maps, pooled = [], [], []
    with torch.inference_mode(), evaluating(model):
        for moved, features in looks(model, as_tensor(pixels, device)):
            said, heat = _of_view(model, features)
            logits.append(said)
            maps.append(heat if moved is None else _moved_back(heat, moved.affine))
            pooled.append(features.float().mean(dim=(2, 3)))
        mean = (torch.stack(logits).mean(0), torch.stack(maps).mean(0).relu(), torch.stack(pooled).mean(0))
        return GradCam(*(values.cpu().numpy() for values in mean))


class Explained(NamedTuple):
    """What `predict` says, with the maps of `grad_cam`: probabilities [n, findings], features [n, channels]."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    maps: NDArray[np.float32]


def explained(model: ChestModel, pixels: NDArray[np.uint8]) -> Explained:
    """Probabilities, features and maps of uint8 images [n, rows, columns], in one forward pass a view."""
    seen = grad_cam(model, pixels)
    with torch.inference_mode():
        device = next(model.parameters()).device
        probabilities = model.probabilities(torch.from_numpy(seen.logits).to(device)).cpu().numpy()
    return Explained(probabilities, seen.pooled, seen.maps)


def _of_view(model: ChestModel, features: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [n, findings], and what each place adds to them, [n, findings, h, w], over all networks of the model."""
    each = [(model.pooled_logits(*part), *part) for part in model.parts(features)]
    maps = [_of_network(model, *part) for part in each]
    if model.ranks is None:
        return each[0][0], maps[0]
    logits, steep = model.ranks.joint(torch.stack([part[0] for part in each]))
    return logits + model.head.bias, (torch.stack(maps) * steep[..., None, None]).sum(0)


def _of_network(model: ChestModel, logits: Tensor, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    maps = torch.einsum("fc,nchw->nfhw", weight, features)
    return maps * _pcam_gradient(maps + bias.view(1, -1, 1, 1), logits) if model.pooling == "pcam" else maps


def _moved_back(maps: Tensor, affine: Tensor) -> Tensor:
    """Maps [n, f, h, w] of images moved by affine [n, 2, 3] as they lie on the images themselves; 0 where none does."""
    turned = torch.linalg.inv(affine[:, :, :2])
    back = torch.cat([turned, -turned @ affine[:, :, 2:]], dim=2)
    grid = functional.affine_grid(back, list(maps.shape), align_corners=False)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


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
