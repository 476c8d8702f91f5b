"""Steps around a candidate: which labels to doubt, how good it is, whether it passes, its registration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radia import digests
from radia.errors import SnapshotError
from radia.findings import FINDINGS
from radia.steps.data import current_snapshot, label_inputs, read_inputs
from radia.steps.judging import (
    IN_USE,
    elsewhere,
    external_inputs,
    heat_maps,
    legal_name,
    models_of,
    open_critical_checks,
    with_external,
)
from radia.steps.monitoring import shift_since_training
from radia.steps.reads import gold_inputs, gold_reads, test_studies
from radia.steps.run import Outcome, Run, once, recorded
from radia.steps.telling import told
from radia.steps.training import JUDGED_BY, given_by_image, given_truth, training_reads
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from radia.evaluate import Picture
    from radia.predict import Predictions
    from radia.snapshot import Snapshot

    Mask = NDArray[np.bool_]

CHUNK = 256
"""Images read from the shards at a time."""

MISSES_SHOWN = 8


def suspects(run: Run) -> Outcome:
    """Ranks the given labels of the snapshot by how likely they are wrong."""
    import pandas as pd

    from radia.suspects import find_suspects, out_of_fold, present_by_study

    site, frozen = run.workspace, current_snapshot(run)
    target = site.suspects / "suspects.parquet"

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        features = _features(run, frozen)
        given = given_by_image(run, frozen)
        labels, patients = given.fillna(0.0).to_numpy(), frozen.images["patient"].to_numpy()
        settings = {"folds": run.settings.suspects.folds, "seed": run.settings.seed}
        probabilities = out_of_fold(features, labels, patients, **settings)
        # What training may use has seen no label of the test side.
        outside = frozen.images["split"].to_numpy() != "test"
        probabilities[outside] = out_of_fold(features[outside], labels[outside], patients[outside], **settings)
        by_study = pd.DataFrame(probabilities, index=given.index, columns=list(FINDINGS)).groupby(level=0).mean()
        known = given.groupby(level=0).first().fillna(0.0)
        ranked = find_suspects(known, by_study, reads=training_reads(site, frozen), seed=run.settings.seed)
        with written_whole(site.suspects) as folder:
            folder.mkdir()
            ranked.to_parquet(folder / "suspects.parquet", index=False)
            by_study.rename_axis("study").reset_index().to_parquet(folder / "probabilities.parquet", index=False)
            present = present_by_study(ranked)[list(FINDINGS)].reset_index()
            present.to_parquet(folder / "present.parquet", index=False)
        likely = int((ranked["probability"] > 0.5).sum())
        return {"suspects": digests.of_file(target)}, {"labels": len(ranked), "likely_wrong": likely}

    inputs = {
        "snapshot": frozen.digest,
        "base": digests.of_folder(site.models / "base"),
        "settings": run.settings.suspects.digest(),
        **label_inputs(site),
        **read_inputs(site),
    }
    return once(run, "suspects", inputs=inputs, produces=[target, site.suspects / "present.parquet"], work=work)


def evaluate(run: Run, *, external: Mapping[str, str] | None = None) -> Outcome:
    """Compares base and candidate on the snapshot's test side: metrics with intervals, figures, a page to read.

    external: sets from elsewhere by name, as `collection:DIR`, beside those of params.yaml.
    """
    from radia import evaluate as domain
    from radia.gate import decide
    from radia.model import read_checkpoint

    run = with_external(run, external or {})
    site, frozen = run.workspace, current_snapshot(run)
    target = site.evaluation / "metrics.json"
    models = models_of(run)
    names = {"base": "base" if IN_USE in models else IN_USE, "candidate": "candidate"}

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        held_out = frozen.images["split"].to_numpy() == "test"
        if not held_out.any():
            raise SnapshotError("the snapshot has no test image: more patients are needed before a model can be judged")
        base = _predict(run, site.models / "base", frozen, "evaluate", only=held_out).probabilities
        candidate = _predict(run, site.models / "candidate", frozen, "evaluate", only=held_out).probabilities
        rows = frozen.images[held_out].reset_index(drop=True)
        truth = given_truth(frozen, run.settings.labels)[held_out]
        limits = {
            f"{name}_thresholds": read_checkpoint(site.models / name).thresholds for name in ("base", "candidate")
        }
        gold = gold_reads(site, test_studies(frozen))
        result = domain.evaluate_candidate(
            truth,
            base.astype(float),
            candidate.astype(float),
            base_thresholds=limits["base_thresholds"],
            candidate_thresholds=limits["candidate_thresholds"],
            patients=rows["patient"].to_numpy(),
            groups=rows[["site", "sex", "age_band", "view", "manufacturer"]],
            settings=run.settings.evaluate,
            seed=run.settings.seed,
            estimates={} if gold is None else _under_noise(run, frozen, rows, base, candidate, gold, limits),
            others={
                name: (
                    _predict(run, folder, frozen, name, only=held_out).probabilities.astype(float),
                    read_checkpoint(folder).thresholds,
                )
                for name, folder in models.items()
                if name not in names
            },
        )
        result["gold_reads"] = 0 if gold is None else len(gold)
        result["open_critical_checks"] = open_critical_checks(run)
        result["external"] = elsewhere(run, models)
        further = {
            "others": result.pop("others"),
            "heat_maps": heat_maps(run, models),
            "shift": shift_since_training(run, models["base"]),
        }
        with written_whole(site.evaluation) as folder:
            folder.mkdir()
            for used in (site.gold_reads, site.suspects / "present.parquet", site.models / JUDGED_BY):
                if used.is_file():
                    shutil.copyfile(used, folder / used.name)
            (folder / "metrics.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
            (folder / "further.json").write_text(json.dumps(further, indent=1, sort_keys=True) + "\n")
            (folder / "settings.json").write_text(run.settings.model_dump_json(indent=1) + "\n")
            _predictions_table(rows, base, candidate).to_parquet(folder / "predictions.parquet", index=False)
            decision = decide(result, run.settings.gate)
            pictures = _worst_misses(run, rows, truth, candidate)
            shown = {**result, **further}
            domain.write_report(
                folder,
                shown,
                decision=decision,
                pictures=pictures,
                leading=[domain.noisy_section(result)],
                sections=domain.further_sections(shown, names),
                names=names,
            )
            for name, judged in result["external"].items():
                for figure, png in domain.draw_figures(judged, names).items():
                    (folder / "figures" / f"{legal_name(name)}-{figure}.png").write_bytes(png)
        return {"metrics": digests.of_file(target)}, domain.headline(result)

    inputs = {
        "snapshot": frozen.digest,
        "base": digests.of_folder(site.models / "base"),
        "candidate": digests.of_folder(site.models / "candidate"),
        "settings": run.settings.evaluate.digest(),
        "gate": run.settings.gate.digest(),
        "monitor": run.settings.monitor.digest(),
        "open_critical_checks": str(open_critical_checks(run)),
        **{name: digests.of_folder(folder) for name, folder in models.items()},
        **external_inputs(run),
        **gold_inputs(site),
    }
    return once(run, "evaluate", inputs=inputs, produces=[target, site.evaluation / "further.json"], work=work)


def gate(run: Run) -> Outcome:
    """Judges the candidate's evaluation by the rules of params.yaml."""
    from radia.gate import decide

    site = run.workspace
    metrics, target = site.evaluation / "metrics.json", site.evaluation / "decision.json"

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        decision = decide(json.loads(metrics.read_text()), run.settings.gate)
        with written_whole(target) as partial:
            partial.write_text(decision.to_json())
        return {"decision": digests.of_file(target)}, {
            "passed": decision.passed,
            "rules": {rule.name: rule.outcome for rule in decision.rules},
        }

    inputs = {"metrics": digests.of_file(metrics), "settings": run.settings.gate.digest()}
    return once(run, "gate", inputs=inputs, produces=[target], work=work)


