"""What an evaluation looks at beside held-out patients: sets from elsewhere, further models, heat maps on regions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radia import digests
from radia.settings import ExternalSettings
from radia.steps.data import current_snapshot
from radia.steps.run import Run
from radia.workspace import written_whole

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from radia.evaluate.external import ExternalSet
    from radia.localisation import Region
    from radia.public_data import PackedImages, PublicSet

BASE, CANDIDATE = "base", "candidate"
IN_USE, PREVIOUS = "model in use", "previous model"
HERE = "held-out patients"
"""How the models beside base and candidate, and the site's own images, are named in an evaluation."""


def models_of(run: Run) -> dict[str, Path]:
    """The checkpoints that an evaluation compares, by name: base and candidate, and beside them the model in use where
    it is not the base, and the one in use before it.
    """
    from radia import registry

    models = {BASE: run.workspace.models / BASE, CANDIDATE: run.workspace.models / CANDIDATE}
    known = {digests.of_folder(folder) for folder in models.values()}
    for name, alias in ((IN_USE, registry.CHAMPION), (PREVIOUS, registry.PREVIOUS)):
        uri = f"mlflow:{registry.MODEL}@{alias}"
        if registry.has(run.workspace, uri):
            folder = registry.checkpoint_folder(run.workspace, uri)
            if digests.of_folder(folder) not in known:
                models[name] = folder
                known.add(digests.of_folder(folder))
    return models


def with_external(run: Run, images: Mapping[str, str]) -> Run:
    """The run with further sets from elsewhere, by name, as `collection:DIR`."""
    if not images:
        return run
    more = {name: ExternalSettings(images=where) for name, where in images.items()}
    judged = run.settings.evaluate.model_copy(update={"external": {**run.settings.evaluate.external, **more}})
    return replace(run, settings=run.settings.model_copy(update={"evaluate": judged}))


def elsewhere(run: Run, models: Mapping[str, Path]) -> dict[str, Any]:
    """The evaluation of every set that params.yaml names under evaluate.external, by its name.

    Each is the dict of `evaluate_candidate`, with `heat_maps` where people drew regions. Raises LabelError.
    """
    from radia.evaluate.external import evaluate_external, open_external
    from radia.model import read_checkpoint

    out: dict[str, Any] = {}
    for name, settings in run.settings.evaluate.external.items():
        found = open_external(name, settings)
        images = _packed(run, found)
        out[name] = evaluate_external(
            found,
            _predicted(run, models[BASE], found, images),
            _predicted(run, models[CANDIDATE], found, images),
            base_thresholds=read_checkpoint(models[BASE]).thresholds,
            candidate_thresholds=read_checkpoint(models[CANDIDATE]).thresholds,
            settings=run.settings.evaluate,
            seed=run.settings.seed,
        )
        if found.regions:
            patients = dict(zip(found.public.ids.tolist(), found.public.patients.tolist(), strict=True))
            out[name]["heat_maps"] = {
                model: _localised(run, models[model], found.regions, images.read, patients, None)
                for model in (BASE, CANDIDATE)
            }
    return out


def heat_maps(run: Run, models: Mapping[str, Path]) -> dict[str, Any]:
    """How well heat maps agree with the regions drawn on the site's held-out images: {model: summary}.

    Empty where params.yaml names no file under evaluate.regions. Raises LabelError.
    """
    if not _has_regions(run):
        return {}
    return {name: _explain_here(run, models[name], _regions_file(run)) for name in (BASE, CANDIDATE)}


def explain(run: Run, model: str, *, images: str = "", regions: str = "") -> dict[str, Any]:
    """Hit rate and overlap of a model's heat maps: on a public collection, or on the site's held-out images.

    model: a checkpoint's folder or `mlflow:…`; images: `chexpert:DIR`, `nih:DIR` …; regions: a file of boxes or masks
    (radia/localisation.py), else what lies beside the collection's tables, or what params.yaml names under
    evaluate.regions. Raises LabelError without any region.
    """
    from radia import registry
    from radia.errors import LabelError

    folder = registry.checkpoint_folder(run.workspace, model) if model.startswith("mlflow:") else Path(model)
    if not images:
        file = Path(regions) if regions else _regions_file(run) if run.settings.evaluate.regions else None
        if file is None:
            raise LabelError("no file of boxes is given: use --regions, or evaluate.regions in params.yaml")
        return _explain_here(run, folder, file)
    from radia.evaluate.external import regions_of
    from radia.public_data import read_public

    public = read_public(images)
    found = regions_of(public, Path(images.partition(":")[2]), regions)
    if not found:
        raise LabelError(f"{images}: no box or mask of any of its images is known: give --regions")
    return _explain_elsewhere(run, folder, public, found)


def _explain_here(run: Run, model: Path, file: Path) -> dict[str, Any]:
    from radia.images import ImageStore
    from radia.localisation import read_regions

    frozen = current_snapshot(run)
    held_out = frozen.images[frozen.images["split"] == "test"]
    regions, shapes = _by_image(run, read_regions(file), held_out)
    patients = dict(zip(held_out["image"], held_out["patient"], strict=True))
    return _localised(run, model, regions, ImageStore(run.workspace.images).read, patients, shapes)


