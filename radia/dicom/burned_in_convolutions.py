"""A few convolutions, one behind the other, as ONNX Runtime computes them: on one thread, whatever the machine has.

An ONNX file is protocol buffers (https://onnx.ai/onnx/repo-docs/IR.html; fields by their numbers in onnx.proto, IR 8,
opset 13). The five messages needed here are written out: no library is worth it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FLOAT, _INTS = 1, 7  # TensorProto.DataType, AttributeProto.AttributeType


@dataclass(frozen=True)
class Convolution:
    """A kernel [out, in, rows, cols], a bias [out], and the step from one of its pixels to the next."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    step: int = 1


class Convolutions:
    """Convolutions with nothing beyond the edges; between two of them, what is negative becomes 0."""

    def __init__(self, layers: Sequence[Convolution]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # pictures differ in size
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(_model(layers), options, providers=["CPUExecutionProvider"])

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """From [channels, rows, cols] to [channels, rows, cols]."""
        answer: NDArray[np.float32] = self._session.run(None, {"0": values[None]})[0][0]
        return answer


def _model(layers: Sequence[Convolution]) -> bytes:
    graph, last = b"", len(layers) - 1
    for number, layer in enumerate(layers):
        rows, cols = layer.kernel.shape[2:]
        pads = [rows // 2 * layer.step, cols // 2 * layer.step] * 2
        shape = _ints("dilations", [layer.step] * 2) + _ints("pads", pads) + _ints("kernel_shape", [rows, cols])
        graph += _tensor(f"kernel {number}", layer.kernel) + _tensor(f"bias {number}", layer.bias)
        made = "last" if number == last else f"signed {number}"
        graph += _node("Conv", [str(number), f"kernel {number}", f"bias {number}"], made, shape)
        if number < last:
            graph += _node("Relu", [made], str(number + 1))
    graph += _field(2, "convolutions") + _shape(11, "0", layers[0].kernel.shape[1])
    graph += _shape(12, "last", layers[-1].kernel.shape[0])
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))


def _node(kind: str, read: list[str], made: str, attributes: bytes = b"") -> bytes:
    return _field(1, b"".join(_field(1, name) for name in read) + _field(2, made) + _field(4, kind) + attributes)


def _ints(name: str, values: Sequence[int]) -> bytes:
    return _field(5, _field(1, name) + b"".join(_field(8, value) for value in values) + _field(20, _INTS))


def _tensor(name: str, values: NDArray[np.float32]) -> bytes:
    shape = b"".join(_field(1, side) for side in values.shape)
    return _field(5, shape + _field(2, _FLOAT) + _field(8, name) + _field(9, values.astype("<f4").tobytes()))


def _shape(number: int, name: str, channels: int) -> bytes:
    sides = (_field(1, 1), _field(1, channels), _field(2, "rows"), _field(2, "cols"))
    kind = _field(1, _field(1, _FLOAT) + _field(2, b"".join(_field(1, side) for side in sides)))
    return _field(number, _field(1, name) + _field(2, kind))


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode("ascii") if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
    return low + _varint(value >> 7) if value > 0x7F else low
