"""Targets measured elsewhere become columns of an opened store, and part of what the store is known by."""

import shutil

import numpy as np
import pytest

from ecgscale.data.packing import packed
from ecgscale.data.targets import TARGETS, add_target
from ecgscale.errors import DataError
from ecgscale.specs import InputSpec

INPUT = InputSpec(fs_hz=50, n_samples=512, patch_samples=16)


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """Population B, packed."""
    folder = tmp_path_factory.mktemp("targets") / "B"
    shutil.copytree(data_dir / "B", folder, ignore=shutil.ignore_patterns("packed"))
    packed(folder, INPUT, jobs=1)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "B")


def test_a_target_is_joined_by_exam_without_packing_again(folder):
    before = packed(folder, INPUT)
    ids = before.index["exam_id"].to_numpy()
    signals = {file.name: file.stat().st_mtime_ns for file in before.path.iterdir()}
    add_target(folder, "lactate_mmol_l", ids[::-2], np.arange(len(ids[::-2]), dtype=float))
    add_target(folder, "urea_mmol_l", ids[:3], np.array([5.0, 6.0, 7.0]))
    after = packed(folder, INPUT)
    expected = dict(zip(ids[::-2], range(len(ids[::-2])), strict=True))
    assert after.index["lactate_mmol_l"].fillna(-1).tolist() == [expected.get(exam, -1) for exam in ids]
    assert after.index["urea_mmol_l"].dropna().tolist() == [5, 6, 7]
    assert {file.name: file.stat().st_mtime_ns for file in after.path.iterdir()} == signals
    assert after.index[before.index.columns].equals(before.index) and len(after) == len(before)


def test_other_values_are_other_data_and_the_same_values_the_same(folder):
    without = packed(folder, INPUT)
    ids = without.index["exam_id"].to_numpy()
    found = []
    for value in (1.0, 2.0, 1.0):
        add_target(folder, "lactate_mmol_l", ids, np.full(len(ids), value))
        found.append(packed(folder, INPUT).header.fingerprint)
    assert found[0] == found[2] != found[1] and without.header.fingerprint not in found
    (folder / TARGETS).unlink()
    assert packed(folder, INPUT).header.fingerprint == without.header.fingerprint


def test_a_target_that_is_there_already_or_is_damaged_is_refused(folder):
    ids = packed(folder, INPUT).index["exam_id"].to_numpy()
    add_target(folder, "potassium_mmol_l", ids, np.ones(len(ids)))
    with pytest.raises(DataError, match=r"exams\.csv has a column 'potassium_mmol_l', too"):
        packed(folder, INPUT)
    (folder / TARGETS).write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"targets\.parquet: can't be read .* delete it"):
        packed(folder, INPUT)
