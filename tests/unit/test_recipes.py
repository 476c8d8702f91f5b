from __future__ import annotations

from pathlib import Path

import pytest

from radia.base_weights import SOURCES
from radia.findings import FINDINGS
from radia.model import BACKBONES
from radia.settings import load_settings

RECIPES = sorted((Path(__file__).resolve().parents[2] / "radia" / "recipes").glob("*.yaml"))


def test_the_recipes_are_there() -> None:
    names = {path.stem for path in RECIPES}
    assert names == {"chexpert-2019", "chexnet-2017", "jfhealthcare-2019", "libauc-2020", "local-default"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_params_file_whose_names_all_exist(path: Path) -> None:
    settings = load_settings(path)
    assert settings.finetune.base in SOURCES or settings.finetune.base == "mlflow:cxr@champion"
    assert settings.finetune.backbone in BACKBONES
    assert set(settings.labels.uncertain_by_finding) <= set(FINDINGS)
    assert settings.finetune.margin_epochs + settings.finetune.probe_epochs <= settings.finetune.epochs
