from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from radia.card import licences_of, markdown_table, model_card, training_of
from radia.evaluate import evaluate_candidate, sentence
from radia.findings import FINDINGS
from radia.gate import decide
from radia.model import Checkpoint
from radia.settings import EvaluateSettings, GateSettings


@dataclass(frozen=True)
class Frozen:
    """What the card reads of a snapshot."""

    digest: str
    images: pd.DataFrame


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    truth = (rng.random((80, 3)) < (0.4, 0.3, 0.01)).astype(float)
    base = rng.random((80, 3))
    return evaluate_candidate(
        truth,
        base,
        0.5 * base + 0.5 * truth,
        patients=np.arange(80),
        groups=pd.DataFrame({"sex": ["F", "M"] * 40}),
        settings=EvaluateSettings(replicates=100),
        seed=0,
        findings=("No Finding", "Edema", "Fracture"),
    )


@pytest.fixture(scope="module")
def card(metrics: dict[str, Any]) -> str:
    images = pd.DataFrame(
        {
            "image": list("abcd"),
            "patient": list("aabc"),
            "site": list("HHGG"),
            "split": ["train", "train", "test", "test"],
        }
    )
    return model_card(
        metrics=metrics,
        decision=decide(metrics, GateSettings()).as_json(),
        snapshot=Frozen("f" * 64, images),  # type: ignore[arg-type]
        evidence={"checkpoint": "abc123"},
        licences=("weights: Apache-2.0",),
    )


def test_the_card_has_the_sections_a_reader_looks_for(card: str) -> None:
    for title in ("Intended use", "Data", "Results on held-out images", "Subgroups", "Gate", "Limits", "Licences"):
        assert f"\n## {title}\n" in card


def test_the_card_begins_with_the_result(card: str, metrics: dict[str, Any]) -> None:
    assert sentence(metrics) in card


def test_the_data_is_named_by_its_digest_and_its_sides(card: str) -> None:
    assert "f" * 64 in card
    assert "| train | 2 | 1 |" in card
    assert "G (2), H (2)" in card


def test_every_finding_has_its_row_with_an_interval(card: str, metrics: dict[str, Any]) -> None:
    auroc = metrics["models"]["candidate"]["findings"]["Edema"]["auroc"]
    row = next(line for line in card.splitlines() if line.startswith("| Edema |"))
    assert f"{auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})" in row


def test_what_is_too_rare_stands_among_the_limits(card: str) -> None:
    assert "- Fracture: not averaged" in card


def test_licence_and_training_come_from_the_checkpoint(card: str) -> None:
    described = Checkpoint(
        FINDINGS, "densenet121", 320, licence="CC BY-NC 4.0", source="nih:chexnet", training={"epochs": 4}
    )
    assert licences_of(described) == ["the base model's weights (nih:chexnet): CC BY-NC 4.0"]
    assert licences_of(replace(described, licence="")) == []
    assert {"epochs": 4, "backbone": "densenet121", "input": "320 × 320"}.items() <= training_of(described).items()
    assert "not recorded" not in card


def test_empty_sections_are_left_out(card: str) -> None:
    assert "## Figures" not in card
    assert "## Training" not in card


def test_a_bar_in_a_cell_does_not_break_the_table() -> None:
    assert markdown_table(["a"], [["x|y"]]).splitlines()[-1] == "| x\\|y |"