def _explain_elsewhere(run: Run, model: Path, public: PublicSet, regions: list[Region]) -> dict[str, Any]:
    import numpy as np

    from radia.images import letterbox
    from radia.public_data import read_gray_file

    path_of = dict(zip(public.ids.tolist(), public.paths, strict=True))
    patients = dict(zip(public.ids.tolist(), public.patients.tolist(), strict=True))

    def read(ids: Sequence[str]) -> NDArray[np.uint8]:
        return np.stack([letterbox(read_gray_file(path_of[name]), run.settings.images.side) for name in ids])

    return _localised(run, model, regions, read, patients, None)


def legal_name(name: str) -> str:
    """The name of a set as the beginning of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "set"


def open_critical_checks(run: Run) -> int:
    """How many critical rules of data quality are not met now.

    None in a folder without a report, to which a snapshot was brought back: it was frozen when none was open.
    """
    path = run.workspace.quality / "report.json"
    if not path.is_file():
        return 0
    report = json.loads(path.read_text())
    return sum(result["severity"] == "critical" and not result["passed"] for result in report["results"])


def external_inputs(run: Run) -> dict[str, str]:
    """Digests of the tables behind the external sets and regions, for the record of the evaluation's inputs."""
    inputs = {}
    for name, settings in run.settings.evaluate.external.items():
        folder = Path(settings.images.partition(":")[2])
        tables = [*folder.glob("*.csv"), *folder.glob("*.json"), *folder.glob("*.txt")]
        tables += [*Path(settings.readers).glob("*.csv")] if settings.readers else []
        tables += [Path(settings.regions)] if settings.regions else []
        inputs[f"external/{name}"] = digests.of_json([[path.name, digests.of_file(path)] for path in sorted(tables)])
    if _has_regions(run):
        inputs["regions"] = digests.of_file(_regions_file(run))
    return inputs


def _has_regions(run: Run) -> bool:
    """Whether boxes are given. A folder to which only a snapshot was brought back has no films to lay them on."""
    return bool(run.settings.evaluate.regions) and any(run.workspace.manifest.glob("*.parquet"))


def _regions_file(run: Run) -> Path:
    return run.workspace.root / run.settings.evaluate.regions


def _by_image(
    run: Run, regions: Iterable[Region], held_out: pd.DataFrame
) -> tuple[list[Region], dict[str, tuple[int, int]]]:
    """Regions by accession number as regions of held-out images, and the shapes of their films."""
    from radia.dicom.pseudonyms import Pseudonymizer, load_key
    from radia.manifest import load

    pseudonymizer = Pseudonymizer(load_key(run.workspace.key_file))
    known = load(run.workspace.manifest).set_index("image").loc[held_out["image"]].reset_index()
    single = known[~known["accession"].duplicated(keep=False)]  # of two films of a study a box does not say which
    image_of = dict(zip(single["accession"], single["image"], strict=True))
    named = ((pseudonymizer.accession(region.image), region) for region in regions)
    placed = [replace(region, image=image_of[number]) for number, region in named if number in image_of]
    shapes = {row["image"]: (int(row["rows"]), int(row["columns"])) for row in single.to_dict("records")}
    return placed, shapes


def _localised(
    run: Run,
    model: Path,
    regions: Iterable[Region],
    read: Any,
    patients: Mapping[str, str],
    shapes: Mapping[str, tuple[int, int]] | None,
) -> dict[str, Any]:
    from radia.localisation import pointed, summary
    from radia.model import load_checkpoint

    network, _ = load_checkpoint(model)
    rows = pointed(network, read, list(regions), patients=patients, shapes=shapes, progress=run.ticker("heat maps"))
    return summary(rows)


def _packed(run: Run, found: ExternalSet) -> PackedImages:
    from radia.public_data import pack

    folder = run.workspace.external / digests.of_json(found.name)[:12] / "images"
    return pack(found.public, folder, side=run.settings.images.side, progress=run.ticker(found.name))


def _predicted(run: Run, model: Path, found: ExternalSet, images: PackedImages) -> NDArray[np.float64]:
    """Probabilities [n, 14] of a checkpoint on a set; kept, because the model in use is asked again and again."""
    import numpy as np

    from radia.model import load_checkpoint
    from radia.predict import predict

    asked = digests.of_json([digests.of_folder(model), images.side, found.public.ids.tolist()])
    kept = run.workspace.external / digests.of_json(found.name)[:12] / f"{asked[:32]}.npy"
    if not kept.is_file():
        network, _ = load_checkpoint(model)
        tick, ids = run.ticker(f"{found.name} predicted"), found.public.ids.tolist()
        parts = []
        for start in range(0, len(ids), 256):
            parts.append(predict(network, images.read(ids[start : start + 256])).probabilities)
            tick(min(start + 256, len(ids)), len(ids))
        with written_whole(kept) as partial, partial.open("wb") as file:
            np.save(file, np.concatenate(parts).astype(np.float64))
    probabilities: NDArray[np.float64] = np.load(kept)
    return probabilities
