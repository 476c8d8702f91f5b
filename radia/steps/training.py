"""Steps that train: the base, and a candidate fine-tuned from it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from radia import digests
from radia.errors import RadiaError, SnapshotError
from radia.findings import FINDINGS, training_targets
from radia.settings import FinetuneSettings, LabelSettings
from radia.steps.data import blind_reads, current_snapshot
from radia.steps.reads import gold_reads
from radia.steps.run import Outcome, Run, Work, once
from radia.steps.soft_labels import soft_findings, soft_inputs, soft_targets_of
from radia.steps.telling import Telling
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from radia.base_weights import Base
    from radia.fit import FitResult, Judge
    from radia.model import ChestModel
    from radia.snapshot import Snapshot

    Mask = NDArray[np.bool_]

log = logging.getLogger(__name__)

JUDGED_BY = "judged-by.parquet"
"""In the models folder: the labels and reads that the candidate's epochs were judged by."""


def base_model(run: Run, *, download: bool = False) -> Outcome:
    """Puts the base model's checkpoint at `models/base`. download: whether published weights may be fetched for it.

    Where no model is in use yet, the embedded stand-in is trained on phantoms and registered as the first one: the
    summary says so, because such a model is for trying out only.
    """
    from radia import registry
    from radia.model import read_checkpoint, save_checkpoint

    site, base = run.workspace, run.settings.finetune.base
    target = site.models / "base"
    if base == registry.CHAMPION_URI and registry.champion(site) is None:
        _train_stand_in(run)
    folder = registry.checkpoint_folder(site, base) if base.startswith("mlflow:") else Path(base)

    def work() -> Work:
        if folder.is_dir():
            with written_whole(target) as partial:
                shutil.copytree(folder, partial)
        else:
            found = _published_base(run, download=download)
            save_checkpoint(target, found.model, found.checkpoint)
        kept = read_checkpoint(target)
        told = {"base": base, "stand_in": kept.stands_in, "licence": kept.licence or "not recorded"}
        missing = {"new_heads": list(kept.initialised)} if kept.initialised else {}
        return {"checkpoint": digests.of_folder(target)}, told | missing

    inputs = {"base": digests.of_folder(folder) if folder.is_dir() else base}
    return once(run, "base-model", inputs=inputs, produces=[target / "model.safetensors"], work=work)


def finetune(run: Run, *, tell: bool = True) -> Outcome:
    """Fine-tunes the base on the snapshot's training side; thresholds come from its validation side.

    tell: whether MLflow hears of it while it goes on.
    """
    from radia.fit import balanced
    from radia.images import ImageStore
    from radia.model import load_checkpoint, save_checkpoint

    site, frozen, settings = run.workspace, current_snapshot(run), run.settings
    target, judge = site.models / "candidate", _judge(run, frozen)

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        log.info("epochs are judged by %s", judge.name if judge else "the given labels of the validation side")
        model, base = load_checkpoint(site.models / "base")
        patients, sites = frozen.images["patient"].to_numpy(), frozen.images["site"].to_numpy()
        side = frozen.images["split"].to_numpy()
        targets, weights = _doubted(run, frozen, *targets_of(frozen, settings.labels), rows=side == "train")
        store = ImageStore(site.images)
        ids = frozen.images["image"].to_numpy()
        telling = _telling(run, frozen, digests.of_json(inputs)) if tell else None
        result = _fitted(
            run,
            model,
            patients=patients,
            sites=sites,
            images=store,
            ids=ids,
            targets=targets,
            weights=weights,
            train=side == "train",
            validation=side == "validation",
            settings=settings.finetune,
            seed=settings.seed,
            sampling=balanced(patients, sites, side == "train") if settings.finetune.balanced else None,
            judge=judge,
            progress=run.ticker("finetune"),
            resume=site.models / f"resume-{frozen.digest[:12]}",
            telling=telling,
        )
        save_checkpoint(target, result.model, result.checkpoint(base, snapshot=frozen.digest))
        _keep_familiarity(target, result, store.read, train=ids[side == "train"], validation=ids[side == "validation"])
        return {"checkpoint": digests.of_folder(target)}, _training_summary(result)

    inputs = {
        "snapshot": frozen.digest,
        "base": digests.of_folder(site.models / "base"),
        "settings": settings.finetune.digest(),
        "labels": settings.labels.digest(),
        "seed": str(settings.seed),
        **doubt_inputs(run),
        **soft_inputs(run),
        **({"judge": digests.of_file(site.models / JUDGED_BY)} if judge else {}),
    }
    return once(run, "finetune", inputs=inputs, produces=[target / "model.safetensors"], work=work)


