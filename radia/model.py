"""The classifier: a backbone that gives maps of features, a linear head over their pooled values, and its checkpoint.

Here: what a model is, how gray pixels enter it, how it is kept on disk. Not here: training (fit), use (predict), heat
maps (explain), where a base model comes from (base_weights). Imports no orchestration: it runs alone on a GPU machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file as map_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet, convnext_tiny, vit_b_16

from radia.errors import CheckpointError
from radia.findings import FINDINGS, ancestors
from radia.members import RankMean, SideBySide
from radia.workspace import written_whole

POOLINGS = ("average", "pcam")
WEIGHTS_FILE, META_FILE = "model.safetensors", "model.json"
FORMAT = 1
PHANTOMS = "phantoms"
"""The source that a stand-in's checkpoint names."""


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


VIEWS = ((0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (-3.0, 0.0, 0.0), (0.0, 0.03, 0.03), (0.0, -0.03, -0.03))
"""Degrees turned, and moves to the right and down in parts of the side, of the copies that are looked at."""


def view(number: int, n: int, device: torch.device | str) -> Augmentation | None:
    """How n images are moved for the view of this number; the first is the image as it is."""
    degrees, x, y = VIEWS[number]
    if number == 0:
        return None
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    affine = torch.tensor([[cosine, -sine, 2 * x], [sine, cosine, 2 * y]], device=device).repeat(n, 1, 1)
    ones = torch.ones(n, device=device)
    return Augmentation(affine, ones, ones, torch.zeros(n, device=device))


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
    al. 2020). tree: a logit speaks of a finding among images that have what stands above it in CheXpert's tree, and
    probabilities multiply down the tree (Pham et al. 2019). views: how many slightly moved copies of an image are
    looked at, whose logits are averaged (never a mirrored one). members: networks side by side, whose ranks are
    averaged; the head's weight then holds theirs one after the other, and its bias is added to what they say together.
    """

    temperature: Tensor
    ranks: RankMean | None

    def __init__(
        self,
        backbone: str,
        trunk: nn.Module,
        channels: int,
        findings: tuple[str, ...],
        preprocessing: Preprocessing,
        pooling: str = "average",
        *,
        tree: bool = False,
        views: int = 1,
        members: int = 1,
    ) -> None:
        super().__init__()
        self.tree = tree
        self.views = views
        self.pooling = pooling
        self.backbone = backbone
        self.findings = findings
        self.preprocessing = preprocessing
        self.trunk = trunk
        self.head = nn.Linear(channels, len(findings))
        self.ranks = RankMean(members, len(findings)) if members > 1 else None
        self.register_buffer("temperature", torch.ones(()))

    @property
    def members(self) -> int:
        """How many networks it averages."""
        return 1 if self.ranks is None else len(self.ranks.bias)

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
        if self.ranks is None:
            return self.pooled_logits(*self.parts(features)[0])
        together: Tensor = self.ranks(torch.stack([self.pooled_logits(*part) for part in self.parts(features)]))
        return together + self.head.bias

    def parts(self, features: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Each network's maps [n, channels, h, w], and the weight [findings, channels] and bias [findings] it has."""
        if self.ranks is None:
            return [(features, self.head.weight, self.head.bias)]
        maps, weights = features.chunk(self.members, dim=1), self.head.weight.chunk(self.members, dim=1)
        return list(zip(maps, weights, self.ranks.bias, strict=True))

    def pooled_logits(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Logits [n, findings] of one network."""
        if self.pooling == "average":
            return functional.linear(features.mean(dim=(2, 3)), weight, bias)
        # a linear head and weights that sum to one change places: pool the head's map instead of the features
        maps = torch.einsum("fc,nchw->nfhw", weight, features) + bias.view(1, -1, 1, 1)
        attention = torch.sigmoid(maps)
        return (attention * maps).sum((2, 3)) / attention.sum((2, 3))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities in 0..1, float32, of the same shape as the logits."""
        logits = logits.float()
        return torch.sigmoid((_down_the_tree(logits, self.findings) if self.tree else logits) / self.temperature)


def _down_the_tree(logits: Tensor, findings: tuple[str, ...]) -> Tensor:
    """Logits [n, findings] of being present at all, from those of being present where the finding above is."""
    given = functional.logsigmoid(logits)
    paths = [[column, *(findings.index(name) for name in ancestors(finding) if name in findings)]
             for column, finding in enumerate(findings)]  # fmt: skip
    log_p = torch.stack([given[:, path].sum(1) for path in paths], dim=1).clamp(max=-1e-7)
    return log_p - torch.log(-torch.expm1(log_p))


def build(
    backbone: str,
    findings: tuple[str, ...] = FINDINGS,
    *,
    preprocessing: Preprocessing | None = None,
    pooling: str = "average",
    seed: int = 0,
    members: int = 1,
    tree: bool = False,
    views: int = 1,
) -> ChestModel:
    """A model with random weights; the same seed gives the same weights. members: networks side by side.

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
        if members > 1:
            trunk = SideBySide([trunk, *(architecture.trunk()[0] for _ in range(members - 1))])
        how = preprocessing or Preprocessing(architecture.side)
        size = channels * members
        return ChestModel(backbone, trunk, size, findings, how, pooling, tree=tree, views=views, members=members)


def together(models: Sequence[ChestModel], logits: Tensor) -> ChestModel:
    """One model of several alike but for their weights: their ranks averaged, told by these reference images.

    logits: what each says of the reference images, [models, n, findings]. Heat maps, checkpoints and serving treat it
    as they do a single network. Raises CheckpointError where the models are not of one kind.
    """
    first = models[0]
    kinds = {(m.backbone, m.findings, m.preprocessing, m.pooling, m.tree, m.views, m.members) for m in models}
    if len(kinds) > 1 or first.members > 1:
        raise CheckpointError("an ensemble is made of single networks of one kind: same backbone, findings and input")
    trunk, channels = SideBySide([model.trunk for model in models]), first.head.in_features * len(models)
    known = (first.findings, first.preprocessing, first.pooling)
    shape: Any = {"tree": first.tree, "views": first.views, "members": len(models)}
    whole = ChestModel(first.backbone, trunk, channels, *known, **shape)
    with torch.no_grad():
        whole.head.weight.copy_(torch.cat([model.head.weight for model in models], dim=1))
        whole.head.bias.zero_()
    whole.ranks = RankMean.of([model.head.bias for model in models], logits)
    return whole.eval()


def member(model: ChestModel, number: int) -> ChestModel:
    """A copy of one network of an ensemble, or of the model itself where it is none."""
    if not isinstance(model.trunk, SideBySide) or model.ranks is None:
        return deepcopy(model)
    trunk, channels = deepcopy(model.trunk.trunks[number]), model.head.in_features // model.members
    known = (model.findings, model.preprocessing, model.pooling)
    one = ChestModel(model.backbone, trunk, channels, *known, tree=model.tree, views=model.views)
    with torch.no_grad():
        one.head.weight.copy_(model.head.weight.chunk(model.members, dim=1)[number])
        one.head.bias.copy_(model.ranks.bias[number])
    return one


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


class _TokensAsMaps(nn.Module):
    """torchvision's ViT up to its last norm (Dosovitskiy et al., ICLR 2021), its patches laid out as maps."""

    def __init__(self) -> None:
        super().__init__()
        network = vit_b_16()
        self.conv_proj = nn.Conv2d(1, network.hidden_dim, kernel_size=16, stride=16)
        self.class_token = network.class_token
        self.encoder = network.encoder

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, 768, side / 16, side / 16]; another side than 224 has its places interpolated."""
        patches = self.conv_proj(x)
        n, channels, high, wide = patches.shape
        tokens = torch.cat([self.class_token.expand(n, -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        places = self._places(high, wide)
        tokens = self.encoder.ln(self.encoder.layers(self.encoder.dropout(tokens + places)))
        maps: Tensor = tokens[:, 1:].transpose(1, 2).reshape(n, channels, high, wide)
        return maps

    def _places(self, high: int, wide: int) -> Tensor:
        known: Tensor = self.encoder.pos_embedding
        side = math.isqrt(known.shape[1] - 1)
        if (high, wide) == (side, side):
            return known
        grid = known[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        moved = functional.interpolate(grid, (high, wide), mode="bicubic", align_corners=False)
        return torch.cat([known[:, :1], moved.flatten(2).transpose(1, 2)], dim=1)


BACKBONES: dict[str, Architecture] = {
    "densenet121": Architecture(lambda: _densenet(32, (6, 12, 24, 16), 64, 4), side=320),
    # small enough for two CPU cores; three blocks, so that heat maps keep a cell for every 16 pixels
    "densenet-slim": Architecture(lambda: _densenet(16, (2, 4, 8), 32, 2), side=128),
    "convnext-tiny": Architecture(_convnext, side=224),
    "vit-b16": Architecture(lambda: (_TokensAsMaps(), 768), side=224),
}


# --- checkpoints ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """What must be known of a model besides its weights: model.json beside model.safetensors.

    thresholds: a finding is called present at this probability or above; frozen on validation. temperature: divides
    the logits. snapshot: digest of the data it was trained on. source: where its base came from, with `licence`.
    initialised: findings whose head started at random because the base did not know them. training: settings and
    outcome of the training, as JSON values. tree, views: as ChestModel's; members: networks that it averages.
    """

    findings: tuple[str, ...]
    backbone: str
    side: int
    mean: float = 0.5
    std: float = 0.25
    pooling: str = "average"
    tree: bool = False
    views: int = 1
    members: int = 1
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

    @property
    def stands_in(self) -> bool:
        """Whether it was trained on phantoms, to try a site that has no model yet; not for patients."""
        return self.source == PHANTOMS


def describe(model: ChestModel, **values: Any) -> Checkpoint:
    """The checkpoint of a model as it stands, with any other field given by name."""
    return replace(_of_itself(Checkpoint(model.findings, model.backbone, model.preprocessing.side), model), **values)


def _of_itself(checkpoint: Checkpoint, model: ChestModel) -> Checkpoint:
    """The checkpoint with what the model itself knows."""
    how = model.preprocessing
    return replace(
        checkpoint,
        findings=model.findings,
        backbone=model.backbone,
        side=how.side,
        mean=how.mean,
        std=how.std,
        pooling=model.pooling,
        tree=model.tree,
        views=model.views,
        members=model.members,
        temperature=float(model.temperature),
    )


def save_checkpoint(folder: Path, model: ChestModel, checkpoint: Checkpoint) -> None:
    """Writes model.safetensors and model.json into the folder, whole or not at all. Raises StorageFull.

    What the model itself knows (findings, backbone, preprocessing, temperature) is taken from it.
    """
    checkpoint = _of_itself(checkpoint, model)
    weights = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    meta = {"format": FORMAT, "sha256": hashlib.sha256(weights).hexdigest(), **asdict(checkpoint)}
    with written_whole(folder) as partial:
        partial.mkdir()
        (partial / WEIGHTS_FILE).write_bytes(weights)
        (partial / META_FILE).write_text(json.dumps(meta, indent=2, sort_keys=True, allow_nan=False) + "\n")


def load_checkpoint(
    folder: Path,
    device: str | torch.device = "cpu",
    *,
    findings: tuple[str, ...] | None = FINDINGS,
    mapped: bool = False,
) -> tuple[ChestModel, Checkpoint]:
    """The model, ready for use (eval mode), and what is known of it.

    findings: those that the model must have, in this order; None takes any. mapped: the weights stay in the file, which
    processes that only predict share; it must not change under them. Raises CheckpointError where the folder holds no
    checkpoint, where it is damaged, or where the model was trained for other findings.
    """
    meta = _read_meta(folder)
    checkpoint = _checkpoint_from(meta, folder)
    if findings is not None and checkpoint.findings != findings:
        raise CheckpointError(
            f"{folder} was trained for other findings: {_difference(checkpoint.findings, findings)}; "
            "give a model of the same findings, or map its head with a base of another name"
        )
    tensors = _read_weights(folder, str(meta.get("sha256", "")), mapped=mapped)
    model = build(
        checkpoint.backbone,
        checkpoint.findings,
        preprocessing=checkpoint.preprocessing,
        pooling=checkpoint.pooling,
        members=checkpoint.members,
        tree=checkpoint.tree,
        views=checkpoint.views,
    )
    try:
        model.load_state_dict(tensors, assign=mapped)
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
        plausible = min(checkpoint.side, checkpoint.std, checkpoint.temperature) > 0
        plausible = plausible and min(checkpoint.views, checkpoint.members) >= 1
        plausible = plausible and all(math.isfinite(value) for value in checkpoint.thresholds.values())
    except (TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / META_FILE} is damaged: a field is missing or of another type") from error
    if not plausible:
        raise CheckpointError(
            f"{folder / META_FILE} is damaged: side, std, temperature, views or a threshold is impossible"
        )
    return checkpoint


def _read_weights(folder: Path, expected: str, *, mapped: bool) -> dict[str, Tensor]:
    file = folder / WEIGHTS_FILE
    try:
        with file.open("rb") as source:
            found = hashlib.file_digest(source, "sha256").hexdigest()
            source.seek(0)
            weights = b"" if mapped else source.read()
    except OSError as error:
        raise CheckpointError(f"{folder} holds no weights: {WEIGHTS_FILE} is missing or unreadable") from error
    if found != expected:
        raise CheckpointError(f"{folder / WEIGHTS_FILE} is damaged: its SHA-256 is not the one in {META_FILE}")
    try:
        tensors: dict[str, Tensor] = map_tensors(file) if mapped else load_tensors(weights)
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
