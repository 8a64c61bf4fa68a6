"""The z-scored PTB-XL set: digital numbers times their scale, official folds, no millivolts claimed."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from ecgscale.conventions import CODE_LABELS, LEADS
from ecgscale.data.sources.ptbxl_zscored import looks_like_ptbxl_zscored, open_ptbxl_zscored
from ecgscale.data.sources.source import SourceOptions
from ecgscale.errors import DataError

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)
SINE = np.sin(2 * np.pi * np.arange(2500) / 250)[:, None] * np.linspace(1, 2, 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = pd.DataFrame({"row": [0, 1, 2], "ecg_id": [24, 43, 77], "split": ["train", "val", "train"]})
    table = table.assign(strat_fold=["1-8", "9", "1-8"], age=[41, None, 60], is_male=[1, 0, 0], dx="NSR")
    table.assign(**dict.fromkeys(CODE_LABELS, 0)).to_csv(tmp_path / "labels.csv", index=False)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        digital = np.stack([np.round(1000 * SINE) + k for k in range(3)]).astype("i2")
        traces = file.create_dataset("tracings", data=digital, chunks=(2, 2500, 12), compression="gzip")
        traces.attrs.update(scale=0.001, fs=250, leads=list(LEADS))
        file["exam_id"] = np.array([24, 43, 99])
    return tmp_path


def test_numbers_labels_and_folds(folder: Path) -> None:
    assert looks_like_ptbxl_zscored(folder)
    source = pickle.loads(pickle.dumps(open_ptbxl_zscored(folder, SourceOptions())))
    first, second = source.read(0, 2)
    assert (source.unit, first.fs_hz, tuple(first.leads)) == ("zscore", 250, LEADS)
    np.testing.assert_allclose(first.signal, SINE, atol=6e-4)
    np.testing.assert_allclose(second.signal, SINE + 0.001, atol=6e-4)
    assert (first.row["exam_id"], first.row["split"], first.row["age"], first.row["is_male"]) == (24, "train", 41, True)
    assert (second.row["split"], second.row["is_male"], second.row["AF"]) == ("test", False, False)
    assert np.isnan(second.row["age"])
    assert [(x.record, x.reason) for x in source.refused] == [("77", "no trace with its ecg_id in set.h5")]


def test_damage_is_named(folder: Path) -> None:
    with h5py.File(folder / "set.h5", "r+") as file:
        del file["tracings"].attrs["scale"]
    with pytest.raises(DataError, match=r"set.h5: cannot be read.*scale"):
        open_ptbxl_zscored(folder, SourceOptions())
    (folder / "set.h5").write_bytes((folder / "set.h5").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"set.h5: cannot be read, it is damaged"):
        open_ptbxl_zscored(folder, SourceOptions())
    (folder / "labels.csv").write_text("ecg_id,split\n1,train\n")
    with pytest.raises(DataError, match=r"labels.csv: no column strat_fold"):
        open_ptbxl_zscored(folder, SourceOptions())


@needs_real
def test_real_set() -> None:
    source = open_ptbxl_zscored(REAL / "ptbxl-zscored", SourceOptions())
    assert len(source.names) == 1625 and source.refused == ()
    rows, deviations = [], []
    for recording in source.read(0, 1625):
        rows.append(recording.row)
        deviations.append(recording.signal.std(axis=0))
        assert recording.signal.shape == (2500, 12)
    np.testing.assert_allclose(np.median(deviations, axis=0), 1, atol=0.01)
    exams = pd.DataFrame(rows)
    train, test = (exams[exams["split"] == split] for split in ("train", "test"))
    assert list(train[list(CODE_LABELS)].sum()) == [60, 37, 48, 29, 98, 52] and len(train) == 1442
    assert list(test[list(CODE_LABELS)].sum()) == [6, 10, 4, 6, 8, 7] and set(test["strat_fold"]) == {"9"}
    assert exams["age"].isna().sum() == 5 and exams["is_male"].sum() == 799
