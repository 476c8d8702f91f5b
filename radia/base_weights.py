"""Where a base model comes from: one string names it.

===============================  =====================================================================================
random                           a new network
a folder                         a RADIA checkpoint
xrv:densenet121-res224-chex …    torchxrayvision's release files (-all, -nih, -pc, -chex, -mimic_nb, -mimic_ch)
jfhealthcare:densenet121         the CheXpert model of Ye et al. 2020; its trunk, and its head where that is linear
torchvision:densenet121 …        ImageNet (convnext_tiny, vit_b_16)
===============================  =====================================================================================

A file from outside is read without running it (radia.pickles), held to its SHA-256, and converted once to a RADIA
checkpoint in the cache. Not here: `mlflow:` names, which radia.registry turns into a folder. Imports no orchestration.
"""

from __future__ import annotations

import hashlib
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from radia.errors import CheckpointError
from radia.findings import FINDINGS
from radia.model import (
    BACKBONES,
    META_FILE,
    Checkpoint,
    ChestModel,
    Preprocessing,
    build,
    describe,
    load_checkpoint,
    save_checkpoint,
)
from radia.pickles import read_tensors
from radia.workspace import written_whole

RANDOM = "random"
SAME_FINDING = {"Effusion": "Pleural Effusion", "Pleural_Effusion": "Pleural Effusion"}
"""Names of other collections for a finding of ours. Nodule, Mass, Pleural_Thickening are narrower: not the same."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Base:
    """A model to start from, and what is known of it (where it comes from, its licence, what its head lacks)."""

    model: ChestModel
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Source:
    """A file of weights that somebody else publishes. outputs: its findings in order, '' for one that means nothing.

    sha256: the file's digest, or its first digits where the publisher gives only those. Empty where none is published:
    then the digest of the first file seen is kept beside it and every later one must match.
    """

    url: str
    outputs: tuple[str, ...]
    head: Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor] | None]
    preprocessing: Preprocessing
    channel_scale: tuple[float, ...]
    licence: str
    sha256: str = ""
    backbone: str = "densenet121"

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]


def resolve(
    name: str,
    *,
    backbone: str = "densenet121",
    findings: tuple[str, ...] = FINDINGS,
    side: int | None = None,
    pooling: str = "average",
    seed: int = 0,
    cache: Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Base:
    """The base that `name` stands for (see above).

    backbone, side, pooling, seed: for bases that do not say so themselves; seed also for heads of findings that the
    base does not know, which the checkpoint's `initialised` names. cache: where files from outside are kept, by default
    ~/.cache/radia. download: whether one that is not there may be fetched; progress then gets bytes done and in all.
    Raises CheckpointError.
    """
    if name == RANDOM:
        preprocessing = Preprocessing(side or BACKBONES[backbone].side) if backbone in BACKBONES else None
        model = build(backbone, findings, preprocessing=preprocessing, pooling=pooling, seed=seed)
        return Base(model, describe(model, source=RANDOM, initialised=findings))
    if name in SOURCES:
        folder = cache or Path.home() / ".cache" / "radia"
        base = _published(name, SOURCES[name], findings, seed, folder, download=download, progress=progress)
    elif re.match(r"[a-z]+:", name) and not Path(name).exists():
        raise CheckpointError(f"unknown base {name!r}; expected a folder, {RANDOM}, or one of: {', '.join(SOURCES)}")
    else:
        base = Base(*load_checkpoint(Path(name), findings=findings))
    if side is not None and side != base.checkpoint.side:
        base.model.preprocessing = replace(base.model.preprocessing, side=side)
        base = Base(base.model, replace(base.checkpoint, side=side))
    return base


def converted(
    tensors: Mapping[str, Tensor], source: Source, *, findings: tuple[str, ...] = FINDINGS, seed: int = 0
) -> tuple[ChestModel, tuple[str, ...]]:
    """A network of the source's backbone with the published weights, and the findings whose head starts at random.

    Raises CheckpointError where the tensors are not those of such a network.
    """
    model, (named, kind, first) = (
        build(source.backbone, findings, preprocessing=source.preprocessing, seed=seed),
        _BACKBONES[source.backbone],
    )
    wanted, found = model.trunk.state_dict(), named(tensors)
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # files older than these have none
    missing = [name for name in wanted if name not in found and name not in counters]
    if missing:
        raise CheckpointError(f"the weights are not those of a {kind}: {len(missing)} tensors lack ({missing[0]})")
    found[first] = _one_channel(found[first], source.channel_scale)
    try:
        model.trunk.load_state_dict({name: found.get(name, value) for name, value in wanted.items()})
    except RuntimeError as error:
        raise CheckpointError(f"the weights are not those of a {kind}: a tensor has another shape") from error
    head = source.head(tensors)
    known: set[str] = set()
    if head is not None:
        weight, bias = head
        for row, output in enumerate(source.outputs):
            finding = SAME_FINDING.get(output, output)
            if finding in findings:
                with torch.no_grad():
                    model.head.weight[findings.index(finding)] = weight[row]
                    model.head.bias[findings.index(finding)] = bias[row]
                known.add(finding)
    return model.eval(), tuple(finding for finding in findings if finding not in known)


# --- files from outside ---------------------------------------------------------------------------------------------


def _published(
    name: str,
    source: Source,
    findings: tuple[str, ...],
    seed: int,
    cache: Path,
    *,
    download: bool,
    progress: Progress | None,
) -> Base:
    key = hashlib.sha256(repr((name, findings, seed)).encode()).hexdigest()[:12]
    folder = cache / f"{name.replace(':', '-')}-{key}"
    if (folder / META_FILE).is_file():
        return Base(*load_checkpoint(folder, findings=findings))
    path = cache / source.file
    if not path.is_file():
        if not download:
            raise CheckpointError(
                f"{name} is not on this machine: allow the download (--download), or copy {source.url} to {path} "
                "by hand"
            )
        _download(source.url, path, progress)
    digest = _pinned(path, source)
    model, initialised = converted(read_tensors(path), source, findings=findings, seed=seed)
    checkpoint = describe(
        model, source=name, licence=source.licence, initialised=initialised, training={"source_sha256": digest}
    )
    save_checkpoint(folder, model, checkpoint)
    return Base(model, checkpoint)


def _pinned(path: Path, source: Source) -> str:
    """The file's SHA-256, after it was compared with the published one, or with that of the first file seen here."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = path.with_name(f"{path.name}.sha256")
    expected = source.sha256 or (record.read_text().strip() if record.is_file() else digest)
    if not digest.startswith(expected):
        raise CheckpointError(
            f"{path} has the SHA-256 {digest[:16]}…, expected {expected[:16]}…: it is damaged or was exchanged; "
            "delete it and fetch it again"
        )
    record.write_text(f"{digest}\n")
    return digest