def register(run: Run) -> Outcome:
    """Logs the run in MLflow and registers the candidate, which then waits for a person's approval."""
    from radia import card, registry
    from radia.images import ImageStore
    from radia.model import read_checkpoint

    site, frozen = run.workspace, current_snapshot(run)
    metrics = json.loads((site.evaluation / "metrics.json").read_text())
    further = json.loads((site.evaluation / "further.json").read_text())
    decision = json.loads((site.evaluation / "decision.json").read_text())
    verdict, described = "passed" if decision["passed"] else "not passed", read_checkpoint(site.models / "candidate")
    evidence = {
        "snapshot": frozen.digest,
        "checkpoint": digests.of_folder(site.models / "candidate"),
        "metrics": digests.of_file(site.evaluation / "metrics.json"),
        "decision": digests.of_file(site.evaluation / "decision.json"),
    }

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        candidate = registry.log_candidate(
            site,
            run_name=f"retrain {frozen.digest[:12]}",
            params=_flat(run.settings.model_dump(mode="json")),
            metrics={**registry.flat_metrics({**metrics, **further}), **_read_figures(site, metrics)},
            artifacts=[site.evaluation, site.quality],
            checkpoint=site.models / "candidate",
            tags={
                **run.tags,
                **evidence,
                "dvc": recorded(site, "snapshot")[0].outputs["dvc"],
                "gate": verdict,
                "ledger": str(run.ledger.head()),
            },
            card=card.model_card(
                metrics=metrics,
                decision=decision,
                snapshot=frozen,
                evidence=evidence,
                licences=card.licences_of(described),
                training=card.training_of(described),
                figures=[f"evaluation/figures/{name}.png" for name in card.FIGURES],
            ),
            input_example=ImageStore(site.images).read(list(frozen.images["image"][:2])),
            training=told(site),
        )
        return {f"cxr-candidate/{candidate.version}": candidate.run_id, "record": candidate.record}, {
            "model": "cxr-candidate",
            "version": candidate.version,
            "run": candidate.run_id,
            "gate": verdict,
        }

    return once(run, "register", inputs=evidence, produces=[], work=work)


