"""The classifier: a backbone that gives maps of features, a linear head over their pooled values, and its checkpoint.

Here: what a model is, how gray pixels enter it, how it is kept on disk. Not here: training (fit), use (predict), heat
maps (explain), where a base model comes from (base_weights). Imports no orchestration: it runs alone on a GPU machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet, convnext_tiny

from radia.errors import CheckpointError
from radia.findings import FINDINGS
from radia.workspace import written_whole

Backbone = Literal["densenet121", "densenet-slim", "convnext-tiny"]

POOLINGS = ("average", "pcam")
WEIGHTS_FILE, META_FILE = "model.safetensors", "model.json"
FORMAT = 1


# --- pixels ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preprocessing:
    """How uint8 gray becomes model input: resized to `side`, scaled to 0..1, then (x - mean) / std."""

    side: int = 320
    mean: float = 0.5
    std: float = 0.25


@dataclass(frozen=True)
class Augmentation:
    """What happens to each image of a training batch, drawn beforehand so that a resumed run repeats it.

    affine: [n, 2, 3] as for torch's affine_grid, in units where the image spans -1..1. gamma, gain, offset: [n], the
    gray g in 0..1 becomes gain * g ** gamma + offset (exposure, contrast and window of the display).
    """

    affine: Tensor
    gamma: Tensor
    gain: Tensor
    offset: Tensor


def to_input(pixels: Tensor, preprocessing: Preprocessing, augmentation: Augmentation | None = None) -> Tensor:
    """Model input, float32 [n, 1, side, side], from uint8 gray [n, rows, columns] (0 black), on the pixels' device.

    The only way from pixels into a model: training, prediction and heat maps all come through here. Shrinking is
    antialiased. What an augmentation brings in from outside the image is black, as the letterbox's margin is.
    """
    side = preprocessing.side
    gray = pixels.unsqueeze(1).to(torch.float32) / 255.0
    if gray.shape[-2:] != (side, side):
        gray = functional.interpolate(gray, (side, side), mode="bilinear", align_corners=False, antialias=True)
    if augmentation is not None:
        gray = _augmented(gray, augmentation)
    return (gray - preprocessing.mean) / preprocessing.std


def _augmented(gray: Tensor, draws: Augmentation) -> Tensor:
    moved = functional.grid_sample(
        gray, _grid(draws.affine, gray.shape[-1]), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    gamma, gain, offset = (value.view(-1, 1, 1, 1) for value in (draws.gamma, draws.gain, draws.offset))
    # pow has an infinite slope at 0 and is undefined below: keep clear of it
    return (gain * moved.clamp(min=1e-4) ** gamma + offset).clamp(0.0, 1.0)


def _grid(affine: Tensor, side: int) -> Tensor:
    """torch's affine_grid, [n, side, side, 2], as sums of a row and a column: three times faster on a CPU."""
    at = (torch.arange(side, device=affine.device, dtype=torch.float32) * 2 + 1) / side - 1
    across = affine[:, :, 0, None] * at  # [n, 2, columns]
    down = affine[:, :, 1, None] * at + affine[:, :, 2, None]  # [n, 2, rows]
    return (down[:, :, :, None] + across[:, :, None, :]).permute(0, 2, 3, 1)


# --- the network ----------------------------------------------------------------------------------------------------


