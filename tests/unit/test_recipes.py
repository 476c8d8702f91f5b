from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from radia.base_weights import SOURCES
from radia.cli import main
from radia.errors import TrainingError
from radia.findings import FINDINGS, UncertaintyPolicy, training_targets
from radia.fit.loss import below_parents
from radia.fit.memory import bytes_an_image, images_at_once
from radia.model import (
    BACKBONES,
    Preprocessing,
    build,
    describe,
    load_checkpoint,
    save_checkpoint,
    to_input,
    view,
)
from radia.predict import predict
from radia.settings import load_settings

RECIPES = sorted((Path(__file__).resolve().parents[2] / "radia" / "recipes").glob("*.yaml"))


def test_the_recipes_are_there() -> None:
    names = {path.stem for path in RECIPES}
    assert names == {"chexpert-2019", "chexnet-2017", "jfhealthcare-2019", "libauc-2020", "local-default", "pham-2019"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_params_file_whose_names_all_exist(path: Path) -> None:
    settings = load_settings(path)
    assert settings.finetune.base in SOURCES or settings.finetune.base == "mlflow:cxr@champion"
    assert settings.finetune.backbone in BACKBONES
    assert set(settings.labels.uncertain_by_finding) <= set(FINDINGS)
    assert settings.finetune.margin_epochs + settings.finetune.probe_epochs <= settings.finetune.epochs


def test_what_is_below_another_finding_counts_where_that_one_is_present() -> None:
    targets, weights = np.zeros((3, 14), np.float32), np.ones((3, 14), np.float32)
    opacity, consolidation, pneumonia = (FINDINGS.index(f) for f in ("Lung Opacity", "Consolidation", "Pneumonia"))
    targets[0, pneumonia] = 1.0
    targets[1, opacity] = 1.0
    found, counts = below_parents(targets, weights, FINDINGS)
    assert found[0, [opacity, consolidation, pneumonia]].tolist() == [1.0, 1.0, 1.0]
    assert counts[:, pneumonia].tolist() == [1.0, 0.0, 0.0]
    assert counts[:, consolidation].tolist() == [1.0, 1.0, 0.0]
    assert counts[:, opacity].tolist() == [1.0, 1.0, 1.0]


def test_probabilities_multiply_down_the_tree() -> None:
    plain, tree = (build("densenet-slim", tree=tree) for tree in (False, True))
    logits = torch.randn(5, 14, generator=torch.Generator().manual_seed(0))
    alone, below = plain.probabilities(logits), tree.probabilities(logits)
    at = [FINDINGS.index(f) for f in ("Pneumonia", "Consolidation", "Lung Opacity")]
    assert torch.allclose(below[:, at[0]], alone[:, at].prod(1), atol=1e-5)
    assert torch.allclose(below[:, at[2]], alone[:, at[2]], atol=1e-5)


def test_an_uncertain_label_is_smoothed_and_drawn_the_same_again() -> None:
    labels = np.full((50, 14), -1.0)
    first, again = (training_targets(labels, {}, default=UncertaintyPolicy.SMOOTHED_ONES)[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert first.min() >= 0.55
    assert first.max() <= 0.85
    assert first.std() > 0.05


def test_a_vits_patches_are_maps_also_at_another_side() -> None:
    model = build("vit-b16", preprocessing=Preprocessing(64)).eval()
    with torch.no_grad():
        assert model.features(torch.zeros(1, 1, 64, 64)).shape == (1, 768, 4, 4)


def test_views_are_the_mean_of_moved_copies(tmp_path: Path) -> None:
    model = build("densenet-slim", preprocessing=Preprocessing(32), views=3).eval()
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8)
    logits = [model(to_input(torch.from_numpy(image), model.preprocessing, view(k, 2, "cpu"))) for k in range(3)]
    expected = model.probabilities(torch.stack(logits).mean(0)).detach().numpy()
    assert np.allclose(predict(model, image).probabilities, expected, atol=1e-5)
    save_checkpoint(tmp_path / "model", model, describe(model))
    assert load_checkpoint(tmp_path / "model")[0].views == 3


def test_memory_that_is_short_halves_what_is_done_at_once() -> None:
    model = build("densenet-slim", preprocessing=Preprocessing(32))
    each = 1.3 * bytes_an_image(model, 32, nullcontext())
    weights = 4 * sum(value.nbytes for value in model.parameters())
    assert images_at_once(model, 16, 32, nullcontext()) == 16
    assert images_at_once(model, 16, 32, nullcontext(), free=int((weights + 5 * each) / 0.9)) == 4
    with pytest.raises(TrainingError, match="one image alone"):
        images_at_once(model, 16, 32, nullcontext(), free=1000)


def test_a_public_collection_is_trained_on_by_its_own_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADIA_DATA", str(tmp_path / "site"))
    rng, rows = np.random.default_rng(0), ["Image Index,Finding Labels,Follow-up #,Patient ID"]
    (tmp_path / "nih" / "images").mkdir(parents=True)
    for n in range(40):
        rows.append(f"{n:08d}_000.png,{'Cardiomegaly' if n % 2 else 'No Finding'},0,{n}")
        pixels = rng.integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "nih" / "images" / f"{n:08d}_000.png")
    (tmp_path / "nih" / "Data_Entry_2017.csv").write_text("\n".join(rows))
    params = tmp_path / "params.yaml"
    params.write_text(
        "finetune: {base: random, backbone: densenet-slim, side: 32, epochs: 1, batch_size: 8, threads: 1}"
    )
    asked = ["finetune", "--data", f"nih:{tmp_path / 'nih'}", "--params", str(params)]
    result = CliRunner().invoke(main, [*asked, "--json"])
    assert result.exit_code == 0, result.output
    checkpoint = load_checkpoint(tmp_path / "site" / "models" / "public-nih")[1]
    assert checkpoint.source == "random"
    assert checkpoint.training["images"] + checkpoint.training["validation_images"] < 40
    assert "Fracture" in checkpoint.training["untrained"]
    assert CliRunner().invoke(main, [*asked, "--recipe", "chexnet-2017"]).exit_code == 2
