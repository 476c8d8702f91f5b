from __future__ import annotations

import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from radia.errors import CheckpointError
from radia.pickles import LEGACY_MAGIC, read_tensors


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.labels = ["Edema", ""]


@pytest.fixture
def layer() -> Iterator[nn.Module]:
    """A module whose class says that it is torchxrayvision's, which is not installed here."""
    name = "torchxrayvision.models"
    modules = {name: types.ModuleType(name), "torchxrayvision": types.ModuleType("torchxrayvision")}
    kind = type("DenseNet", (_Layer,), {"__module__": name})
    modules[name].DenseNet = kind  # type: ignore[attr-defined]
    before = {key: sys.modules.get(key) for key in modules}
    sys.modules.update(modules)
    yield kind()
    for key, module in before.items():
        if module is None:
            del sys.modules[key]
        else:
            sys.modules[key] = module


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> object:
        return Path.touch, (self.target,)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
class TestFilesOfTorchSave:
    def test_a_whole_module_is_read_as_its_state_dict_without_its_class(
        self, layer: nn.Module, tmp_path: Path, zipped: bool
    ) -> None:
        torch.save(layer, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        expected = layer.state_dict()
        found = read_tensors(tmp_path / "w.pt")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)

    def test_a_state_dict_is_read_with_views_of_one_storage_apart(self, tmp_path: Path, zipped: bool) -> None:
        whole = torch.arange(12.0).reshape(3, 4)
        state = {
            "whole": whole,
            "turned": whole.T,
            "row": whole[1],
            "empty": torch.empty(0, 3),
            "count": torch.tensor(7),
        }
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        found = read_tensors(tmp_path / "w.pt")
        assert all(torch.equal(found[name], state[name]) for name in state)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool])
    def test_every_kind_of_number_comes_back(self, tmp_path: Path, zipped: bool, dtype: torch.dtype) -> None:
        tensor = torch.tensor([1, 0, 1]).to(dtype)
        torch.save({"t": tensor}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        assert torch.equal(read_tensors(tmp_path / "w.pt")["t"], tensor)

    def test_a_planted_payload_is_named_and_not_run(self, tmp_path: Path, zipped: bool) -> None:
        planted = tmp_path / "planted"
        state = {"t": torch.zeros(2), "x": _Payload(planted)}
        torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="may be made to run code"):
            read_tensors(tmp_path / "w.pt")
        assert not planted.exists()

    def test_a_file_cut_short_is_an_error(self, layer: nn.Module, tmp_path: Path, zipped: bool) -> None:
        path = tmp_path / "w.pt"
        torch.save(layer.state_dict(), path, _use_new_zipfile_serialization=zipped)
        content = path.read_bytes()
        for length in (0, 20, len(content) // 2, len(content) - 30):
            path.write_bytes(content[:length])
            with pytest.raises(CheckpointError, match="damaged"):
                read_tensors(path)

    def test_nothing_but_numbers_is_an_error(self, tmp_path: Path, zipped: bool) -> None:
        torch.save({"epoch": 3}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="holds no tensors"):
            read_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"ctorch._utils\n_rebuild_wrapper_subclass\n.",
        b"ctorch.nn.modules.linear\nos.system\n.",
        b"ctorch.serialization\nload\n.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
    ],
)
def test_no_other_name_can_be_reached(tmp_path: Path, opcodes: bytes) -> None:
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", opcodes)
    with pytest.raises(CheckpointError, match="may be made to run code"):
        read_tensors(path)


def test_a_tensor_that_reaches_beyond_its_storage_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"t": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    parts[name] = parts[name].replace(b"M\xe8\x03\x85", b"M\xff\xff\x85")
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(path)


def test_another_pickle_is_not_taken_for_weights(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="not a file of torch"):
        read_tensors(tmp_path / "w.pt")


def test_a_legacy_storage_of_negative_length_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"t": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content[:2] == pickle.dumps(LEGACY_MAGIC, protocol=2)[:2]
    path.write_bytes(content[:-20] + struct.pack("<q", -4) + content[-12:])
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_tensors(tmp_path / "nothing.pt")