def _download(url: str, path: Path, progress: Progress | None) -> None:
    if not url.startswith("https://"):
        raise CheckpointError(f"{url} is not an https address")
    try:
        with urllib.request.urlopen(url, timeout=30) as answer, written_whole(path) as partial:  # noqa: S310
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            with partial.open("wb") as file:
                while chunk := answer.read(1 << 20):
                    file.write(chunk)
                    done += len(chunk)
                    if progress:
                        progress(done, max(total, done))
    except (URLError, TimeoutError, ConnectionError) as error:
        raise CheckpointError(
            f"{url} cannot be fetched ({type(error).__name__}): is this machine offline? copy it to {path} by hand"
        ) from error


# --- names and shapes -----------------------------------------------------------------------------------------------

_LAYER = re.compile(r"(denselayer\d+)\.(norm|relu|conv)\.([12])\.")


def _trunk_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trunk's tensors under torchvision's present names, from names with any prefix and the older `norm.1`."""
    named = {}
    for name, tensor in tensors.items():
        before, marker, rest = name.partition("features.")
        if marker and before in ("", "module.", "backbone.", "module.backbone.", "model.", "densenet121."):
            named[_LAYER.sub(r"\1.\2\3.", rest)] = tensor
    return named


def _convnext_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ConvNeXt's stages, and its last norm, which torchvision counts to the classifier, as their ninth."""
    named = {name.removeprefix("features."): value for name, value in tensors.items() if name.startswith("features.")}
    last = {name: value for name, value in tensors.items() if name.startswith("classifier.0.")}
    return named | {f"8.{name.removeprefix('classifier.0.')}": value for name, value in last.items()}


def _vit_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.startswith("heads.")}


_BACKBONES: dict[str, tuple[Callable[[Mapping[str, Tensor]], dict[str, Tensor]], str, str]] = {
    "densenet121": (_trunk_names, "DenseNet-121", "conv0.weight"),
    "convnext-tiny": (_convnext_names, "ConvNeXt-T", "0.0.weight"),
    "vit-b16": (_vit_names, "ViT-B/16", "conv_proj.weight"),
}
"""How a backbone's tensors are named outside, what it is called, and which tensor is its first convolution."""