def _read_figures(site: Workspace, metrics: Mapping[str, Any]) -> dict[str, float]:
    """What blind reads say, as MLflow keeps it: estimates of both models, how many were read, how noisy labels are."""
    from radia import registry

    figures = {"gold reads": float(metrics["gold_reads"])}
    estimates, path = metrics["estimates"], site.evaluation / "noise.json"
    if estimates:
        compared = estimates["comparison"]
        figures |= registry.flat_metrics(
            {
                "models": {
                    "base noise-aware": estimates["base"],
                    "candidate noise-aware": estimates["candidate"],
                    "difference noise-aware": compared["difference"],
                    "candidate reads only": compared["reads only"]["candidate"],
                }
            }
        )
    noise = json.loads(path.read_text()) if path.is_file() else {}
    for finding, entry in noise.get("findings", {}).items():
        if (rate := entry["inferred"]["wrong"]["value"]) is not None:
            figures[f"label noise/{finding}"] = rate
    return figures


def _predict(run: Run, checkpoint: Path, frozen: Snapshot, step: str, only: Mask | None = None) -> Predictions:
    from radia.images import ImageStore
    from radia.model import load_checkpoint
    from radia.predict import predict

    ids = frozen.images["image"].to_numpy()
    ids = ids if only is None else ids[only]
    store, tick = ImageStore(run.workspace.images), run.ticker(step)
    model, _ = load_checkpoint(checkpoint)

    def chunks() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(ids), CHUNK):
            yield store.read(list(ids[start : start + CHUNK]))
            tick(min(start + CHUNK, len(ids)), len(ids))

    return predict(model, chunks())


def _features(run: Run, frozen: Snapshot) -> NDArray[np.float32]:
    """The base's features of every image, [n, c]; kept, since reads change labels and not images."""
    import numpy as np

    site = run.workspace
    kept, images = site.models / "base-features", frozen.images
    key = digests.of_json([digests.of_folder(site.models / "base"), *images["image"], *images["pixel_sha256"]])
    if (kept / "key").is_file() and (kept / "key").read_text() == key:
        known: NDArray[np.float32] = np.load(kept / "features.npy")
        return known
    features = _predict(run, site.models / "base", frozen, "suspects").features.astype(np.float32)
    with written_whole(kept) as folder:
        folder.mkdir()
        np.save(folder / "features.npy", features)
        (folder / "key").write_text(key)
    return features


def _under_noise(
    run: Run,
    frozen: Snapshot,
    rows: pd.DataFrame,
    base: NDArray[np.float32],
    candidate: NDArray[np.float32],
    gold: pd.DataFrame,
    limits: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The two models estimated with the reads, by study: the mean of a study's images stands for it."""
    import pandas as pd

    from radia.evaluate import under_noise

    base_by_study, candidate_by_study = (
        pd.DataFrame(values.astype(float), columns=list(FINDINGS)).groupby(rows["study"].to_numpy()).mean()
        for values in (base, candidate)
    )
    given = frozen.labels.set_index("study").loc[base_by_study.index, list(FINDINGS)]
    return under_noise(
        given,
        base_by_study,
        candidate_by_study,
        gold,
        base_thresholds=limits["base_thresholds"],
        candidate_thresholds=limits["candidate_thresholds"],
        seed=run.settings.seed,
    )


def _worst_misses(
    run: Run, rows: pd.DataFrame, truth: NDArray[np.float64], candidate: NDArray[np.float32]
) -> list[Picture]:
    """The held-out images that the candidate is most wrong about, one finding each, with where it looked."""
    import numpy as np

    from radia.evaluate import Picture, worst_cells
    from radia.explain import grad_cam, upsampled
    from radia.images import ImageStore
    from radia.model import load_checkpoint

    cells = worst_cells(truth, candidate, MISSES_SHOWN)
    pixels = ImageStore(run.workspace.images).read([str(rows["image"].iloc[row]) for row, _ in cells])
    model, _ = load_checkpoint(run.workspace.models / "candidate")
    maps = grad_cam(model, pixels).maps[np.arange(len(cells)), [finding for _, finding in cells]]
    return [
        Picture(
            f"{FINDINGS[finding]}: given {'present' if truth[row, finding] else 'absent'}, "
            f"probability {candidate[row, finding]:.2f}{'' if heat.any() else '; nothing on the image spoke for it'}",
            image,
            heat,
        )
        for (row, finding), image, heat in zip(cells, pixels, upsampled(maps, pixels.shape[-1]), strict=True)
    ]


def _predictions_table(rows: pd.DataFrame, base: NDArray[np.float32], candidate: NDArray[np.float32]) -> pd.DataFrame:
    import pandas as pd

    probabilities = {
        f"{model}/{finding}": values[:, k]
        for model, values in (("base", base), ("candidate", candidate))
        for k, finding in enumerate(FINDINGS)
    }
    return pd.DataFrame({"image": rows["image"], "study": rows["study"], **probabilities})


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
