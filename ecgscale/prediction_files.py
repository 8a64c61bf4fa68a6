"""What networks said of records: one file per trial and read-out, beside the scores that came of it.

    results/X/predictions/TRIAL-POPULATION-READOUT.parquet
    results/X/predictions/classical/TARGET-NAME-POPULATION-KEY.parquet   the same of classical regressions

A row per record and condition, with the head's outputs as they are; scores, ensembles and recalibrations are computed
from these files, and can be computed again without a network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgscale.concentrations.declared import HeadSpec, TargetSpec
from ecgscale.concentrations.decoding import predictive
from ecgscale.concentrations.predictive import Floats, Predictive
from ecgscale.concentrations.target import TargetScale
from ecgscale.errors import DataError
from ecgscale.record_files import put_in_place
from ecgscale.spec_base import hashed
from ecgscale.specs import TrialSpec

PREDICTIONS = "predictions"
CLEAN = "clean"
"""The condition of records that are not damaged."""

SCHEMA_VERSION = 1

CLASSICAL = "classical"
CLASSICAL_NAMES = ("ridge-waves", "forest-waves", "boosting-waves", "ridge-beat", "boosting-beat")
"""`ridge-waves`: ridge regression on what a physician measures; `beat`: on the median beat at fixed times, where a
forest takes as long as a training and lies between the other two."""


@dataclass(frozen=True)
class Predictions:
    """What one network said of the records of one population.

    Attributes:
        records: one row per record and condition: part, condition, exam_id, patient_id, truth (in the unit).
        outputs: `(row, n_outputs)`, see `decoding`.
        epistemic_sd: `(row,)` of the last layer's weights, standardised as the outputs; None for a head without.
    """

    target: TargetSpec
    head: HeadSpec
    scale: TargetScale
    records: pd.DataFrame
    outputs: npt.NDArray[np.float32]
    epistemic_sd: npt.NDArray[np.float32] | None

    def of(self, part: str, condition: str = CLEAN) -> Predictions:
        """Those of one part in one condition; perhaps none."""
        rows = np.flatnonzero((self.records["part"] == part) & (self.records["condition"] == condition))
        epistemic = None if self.epistemic_sd is None else self.epistemic_sd[rows]
        records = self.records.iloc[rows].reset_index(drop=True)
        return Predictions(self.target, self.head, self.scale, records, self.outputs[rows], epistemic)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def conditions(self) -> tuple[tuple[str, str], ...]:
        """(part, condition), in order."""
        return tuple(dict.fromkeys(zip(self.records["part"], self.records["condition"], strict=True)))

    @property
    def truth(self) -> Floats:
        return self.records["truth"].to_numpy(dtype=np.float64)

    @property
    def patients(self) -> npt.NDArray[np.int64]:
        """Numbers from 0."""
        return np.asarray(pd.factorize(self.records["patient_id"])[0], dtype=np.int64)

    def predictive(self, *, laplace: bool = False) -> Predictive:
        """Args:
        laplace: with the last layer's uncertainty, which must be there.
        """
        return predictive(self.outputs, self.head, self.scale, self.epistemic_sd if laplace else None)


def asked_records(exams: pd.DataFrame, part: str, condition: str, truth: Floats) -> pd.DataFrame:
    """The rows of `Predictions.records` for some exams."""
    return pd.DataFrame(
        {
            "part": part,
            "condition": condition,
            "exam_id": exams["exam_id"].to_numpy(),
            "patient_id": exams["patient_id"].to_numpy(),
            "truth": truth,
        }
    )


def prediction_path(folder: Path, trial_id: str, population: str, read_out: str) -> Path:
    return folder / PREDICTIONS / f"{trial_id}-{population}-{read_out}.parquet"


def classical_path(folder: Path, spec: TrialSpec, name: str, population: str) -> Path:
    """Where the predictions of one regression on the training records of a trial are."""
    assert spec.target is not None
    asked = {
        "target": spec.target.model_dump(mode="json"),
        "split": spec.split.model_dump(mode="json"),
        "input": spec.input.model_dump(mode="json"),
        "fraction": spec.data_fraction,
        "data": {p: spec.data_fingerprint.get(p, "") for p in (spec.train_on, population)},
    }
    return folder / PREDICTIONS / CLASSICAL / f"{spec.target.name}-{name}-{population}-{hashed(asked)}.parquet"


def write(path: Path, predictions: Predictions, may_publish: Callable[[], bool] = lambda: True) -> bool:
    """Publishes by rename; the same network and records give the same bytes.

    Returns:
        False if it was not to be published.

    Raises:
        OSError: it can't be written.
    """
    described = {
        "schema_version": SCHEMA_VERSION,
        "target": predictions.target.model_dump(mode="json"),
        "head": predictions.head.model_dump(mode="json"),
        "scale": predictions.scale.to_dict(),
    }
    table = pa.Table.from_pandas(predictions.records, preserve_index=False)
    width = predictions.outputs.shape[1]
    flat = pa.array(predictions.outputs.astype(np.float32).ravel())
    table = table.append_column("outputs", pa.FixedSizeListArray.from_arrays(flat, width))
    if predictions.epistemic_sd is not None:
        table = table.append_column("epistemic_sd", pa.array(predictions.epistemic_sd.astype(np.float32)))
    table = table.replace_schema_metadata({"ecgscale": json.dumps(described)})
    return put_in_place(path, lambda sink: pq.write_table(table, sink, compression="zstd"), may_publish)


def read(path: Path) -> Predictions:
    """Raises DataError, naming the file, if it is missing, damaged or of another version."""
    try:
        table = pq.read_table(path)
        described = json.loads((table.schema.metadata or {})[b"ecgscale"])
        if described["schema_version"] != SCHEMA_VERSION:
            raise DataError(f"{path}: predictions of another version; delete it, and the sweep makes it again")
        outputs = table.column("outputs").combine_chunks()
        width = table.schema.field("outputs").type.list_size
        has_epistemic = "epistemic_sd" in table.column_names
        records = table.drop_columns(["outputs", *(["epistemic_sd"] if has_epistemic else [])]).to_pandas()
        return Predictions(
            TargetSpec.model_validate(described["target"]),
            HeadSpec.model_validate(described["head"]),
            TargetScale.from_dict(described["scale"]),
            records,
            outputs.flatten().to_numpy().reshape(-1, width),
            table.column("epistemic_sd").to_numpy() if has_epistemic else None,
        )
    except FileNotFoundError:
        raise DataError(f"{path}: is not there; run the sweep again, it predicts without training") from None
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: can't be read ({error}); delete it, and the sweep makes it again") from None


def in_folder(folder: Path) -> Iterator[Path]:
    """Every prediction file of a results folder, sorted."""
    return iter(sorted((folder / PREDICTIONS).glob("*.parquet")))