def finetune_public(run: Run, data: str, *, download: bool = False) -> Outcome:
    """Trains the base that params.yaml names on a public collection (`chexpert:DIR` ...), into models/public-chexpert.

    download: whether published weights may be fetched. The collection's own split is used; its images are decoded once,
    at the side of the model's input.
    """
    import numpy as np

    from radia import registry
    from radia.fit import balanced
    from radia.model import load_checkpoint, save_checkpoint
    from radia.public_data import TRAIN, VALIDATION, pack, read_public

    site, settings = run.workspace, run.settings
    public, named = read_public(data), settings.finetune.base
    out = site.models / f"public-{public.name}"
    folder = registry.checkpoint_folder(site, named) if named.startswith("mlflow:") else Path(named)
    tables = digests.of_json([public.ids.tolist(), public.split.tolist(), public.labels.tobytes().hex()])

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        if folder.is_dir():
            model, base = load_checkpoint(folder)
        else:
            found = _published_base(run, download=download)
            model, base = found.model, found.checkpoint
        side = settings.finetune.side or model.preprocessing.side
        packed = site.external / digests.of_json([data, side])[:12] / "images"
        targets, weights = training_targets(
            public.labels,
            settings.labels.uncertain_by_finding,
            default=settings.labels.uncertain,
            blank_is_absent=settings.labels.blank_is_absent,
        )
        one_site = np.full(len(public.ids), public.name)
        result = _fitted(
            run,
            model,
            patients=public.patients,
            sites=one_site,
            images=pack(public, packed, side=side, progress=run.ticker("images")),
            ids=public.ids,
            targets=targets,
            weights=weights,
            train=public.split == TRAIN,
            validation=public.split == VALIDATION,
            settings=settings.finetune,
            seed=settings.seed,
            sampling=balanced(public.patients, one_site, public.split == TRAIN) if settings.finetune.balanced else None,
            progress=run.ticker("finetune"),
            resume=site.models / f"resume-{tables[:12]}",
        )
        save_checkpoint(out, result.model, result.checkpoint(base, snapshot=None))
        return {"checkpoint": digests.of_folder(out)}, {
            **_training_summary(result),
            "folder": str(out),
            "licence": base.licence,
        }

    inputs = {
        "data": tables,
        "base": digests.of_folder(folder) if folder.is_dir() else named,
        "settings": settings.finetune.digest(),
        "labels": settings.labels.digest(),
        "seed": str(settings.seed),
    }
    return once(run, "train-base", public.name, inputs=inputs, produces=[out / "model.safetensors"], work=work)


def _fitted(
    run: Run,
    model: ChestModel,
    *,
    patients: NDArray[Any],
    sites: NDArray[Any],
    settings: FinetuneSettings,
    telling: Telling | None = None,
    **call: Any,
) -> FitResult:
    """One network trained, or an ensemble of them where params.yaml asks for folds; by the workers that it asks for."""
    from radia.fit import fit_folds, train

    by = partial(train, where=run.settings.train)
    call |= {"settings": settings, "on_epoch": telling and telling.epoch}
    try:
        if settings.folds > 1:
            result = fit_folds(model, patients=patients, sites=sites, by=by, **call)
        else:
            result = by(model, **call)
    except RadiaError:
        if telling:
            telling.failed()
        raise
    if telling:
        telling.end(result.history)
    return result


def _telling(run: Run, frozen: Snapshot, key: str) -> Telling:
    """What tells MLflow of a training on the snapshot, with some of its validation images."""
    from radia.images import ImageStore
    from radia.learning import chosen, examples

    inside = frozen.images["split"].to_numpy() == "validation"
    given = given_truth(frozen, run.settings.labels)[inside]
    rows = chosen(given)
    ids = list(frozen.images["image"].to_numpy()[inside][rows])

    def draw(entry: Mapping[str, Any], probabilities: NDArray[np.float32]) -> bytes:
        images = ImageStore(run.workspace.images).read(ids)
        return examples(images, given[rows], probabilities[rows], epoch=entry["epoch"])

    return Telling(run, f"retrain {frozen.digest[:12]}", key, examples=draw)