class ChestModel(nn.Module):
    """One gray radiograph in, one logit a finding out. The head is linear over pooled maps of features.

    pooling: `average` over the image, or `pcam`, where each finding's own probability map weighs the places (Ye et
    al. 2020).
    """

    temperature: Tensor

    def __init__(
        self,
        backbone: str,
        trunk: nn.Module,
        channels: int,
        findings: tuple[str, ...],
        preprocessing: Preprocessing,
        pooling: str = "average",
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.backbone = backbone
        self.findings = findings
        self.preprocessing = preprocessing
        self.trunk = trunk
        self.head = nn.Linear(channels, len(findings))
        self.register_buffer("temperature", torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        """Maps of features after the last ReLU, [n, channels, h, w], from model input [n, 1, side, side]."""
        return functional.relu(self.trunk(x))

    def pooled(self, x: Tensor) -> Tensor:
        """Features averaged over the image, [n, channels]."""
        return self.features(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, findings], before calibration."""
        return self.judge(self.features(x))

    def judge(self, features: Tensor) -> Tensor:
        """Logits [n, findings] of maps of features [n, channels, h, w]."""
        if self.pooling == "average":
            average: Tensor = self.head(features.mean(dim=(2, 3)))
            return average
        # a linear head and weights that sum to one change places: pool the head's map instead of the features
        maps = torch.einsum("fc,nchw->nfhw", self.head.weight, features) + self.head.bias.view(1, -1, 1, 1)
        attention = torch.sigmoid(maps)
        return (attention * maps).sum((2, 3)) / attention.sum((2, 3))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities in 0..1, float32, of the same shape as the logits."""
        return torch.sigmoid(logits.float() / self.temperature)


def build(
    backbone: str,
    findings: tuple[str, ...] = FINDINGS,
    *,
    preprocessing: Preprocessing | None = None,
    pooling: str = "average",
    seed: int = 0,
) -> ChestModel:
    """A model with random weights; the same seed gives the same weights.

    Raises CheckpointError for a backbone or a pooling that is not known.
    """
    if pooling not in POOLINGS:
        raise CheckpointError(f"unknown pooling {pooling!r}; expected one of: {', '.join(POOLINGS)}")
    if backbone not in BACKBONES:
        raise CheckpointError(f"unknown backbone {backbone!r}; expected one of: {', '.join(BACKBONES)}")
    architecture = BACKBONES[backbone]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk, channels = architecture.trunk()
        how = preprocessing or Preprocessing(architecture.side)
        return ChestModel(backbone, trunk, channels, findings, how, pooling)


@dataclass(frozen=True)
class Architecture:
    """How a backbone is made: its trunk with the number of channels that it ends in, and the side it is trained at."""

    trunk: Callable[[], tuple[nn.Module, int]]
    side: int


def _densenet(growth: int, blocks: tuple[int, ...], stem: int, bottleneck: int) -> tuple[nn.Module, int]:
    """torchvision's DenseNet up to its last batch norm (Huang et al., CVPR 2017), for one gray channel."""
    network = DenseNet(growth, blocks, stem, bottleneck, num_classes=1)
    trunk: nn.Sequential = network.features
    trunk.conv0 = nn.Conv2d(1, stem, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(trunk.conv0.weight)
    for module in trunk.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # heat maps and hooks need the values before it
    return trunk, int(network.classifier.in_features)


def _convnext() -> tuple[nn.Module, int]:
    """torchvision's ConvNeXt-T (Liu et al., CVPR 2022) with its last norm, for one gray channel."""
    network = convnext_tiny()
    network.features[0][0] = nn.Conv2d(1, 96, kernel_size=4, stride=4)
    return nn.Sequential(*network.features, network.classifier[0]), 768


BACKBONES: dict[str, Architecture] = {
    "densenet121": Architecture(lambda: _densenet(32, (6, 12, 24, 16), 64, 4), side=320),
    # small enough for two CPU cores; three blocks, so that heat maps keep a cell for every 16 pixels
    "densenet-slim": Architecture(lambda: _densenet(16, (2, 4, 8), 32, 2), side=128),
    "convnext-tiny": Architecture(_convnext, side=224),
}


# --- checkpoints ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """What must be known of a model besides its weights: model.json beside model.safetensors.

    thresholds: a finding is called present at this probability or above; frozen on validation. temperature: divides
    the logits. snapshot: digest of the data it was trained on. source: where its base came from, with `licence`.
    initialised: findings whose head started at random because the base did not know them. training: settings and
    outcome of the training, as JSON values.
    """

    findings: tuple[str, ...]
    backbone: str
    side: int
    mean: float = 0.5
    std: float = 0.25
    pooling: str = "average"
    thresholds: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    snapshot: str | None = None
    source: str = "random"
    licence: str = ""
    initialised: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def preprocessing(self) -> Preprocessing:
        """How pixels enter this model."""
        return Preprocessing(self.side, self.mean, self.std)


def describe(model: ChestModel, **values: Any) -> Checkpoint:
    """The checkpoint of a model as it stands, with any other field given by name."""
    how = model.preprocessing
    known = Checkpoint(model.findings, model.backbone, how.side, how.mean, how.std, model.pooling)
    return replace(known, temperature=float(model.temperature), **values)


def save_checkpoint(folder: Path, model: ChestModel, checkpoint: Checkpoint) -> None:
    """Writes model.safetensors and model.json into the folder, whole or not at all. Raises StorageFull.

    What the model itself knows (findings, backbone, preprocessing, temperature) is taken from it.
    """
    how = model.preprocessing
    checkpoint = replace(
        checkpoint,
        findings=model.findings,
        backbone=model.backbone,
        side=how.side,
        mean=how.mean,
        std=how.std,
        pooling=model.pooling,
        temperature=float(model.temperature),
    )
    weights = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    meta = {"format": FORMAT, "sha256": hashlib.sha256(weights).hexdigest(), **asdict(checkpoint)}
    with written_whole(folder) as partial:
        partial.mkdir()
        (partial / WEIGHTS_FILE).write_bytes(weights)
        (partial / META_FILE).write_text(json.dumps(meta, indent=2, sort_keys=True, allow_nan=False) + "\n")


def load_checkpoint(
    folder: Path, device: str | torch.device = "cpu", *, findings: tuple[str, ...] | None = FINDINGS
) -> tuple[ChestModel, Checkpoint]:
    """The model, ready for use (eval mode), and what is known of it.

    findings: those that the model must have, in this order; None takes any. Raises CheckpointError where the folder
    holds no checkpoint, where it is damaged, or where the model was trained for other findings.
    """
    meta = _read_meta(folder)
    checkpoint = _checkpoint_from(meta, folder)
    if findings is not None and checkpoint.findings != findings:
        raise CheckpointError(
            f"{folder} was trained for other findings: {_difference(checkpoint.findings, findings)}; "
            "give a model of the same findings, or map its head with a base of another name"
        )
    tensors = _read_weights(folder, str(meta.get("sha256", "")))
    how, pooling = checkpoint.preprocessing, checkpoint.pooling
    model = build(checkpoint.backbone, checkpoint.findings, preprocessing=how, pooling=pooling)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}: the weights are not those of a {checkpoint.backbone} with {len(checkpoint.findings)} findings"
        ) from error
    return model.to(device).eval(), checkpoint


def read_checkpoint(folder: Path) -> Checkpoint:
    """What is known of a model, without its weights. Raises CheckpointError."""
    return _checkpoint_from(_read_meta(folder), folder)


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads((folder / META_FILE).read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no checkpoint: {META_FILE} is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / META_FILE} is damaged: not readable as JSON") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise CheckpointError(f"{folder / META_FILE} is not a RADIA checkpoint of format {FORMAT}")
    return meta


def _checkpoint_from(meta: dict[str, Any], folder: Path) -> Checkpoint:
    names = {entry.name for entry in fields(Checkpoint)}
    values: dict[str, Any] = {name: value for name, value in meta.items() if name in names}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    try:
        checkpoint = Checkpoint(**values)
        plausible = checkpoint.side > 0 and checkpoint.std > 0 and checkpoint.temperature > 0
        plausible = plausible and all(math.isfinite(value) for value in checkpoint.thresholds.values())
    except (TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / META_FILE} is damaged: a field is missing or of another type") from error
    if not plausible:
        raise CheckpointError(f"{folder / META_FILE} is damaged: side, std, temperature or a threshold is impossible")
    return checkpoint


def _read_weights(folder: Path, expected: str) -> dict[str, Tensor]:
    try:
        weights = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder} holds no weights: {WEIGHTS_FILE} is missing or unreadable") from error
    if hashlib.sha256(weights).hexdigest() != expected:
        raise CheckpointError(f"{folder / WEIGHTS_FILE} is damaged: its SHA-256 is not the one in {META_FILE}")
    try:
        tensors: dict[str, Tensor] = load_tensors(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS_FILE} is damaged: not readable as safetensors") from error
    return tensors


def _difference(found: tuple[str, ...], expected: tuple[str, ...]) -> str:
    missing = [finding for finding in expected if finding not in found]
    extra = [finding for finding in found if finding not in expected]
    if not missing and not extra:
        return "the same ones in another order"
    parts = [f"it lacks {', '.join(missing)}"] * bool(missing) + [f"it has {', '.join(extra)}"] * bool(extra)
    return "; ".join(parts)
