"""PP-OCR's networks, which come with RapidOCR: one sees where lines are, one reads a line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radia.errors import Reason, Refusal


@dataclass(frozen=True)
class Letter:
    """One character read: which, how surely, and where, from 0 to 1 along the picture."""

    text: str
    confidence: float
    at: float

    @property
    def counts(self) -> bool:
        """Whether it is a letter or a figure of the Latin alphabet."""
        return self.text.isalnum() and ord(self.text[0]) < 0x250


class Network:
    """One of PP-OCR's networks on one thread. It is loaded from a file in RapidOCR's wheel: nothing is fetched."""

    def __init__(self, model: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # pictures differ in size: an arena would only grow
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        alphabet = self._session.get_modelmeta().custom_metadata_map.get("character", "")
        self._alphabet = ["", *alphabet.splitlines(), " "]

    def run(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network's answer to a picture uint8 [h, w]."""
        plane = picture.astype(np.float32) / np.float32(127.5) - np.float32(1)
        batch = np.ascontiguousarray(np.broadcast_to(plane, (1, 3, *plane.shape)))
        answer: NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        return answer

    def read(self, picture: NDArray[np.uint8]) -> list[Letter]:
        """The letters of a line, of whatever alphabet."""
        import cv2

        high, wide = picture.shape
        width = int(np.clip(round(wide * 48 / high / 8) * 8, 16, 960))
        method = cv2.INTER_CUBIC if high < 48 else cv2.INTER_AREA
        answer = self.run(np.asarray(cv2.resize(picture, (width, 48), interpolation=method), np.uint8))[0]
        chosen, sure = answer.argmax(axis=1), answer.max(axis=1)
        new = np.flatnonzero((chosen != 0) & (chosen != np.concatenate(([0], chosen[:-1]))))
        return [
            Letter(self._alphabet[chosen[at]], float(sure[at]), (float(at) + 0.5) / len(chosen))
            for at in new
            if chosen[at] < len(self._alphabet)
        ]


@cache
def network(kind: str) -> Network:
    """`det` or `rec`."""
    found = find_spec("rapidocr")
    folder = Path(str(found.origin)).parent / "models" if found and found.origin else None
    models = sorted(folder.glob(f"*_{kind}_*.onnx")) if folder else []
    if not models:
        raise Refusal(Reason.TEXT_DETECTOR_MISSING, "RapidOCR's models are not installed")
    try:
        return Network(models[0])
    except ImportError as error:
        raise Refusal(Reason.TEXT_DETECTOR_MISSING, "onnxruntime is not installed") from error