def _judge(run: Run, frozen: Snapshot) -> Judge | None:
    """What chooses the epoch where validation studies were read blindly; None: the given labels do.

    What it rests on is kept at `models/judged-by.parquet`: in a folder to which a model's material was brought back,
    that is all there is of labels and reads.
    """
    import pandas as pd

    from radia.fit.reads import judge_by_reads, reads_and_labels

    site, images = run.workspace, frozen.images[frozen.images["split"] == "validation"]
    kept = site.models / JUDGED_BY
    if (site.labels / "given.parquet").is_file():
        studies = sorted(set(images["study"]))
        reads, given = gold_reads(site, studies), given_by_image(run, frozen).groupby(level=0).first().loc[studies]
        table = None if reads is None else reads_and_labels(given, reads)
        if table is None:
            kept.unlink(missing_ok=True)
            return None
        with written_whole(kept) as partial:
            table.to_parquet(partial, index=False)
    if not kept.is_file():
        return None
    return judge_by_reads(pd.read_parquet(kept), images["study"].to_numpy(), FINDINGS)


def _train_stand_in(run: Run) -> None:
    """Trains the embedded stand-in on phantoms and registers it as the model in use."""
    import numpy as np

    from radia import registry
    from radia.base_weights import RANDOM, resolve
    from radia.fit import fit
    from radia.model import PHANTOMS, save_checkpoint
    from radia.synthetic.phantom import InMemory, public_set

    wanted, seed = run.settings.stand_in, run.settings.seed
    public = public_set(wanted.images, wanted.side, seed, workers=2, progress=run.ticker("phantoms"))
    base = resolve(RANDOM, backbone="densenet-slim", side=wanted.side, seed=seed)
    validation = np.arange(wanted.images) % 10 == 0
    images, ids = InMemory(public.images), np.arange(wanted.images).astype(str)
    result = fit(
        base.model,
        images=images,
        ids=ids,
        targets=public.labels.astype(np.float32),
        weights=np.ones_like(public.labels, dtype=np.float32),
        train=~validation,
        validation=validation,
        settings=run.settings.finetune.model_copy(
            update={
                "epochs": wanted.epochs,
                "batch_size": wanted.batch_size,
                "learning_rate": wanted.learning_rate,
                "augment": wanted.augment,
                "side": None,
                "folds": 1,
            }
        ),
        seed=seed,
        progress=run.ticker("stand-in"),
        resume=run.workspace.models / "resume-stand-in",
    )
    with TemporaryDirectory(dir=run.workspace.root) as folder:
        checkpoint = Path(folder) / "stand-in"
        described = result.checkpoint(replace(base.checkpoint, source=PHANTOMS, initialised=()), snapshot=None)
        save_checkpoint(checkpoint, result.model, described)
        _keep_familiarity(checkpoint, result, images.read, train=ids[~validation], validation=ids[validation])
        registry.register_champion(
            run.workspace, checkpoint, description="Stand-in trained on phantoms: for trying out, not for patients."
        )


def _keep_familiarity(
    checkpoint: Path,
    result: FitResult,
    read: Callable[[Sequence[str]], NDArray[np.uint8]],
    *,
    train: NDArray[Any],
    validation: NDArray[Any],
) -> None:
    """Keeps beside a new checkpoint what tells its training images from images of another kind."""
    from radia import familiarity

    learnt = familiarity.learn_from(result.model, read, train=train, validation=validation)
    if learnt is not None:
        familiarity.save(checkpoint, learnt)


