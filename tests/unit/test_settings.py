"""params.yaml and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from radia.errors import SettingsError
from radia.settings import Settings, key_from_environment, load_settings, workspace


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RADIA_DATA", "RADIA_PARAMS", "RADIA_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_file_the_defaults_hold() -> None:
    assert load_settings() == Settings()


def test_the_file_given_goes_before_the_environment_the_data_folder_and_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, seed: int) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"seed: {seed}\n")
        return path

    write(tmp_path / "params.yaml", 1)
    assert load_settings().seed == 1
    write(tmp_path / "data" / "params.yaml", 2)
    assert load_settings().seed == 2
    monkeypatch.setenv("RADIA_PARAMS", str(write(tmp_path / "named.yaml", 3)))
    assert load_settings().seed == 3
    assert load_settings(write(tmp_path / "given.yaml", 4)).seed == 4


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("images: {side: 4}", r"images\.side"),
        ("image: {side: 64}", "image"),
        ("labels: {uncertain: perhaps}", r"labels\.uncertain"),
        (": [", "cannot be read as YAML"),
    ],
)
def test_a_bad_file_is_refused_and_the_parameter_named(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(SettingsError, match=named):
        load_settings()


def test_a_missing_file_is_an_error_and_not_the_defaults(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["zz", "ab" * 16])
def test_a_key_in_the_environment_must_be_32_bytes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADIA_KEY", text)
    with pytest.raises(SettingsError, match="RADIA_KEY") as told:
        key_from_environment()
    assert text not in str(told.value).replace("RADIA_KEY", "")


def test_the_digest_of_a_section_follows_its_values() -> None:
    first, second = Settings(), Settings.model_validate({"images": {"side": 128}})
    assert first.images.digest() != second.images.digest()
    assert first.quality.digest() == second.quality.digest()


def test_the_data_folder_is_the_one_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workspace().root == Path("data")
    monkeypatch.setenv("RADIA_DATA", str(tmp_path))
    assert workspace().root == tmp_path
