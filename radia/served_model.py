"""The model as MLflow serves it ("models from code"): this file is stored beside the checkpoint and run on loading.

Gray pixels in, uint8 [n, rows, columns] with bone white; the calibrated probabilities of the checkpoint's findings out,
float32 [n, findings], by `radia.predict`. Nothing is computed here. No pickle is read: weights are safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

if TYPE_CHECKING:
    import numpy as np
    from mlflow.pyfunc.model import PythonModelContext
    from numpy.typing import NDArray


class ChestFindings(PythonModel):
    """The checkpoint under the artefact `checkpoint`, read once."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the checkpoint. Raises CheckpointError."""
        from radia.model import load_checkpoint

        self.model, _ = load_checkpoint(Path(context.artifacts["checkpoint"]))

    def predict(
        self, context: PythonModelContext, model_input: NDArray[np.uint8], params: dict[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """Probabilities [n, findings]."""
        from radia.predict import predict

        return predict(self.model, model_input).probabilities


set_model(ChestFindings())
