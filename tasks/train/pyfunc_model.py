"""How MLflow loads the ensemble (`mlflow.pyfunc.load_model`): knows no MLflow, reads safetensors and JSON, unpickles nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from tasks.train.ensemble import Ensemble, load_ensemble
from tasks.train.features import encode


class Predictor:
    """What `mlflow.pyfunc` calls: frames in, frames out."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The class of every row, `prediction`, and a column `probability_<class>` for each class."""
        makeup = self.ensemble.makeup
        known = [name for name in makeup.spec.columns if name in frame.columns]
        if not known:
            raise ValueError(f"the model takes the columns {', '.join(makeup.spec.columns)}; the frame has none of them")
        table = pa.Table.from_pandas(frame[known], preserve_index=False)
        chances = self.ensemble.probabilities(encode(table, makeup.spec))
        named = {f"probability_{c}": chances[:, i] for i, c in enumerate(makeup.classes)}
        best = [makeup.classes[i] for i in chances.argmax(axis=1)]
        return pd.DataFrame({"prediction": best, **named}, index=frame.index)


def _load_pyfunc(path: str) -> Predictor:  # pyright: ignore[reportUnusedFunction] - the name is MLflow's
    return Predictor(load_ensemble(Path(path)))
