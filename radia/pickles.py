"""Reads the tensors out of a file that torch.save wrote, without running anything that the file asks for.

A pickle is a program. Here it may rebuild dictionaries and tensors; the classes of networks become inert shells that
hold their attributes; any other name stops the reading. Formats: the zip of torch ≥ 1.6 and the stream before it, with
a state dict or a whole module inside.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from radia.errors import CheckpointError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_SHELLS = ("torch.nn.modules.", "torch.nn.parallel.", "torchvision.models.", "torchxrayvision.models")
"""Modules whose classes are read as shells. Nothing of them is imported."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, or of a pickled module, by their names in its state dict.

    Raises CheckpointError where the file is damaged, of another format, holds no tensors, or names anything else than
    tensors, dictionaries and networks.
    """
    try:
        content = path.read_bytes()
        loaded, storages = _unzipped(content, path) if zipfile.is_zipfile(path) else _streamed(content, path)
        tensors = {name: reference.tensor(storages) for name, reference in _named(loaded)}
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    # a damaged pickle can fail in nearly any way; none of them runs anything
    except (
        OSError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, TypeError, KeyError, IndexError,
        AttributeError, RuntimeError, UnicodeError, MemoryError, RecursionError, OverflowError,
    ) as error:  # fmt: skip
        raise CheckpointError(f"{path} is damaged, or not a file of torch.save ({type(error).__name__})") from error
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    return tensors


@dataclass
class _Storage:
    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class _Reference:
    """A tensor that is to be cut from its storage once the bytes are there."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self, storages: Callable[[_Storage], bytes]) -> Tensor:
        if math.prod(self.size) == 0:
            return torch.empty(self.size, dtype=self.storage.dtype)
        flat = torch.frombuffer(bytearray(storages(self.storage)), dtype=self.storage.dtype)
        return flat.as_strided(self.size, self.stride, self.offset).clone(memory_format=torch.contiguous_format)


class _Shell:
    """What stands for an object of a network's class, made with whatever arguments: its attributes, no behaviour."""

    def __new__(cls, *_arguments: Any, **_options: Any) -> _Shell:
        shell = object.__new__(cls)
        shell.state = {}
        return shell

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        self.state: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise CheckpointError("an object in the weights file has a state that is not a dictionary")
        self.state = state


class _Reader(pickle.Unpickler):
    """An unpickler that knows a short list of names and refuses every other one."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _KNOWN:
            return _KNOWN[full]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module.startswith(_SHELLS) and name.isidentifier():
            return type(name, (_Shell,), {})
        raise CheckpointError(
            f"the weights file asks for {full}, which no network needs: it may be made to run code and was not loaded"
        )

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 3:
            raise pickle.UnpicklingError("a persistent id of another kind")
        if pid[0] == "module":  # a network's class with its source, which is not read
            return pid[1]
        kind, dtype, key = pid[0], pid[1], pid[2]
        view = pid[5] if len(pid) > 5 else None
        if kind != "storage" or not isinstance(dtype, torch.dtype) or view is not None:
            raise pickle.UnpicklingError("a storage of another kind")
        return _Storage(str(key), dtype)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> _Reference:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without storage")
    return _Reference(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _rebuild_parameter(reference: Any, *_rest: Any) -> Any:
    return reference


def _new_object(cls: Any, *_rest: Any) -> Any:
    if not (isinstance(cls, type) and issubclass(cls, _Shell)):
        raise pickle.UnpicklingError("an object of a class that is not a network's")
    return cls()


_KNOWN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "copyreg._reconstructor": _new_object,
    "copy_reg._reconstructor": _new_object,
    "builtins.object": object,
    "__builtin__.object": object,
}


def _unzipped(content: bytes, path: Path) -> tuple[Any, Callable[[_Storage], bytes]]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    (pickled,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    folder = pickled.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise CheckpointError(f"{path} was written on a big-endian machine: save it again on another one")
    loaded = _Reader(io.BytesIO(archive.read(pickled))).load()
    return loaded, lambda storage: archive.read(f"{folder}data/{storage.key}")


def _streamed(content: bytes, path: Path) -> tuple[Any, Callable[[_Storage], bytes]]:
    stream = io.BytesIO(content)
    if _Reader(stream).load() != LEGACY_MAGIC:
        raise CheckpointError(f"{path} is not a file of torch.save (nor of safetensors, which a RADIA checkpoint is)")
    _protocol, system = _Reader(stream).load(), _Reader(stream).load()
    if not system.get("little_endian", True):
        raise CheckpointError(f"{path} was written on a big-endian machine: save it again on another one")
    seen: dict[str, torch.dtype] = {}

    class Remembering(_Reader):
        def persistent_load(self, pid: Any) -> Any:
            found = super().persistent_load(pid)
            if isinstance(found, _Storage):
                seen[found.key] = found.dtype
            return found

    loaded = Remembering(stream).load()
    keys = _Reader(stream).load()
    bytes_of = {key: _stored(stream, seen[key].itemsize) for key in map(str, keys)}
    return loaded, lambda storage: bytes_of[storage.key]


def _stored(stream: BinaryIO, itemsize: int) -> bytes:
    length = int.from_bytes(stream.read(8), "little", signed=True) * itemsize
    content = stream.read(length)
    if length < 0 or len(content) != length:
        raise EOFError("storage cut short")
    return content


def _named(loaded: Any) -> Iterator[tuple[str, _Reference]]:
    if isinstance(loaded, _Shell):
        yield from _of_module(loaded, "")
        return
    if not isinstance(loaded, Mapping):
        return
    inner = loaded.get("state_dict", loaded)
    if isinstance(inner, _Shell):
        yield from _of_module(inner, "")
        return
    for name, value in cast(Mapping[Any, Any], inner).items():
        if isinstance(value, _Reference):
            yield str(name), value


def _of_module(module: _Shell, prefix: str) -> Iterator[tuple[str, _Reference]]:
    for group in ("_parameters", "_buffers"):
        for name, value in module.state.get(group, {}).items():
            if isinstance(value, _Reference):
                yield f"{prefix}{name}", value
    for name, child in module.state.get("_modules", {}).items():
        if isinstance(child, _Shell):
            yield from _of_module(child, f"{prefix}{name}.")