def _doubted(
    run: Run, frozen: Snapshot, targets: NDArray[np.float32], weights: NDArray[np.float32], *, rows: Mask
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets and weights with what is known of wrong labels, as params.yaml asks for; only in these rows."""
    import pandas as pd

    from radia.labels import with_doubt

    settings = run.settings
    targets, weights = _softened(run, frozen, targets, weights, rows=rows)
    if not doubt_inputs(run):
        return targets, weights
    present = pd.read_parquet(run.workspace.suspects / "present.parquet").set_index("study")
    known = present.reindex(frozen.images["study"][rows])[list(FINDINGS)].to_numpy(float)
    if len(known) and (known != known).any():
        raise SnapshotError("the suspects are of another snapshot: run `radia suspects` again")
    targets, weights = targets.copy(), weights.copy()
    targets[rows], weights[rows] = with_doubt(
        targets[rows], weights[rows], known, soft=settings.labels.soft, weigh=settings.suspects.weights
    )
    return targets, weights


def _softened(
    run: Run, frozen: Snapshot, targets: NDArray[np.float32], weights: NDArray[np.float32], *, rows: Mask
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets and weights with the probabilities of the policy `soft`; only in these rows."""
    import numpy as np

    wanted = soft_findings(run)
    if not wanted:
        return targets, weights
    studies = frozen.images["study"][rows]
    given = given_by_image(run, frozen).groupby(level=0).first().reindex(studies.unique())
    soft = soft_targets_of(run, given, training_reads(run.workspace, frozen, beside=("sampling_probability",)))
    at = np.array([FINDINGS.index(finding) for finding in wanted])
    targets, weights = targets.copy(), weights.copy()
    cells = np.ix_(np.flatnonzero(rows), at)
    targets[cells], weights[cells] = soft.loc[studies].to_numpy(dtype=np.float32), 1.0
    return targets, weights


def doubt_inputs(run: Run) -> dict[str, str]:
    """The digest of the probabilities that soft labels and weights rest on, where params.yaml asks for either."""
    if not (run.settings.labels.soft or run.settings.suspects.weights):
        return {}
    path = run.workspace.suspects / "present.parquet"
    if not path.is_file():
        raise SnapshotError("soft labels and weights need suspects: run `radia suspects` first")
    return {"present": digests.of_file(path), "weights": str(run.settings.suspects.weights)}


def _published_base(run: Run, *, download: bool) -> Base:
    """A base that is neither in the registry nor a folder: published weights, or `random`."""
    from radia.base_weights import resolve

    wanted = run.settings.finetune
    return resolve(
        wanted.base,
        backbone=wanted.backbone,
        side=wanted.side,
        pooling=wanted.pooling,
        seed=run.settings.seed,
        download=download,
        progress=run.ticker("download"),
    )


def _training_summary(result: FitResult) -> dict[str, Any]:
    best = result.history[result.best_epoch]
    return {
        "epochs": len(result.history) - 1,
        "best_epoch": result.best_epoch,
        "validation_auroc": best["validation_auroc"],
        "without_positives": list(result.untrained),
    }


def given_by_image(run: Run, frozen: Snapshot) -> pd.DataFrame:
    """The labels as they were given, before any read, [n_images, 14] by study."""
    import pandas as pd

    given = pd.read_parquet(run.workspace.labels / "given.parquet").set_index("study")[list(FINDINGS)]
    return given.reindex(frozen.images["study"])


def training_reads(site: Workspace, frozen: Snapshot, *, beside: Sequence[str] = ()) -> pd.DataFrame | None:
    """What was decided of studies that are not on the test side, by study: the only reads that training may see."""
    reads = blind_reads(site)
    if reads is None:
        return None
    images = frozen.images
    outside = set(images.loc[images["split"] != "test", "study"])
    kept = reads[reads["study"].isin(outside)].set_index("study")[[*FINDINGS, *beside]]
    return kept if len(kept) else None


def targets_of(frozen: Snapshot, settings: LabelSettings) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets and weights [n_images, 14] as the policy for uncertain and blank labels gives them."""
    return training_targets(
        frozen.labels_matrix(),
        settings.uncertain_by_finding,
        default=settings.uncertain,
        blank_is_absent=settings.blank_is_absent,
    )


def given_truth(frozen: Snapshot, settings: LabelSettings) -> NDArray[np.float64]:
    """Given labels as truth, [n_images, 14]: uncertain and blank as in training; NaN where the policy ignores."""
    import numpy as np

    targets, weights = targets_of(frozen, settings)
    # a smoothed label is one again where it is judged by
    return np.where(weights > 0, (targets >= 0.5).astype(float), np.nan)