def _one_channel(weight: Tensor, scale: tuple[float, ...]) -> Tensor:
    """A first convolution for one gray channel: what three equal channels give, each with its scale, summed."""
    if weight.ndim != 4 or weight.shape[1] != len(scale):
        raise CheckpointError(f"the first convolution has shape {tuple(weight.shape)}; expected {len(scale)} channels")
    return (weight * torch.tensor(scale).view(1, -1, 1, 1)).sum(dim=1, keepdim=True)


def _classifier(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    return tensors["classifier.weight"], tensors["classifier.bias"]


def _no_head(tensors: Mapping[str, Tensor]) -> None:
    return None


def _jfhealthcare_head(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """One 1x1 convolution a finding. Usable only over plain features: not after their attention map or batch norm."""
    weights = [tensor for name, tensor in sorted(tensors.items()) if re.search(r"(^|\.)fc_\d\.weight$", name)]
    biases = [tensor for name, tensor in sorted(tensors.items()) if re.search(r"(^|\.)fc_\d\.bias$", name)]
    attended = any("attention_map." in name or re.search(r"(^|\.)bn_\d\.", name) for name in tensors)
    if attended or len(weights) != 5 or any(weight.shape != (1, 1024, 1, 1) for weight in weights):
        return None
    return torch.cat(weights).flatten(1), torch.cat(biases)


_XRV_18 = (
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
)
_XRV_KNOWN = {
    "all": range(18),
    "nih": range(14),
    "pc": (*range(14), 15),
    "chex": (0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 17),
    "mimic_nb": (0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 17),
    "mimic_ch": (0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 17),
}
_XRV_FILE = {"all": "nih-pc-chex-mimic_ch-google-openi-kaggle"}
_XRV_DATA = {
    "all": "NIH, PadChest, CheXpert, MIMIC-CXR, Google, OpenI and RSNA data, each under its own terms",
    "nih": "NIH ChestX-ray14 (free use with attribution)",
    "pc": "PadChest (research use agreement of BIMCV)",
    "chex": "CheXpert (Stanford's Research Use Agreement: no commercial use, no redistribution)",
    "mimic_nb": "MIMIC-CXR (PhysioNet Credentialed Health Data Licence)",
    "mimic_ch": "MIMIC-CXR (PhysioNet Credentialed Health Data Licence)",
}


def _xrv(key: str) -> Source:
    known = set(_XRV_KNOWN[key])
    # their input spans -1024..1024
    return Source(
        url="https://github.com/mlmed/torchxrayvision/releases/download/v1/"
        f"{_XRV_FILE.get(key, key)}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
        outputs=tuple(name if place in known else "" for place, name in enumerate(_XRV_18)),
        head=_classifier,
        preprocessing=Preprocessing(224, mean=0.5, std=1 / 2048),
        channel_scale=(1.0,),
        licence=f"torchxrayvision (Cohen et al. 2022), Apache-2.0; trained on {_XRV_DATA[key]}",
    )


_IMAGENET = {
    "densenet121": ("densenet121", "a639ec97"),
    "convnext_tiny": ("convnext-tiny", "983f1562"),
    "vit_b_16": ("vit-b16", "c867db91"),
}
"""torchvision's files hold the first digits of their SHA-256 in their names."""


def _imagenet(name: str, backbone: str, sha256: str) -> Source:
    return Source(
        url=f"https://download.pytorch.org/models/{name}-{sha256}.pth",
        outputs=(),
        head=_no_head,
        preprocessing=Preprocessing(224, mean=0.449, std=0.226),
        channel_scale=(0.226 / 0.229, 0.226 / 0.224, 0.226 / 0.225),
        licence="torchvision, BSD-3-Clause; trained on ImageNet (research use)",
        sha256=sha256,
        backbone=backbone,
    )


SOURCES: dict[str, Source] = {
    **{f"xrv:densenet121-res224-{key}": _xrv(key) for key in _XRV_KNOWN},
    "jfhealthcare:densenet121": Source(
        url="https://github.com/mlmed/torchxrayvision/releases/download/v1/"
        "baseline_models_jfhealthcare-DenseNet121_pre_train.pth",
        outputs=("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion"),
        head=_jfhealthcare_head,
        preprocessing=Preprocessing(512, mean=128 / 255, std=64 / 255),
        channel_scale=(1.0, 1.0, 1.0),
        licence="jfhealthcare/Chexpert (Ye et al. 2020), Apache-2.0; trained on CheXpert (Stanford's Research Use "
        "Agreement: no commercial use, no redistribution)",
    ),
    **{f"torchvision:{name}": _imagenet(name, backbone, sha256) for name, (backbone, sha256) in _IMAGENET.items()},
}
