from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.nn import functional
from torchvision import models
from torchvision.models import DenseNet, densenet121

from radia import base_weights
from radia.base_weights import SOURCES, converted, resolve
from radia.card import licences_of
from radia.cli import main
from radia.errors import CheckpointError
from radia.findings import FINDINGS
from radia.model import Preprocessing, read_checkpoint, save_checkpoint, to_input

CHEX = SOURCES["xrv:densenet121-res224-chex"]


def xrv_network() -> DenseNet:
    torch.manual_seed(3)
    network = densenet121(num_classes=18)
    network.features.conv0 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    return network.eval()


def rgb_network() -> DenseNet:
    torch.manual_seed(4)
    return densenet121(num_classes=1000).eval()


def gray(side: int = 64) -> Tensor:
    return torch.randint(0, 256, (2, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class TestNames:
    def test_random_weights_say_that_no_finding_is_known_yet(self) -> None:
        base = resolve("random", backbone="densenet-slim", side=64, seed=4)
        assert base.checkpoint.initialised == FINDINGS
        assert base.checkpoint.source == "random"
        assert base.model.preprocessing.side == 64

    def test_a_folder_is_a_checkpoint(self, tmp_path: Path) -> None:
        first = resolve("random", backbone="densenet-slim", seed=4)
        save_checkpoint(tmp_path / "base", first.model, first.checkpoint)
        again = resolve(str(tmp_path / "base"))
        assert again.checkpoint == first.checkpoint
        assert torch.equal(again.model.head.weight, first.model.head.weight)

    def test_another_side_may_be_asked_of_a_checkpoint(self, tmp_path: Path) -> None:
        first = resolve("random", backbone="densenet-slim", seed=4)
        save_checkpoint(tmp_path / "base", first.model, first.checkpoint)
        again = resolve(str(tmp_path / "base"), side=96)
        assert again.model.preprocessing.side == again.checkpoint.side == 96

    def test_a_folder_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"model\.json is missing"):
            resolve(str(tmp_path / "nowhere"))

    def test_an_unknown_name_is_an_error_that_lists_the_known_ones(self) -> None:
        with pytest.raises(CheckpointError, match=r"'xrv:resnet50'.*xrv:densenet121-res224-chex"):
            resolve("xrv:resnet50")


class TestConversion:
    def test_torchxrayvisions_logits_are_ours_under_our_names(self) -> None:
        theirs = xrv_network()
        model, _ = converted(theirs.state_dict() | {"op_threshs": torch.ones(18)}, CHEX)
        pixels = gray()
        with torch.no_grad():
            expected = theirs((pixels[:, None] / 255 * 2 - 1) * 1024)
            ours = model(to_input(pixels, replace(model.preprocessing, side=64)))
        for name, row in {"Atelectasis": 0, "Pleural Effusion": 7, "Cardiomegaly": 10, "Lung Lesion": 14}.items():
            assert torch.allclose(ours[:, FINDINGS.index(name)], expected[:, row], atol=1e-3, rtol=1e-4)

    def test_findings_that_the_source_does_not_know_are_named(self) -> None:
        _, initialised = converted(xrv_network().state_dict(), CHEX)
        assert initialised == ("No Finding", "Pleural Other", "Support Devices")

    def test_outputs_with_empty_names_are_not_taken_for_findings(self) -> None:
        _, initialised = converted(xrv_network().state_dict(), SOURCES["xrv:densenet121-res224-nih"])
        assert {"Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum"} <= set(initialised)

    def test_heads_that_start_at_random_depend_on_the_seed_alone(self) -> None:
        state = xrv_network().state_dict()
        first, again, other = (converted(state, CHEX, seed=seed)[0].head.weight[0] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_imagenets_older_names_are_understood_and_its_colours_summed(self) -> None:
        theirs = rgb_network()
        older = {
            name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in name else name: value
            for name, value in theirs.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        model, initialised = converted(older, SOURCES["torchvision:densenet121"])
        assert initialised == FINDINGS
        x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        with torch.no_grad():
            rgb = (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
            expected = functional.relu(theirs.features(rgb)).mean((2, 3))
            found = model.pooled((x - 0.449) / 0.226)
        assert functional.cosine_similarity(found, expected) > 0.97

    @pytest.mark.parametrize("name", ["convnext_tiny", "vit_b_16"])
    def test_imagenets_other_networks_see_gray_as_torchvisions_do(self, name: str) -> None:
        torch.manual_seed(5)
        theirs = models.get_model(name).eval()
        model, initialised = converted(theirs.state_dict(), SOURCES[f"torchvision:{name}"])
        assert initialised == FINDINGS
        x = torch.rand(1, 1, 224, 224, generator=torch.Generator().manual_seed(0))
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        with torch.no_grad():
            rgb = (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
            if name == "convnext_tiny":
                expected = theirs.classifier[0](theirs.features(rgb))
            else:
                patches = theirs._process_input(rgb)
                tokens = theirs.encoder(torch.cat([theirs.class_token, patches], dim=1))[:, 1:]
                expected = tokens.transpose(1, 2).reshape(1, -1, 14, 14)
            found = model.trunk((x - 0.449) / 0.226)
        assert functional.cosine_similarity(found.flatten(1), expected.flatten(1)) > 0.97

    def test_jfhealthcares_linear_heads_are_taken(self) -> None:
        state = {f"backbone.{name}": value for name, value in rgb_network().state_dict().items()}
        heads = {f"fc_{k}.weight": torch.full((1, 1024, 1, 1), float(k)) for k in range(5)}
        heads |= {f"fc_{k}.bias": torch.full((1,), -float(k)) for k in range(5)}
        model, initialised = converted(state | heads, SOURCES["jfhealthcare:densenet121"])
        assert model.head.weight[FINDINGS.index("Pleural Effusion")].unique().tolist() == [4.0]
        assert model.head.bias[FINDINGS.index("Edema")].item() == -1.0
        assert len(initialised) == 9

    def test_jfhealthcares_heads_over_an_attention_map_are_not(self) -> None:
        state = {f"backbone.{name}": value for name, value in rgb_network().state_dict().items()}
        state |= {f"fc_{k}.weight": torch.zeros(1, 1024, 1, 1) for k in range(5)}
        state |= {f"fc_{k}.bias": torch.zeros(1) for k in range(5)} | {"attention_map.conv.weight": torch.zeros(1)}
        assert converted(state, SOURCES["jfhealthcare:densenet121"])[1] == FINDINGS

    def test_another_network_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="not those of a DenseNet-121"):
            converted({"layer1.weight": torch.zeros(1)}, CHEX)

    def test_a_first_convolution_of_other_channels_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="expected 1 channels"):
            converted(rgb_network().state_dict(), CHEX)


class TestPublishedFiles:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        torch.save(xrv_network().state_dict(), tmp_path / CHEX.file)
        return tmp_path

    def test_a_file_is_converted_once_and_then_read_from_the_cache(self, cache: Path) -> None:
        first = resolve("xrv:densenet121-res224-chex", cache=cache)
        (cache / CHEX.file).unlink()
        again = resolve("xrv:densenet121-res224-chex", cache=cache)
        assert again.checkpoint == first.checkpoint
        assert torch.equal(again.model.head.weight, first.model.head.weight)
        assert "Research Use Agreement" in first.checkpoint.licence
        assert first.checkpoint.source == "xrv:densenet121-res224-chex"
        assert first.model.preprocessing == Preprocessing(224, 0.5, 1 / 2048)

    def test_a_file_that_changed_since_it_was_first_seen_is_refused(self, cache: Path) -> None:
        resolve("xrv:densenet121-res224-chex", cache=cache)
        torch.save(xrv_network().state_dict() | {"more": torch.ones(1)}, cache / CHEX.file)
        with pytest.raises(CheckpointError, match="damaged or was exchanged"):
            resolve("xrv:densenet121-res224-chex", cache=cache, seed=1)

    def test_a_file_that_is_not_the_published_one_is_refused(self, tmp_path: Path) -> None:
        source = SOURCES["torchvision:densenet121"]
        torch.save(rgb_network().state_dict(), tmp_path / source.file)
        with pytest.raises(CheckpointError, match="expected a639ec97"):
            resolve("torchvision:densenet121", cache=tmp_path)

    def test_nothing_is_fetched_unless_asked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(*_: object, **__: object) -> None:
            raise AssertionError("a connection was opened")

        monkeypatch.setattr(base_weights.urllib.request, "urlopen", never)
        with pytest.raises(CheckpointError, match=r"allow the download \(--download\), or copy https://.* by hand"):
            resolve("xrv:densenet121-res224-all", cache=tmp_path)

    def test_what_is_fetched_when_asked_for_is_told_byte_by_byte_and_held_to_its_digest(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = (cache / CHEX.file).read_bytes()
        (cache / CHEX.file).unlink()

        class Answer(BytesIO):
            headers = {"Content-Length": str(len(content))}  # noqa: RUF012

        monkeypatch.setattr(base_weights.urllib.request, "urlopen", lambda *_, **__: Answer(content))
        seen: list[tuple[int, int]] = []
        base = resolve(
            "xrv:densenet121-res224-chex",
            cache=cache,
            download=True,
            progress=lambda done, total: seen.append((done, total)),
        )
        assert seen[-1] == (len(content), len(content))
        assert len(seen) > 2
        assert base.checkpoint.training["source_sha256"] == hashlib.sha256(content).hexdigest()

    def test_the_command_fetches_only_when_asked_and_prints_the_terms(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RADIA_DATA", str(tmp_path / "site"))
        monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
        params = tmp_path / "params.yaml"
        params.write_text("finetune: {base: 'xrv:densenet121-res224-chex'}")
        asked = ["base", "--params", str(params)]
        refused = CliRunner().invoke(main, asked)
        assert refused.exit_code == 1
        assert "allow the download (--download)" in refused.output
        kept = tmp_path / "home" / ".cache" / "radia"
        kept.mkdir(parents=True)
        shutil.copyfile(cache / CHEX.file, kept / CHEX.file)
        done = CliRunner().invoke(main, asked)
        assert done.exit_code == 0, done.output
        assert "Stanford's Research Use Agreement" in done.output
        assert "Support Devices" in done.output  # a head that starts at random
        assert licences_of(read_checkpoint(tmp_path / "site" / "models" / "base"))[0].endswith(CHEX.licence)
        assert CliRunner().invoke(main, ["finetune", "--download"]).exit_code == 2

    def test_being_offline_is_said_and_leaves_nothing_behind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def offline(*_: object, **__: object) -> None:
            raise URLError("no route")

        monkeypatch.setattr(base_weights.urllib.request, "urlopen", offline)
        with pytest.raises(CheckpointError, match="is this machine offline"):
            resolve("xrv:densenet121-res224-all", cache=tmp_path, download=True)
        assert not list(tmp_path.iterdir())
