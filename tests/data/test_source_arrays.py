"""Plain arrays: any declared axes, rate and unit arrive as mV (time, lead); contradictions are refused."""

import pickle
import re
from itertools import permutations
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgscale.conventions import LEADS
from ecgscale.data.sources.arrays import looks_like_arrays, open_arrays
from ecgscale.data.sources.source import ArrayLayout, Recording, Source, SourceOptions
from ecgscale.errors import DataError

FS_HZ, N = 250.0, 4


def sine_mv(record: int = 0, n: int = 1000) -> np.ndarray:
    """(time, lead): 1 Hz, 1 mV in I, plus `record` µV."""
    return np.sin(2 * np.pi * np.arange(n) / FS_HZ)[:, None] * np.linspace(1, 2, 12) + 1e-3 * record


ALL_MV = np.stack([sine_mv(k) for k in range(N)])


def opened(source: Path, records: str = "*", fs_hz: float = FS_HZ, **layout: object) -> Source:
    return open_arrays(source, SourceOptions(records, layout=ArrayLayout(fs_hz, **layout)))  # type: ignore[arg-type]


def recordings(source: Source) -> list[Recording]:
    found = list(pickle.loads(pickle.dumps(source)).read(0, len(source.names)))
    assert all(isinstance(x, Recording) for x in found), found
    return found


def save(path: Path, array: np.ndarray, name: str = "ecg", **others: object) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
        return
    with h5py.File(path, "w") as file:
        file[name] = array
        for key, value in others.items():
            file[key] = value


@pytest.mark.parametrize("ending", ["npy", "hdf5"])
@pytest.mark.parametrize("axes", [*map(",".join, permutations(["record", "time", "lead"])), "record,1,time,lead"])
def test_axes_in_any_order(tmp_path: Path, ending: str, axes: str) -> None:
    order = {"record": 0, "time": 1, "lead": 2}
    named = [axis for axis in axes.split(",") if axis != "1"]
    array = ALL_MV.transpose([order[axis] for axis in named])
    if "1" in axes:
        array = np.expand_dims(array, 1)
    save(tmp_path / f"x.{ending}", np.ascontiguousarray(array))
    assert looks_like_arrays(tmp_path)
    for source in (tmp_path, tmp_path / f"x.{ending}"):
        found = recordings(opened(source, axes=axes))
        assert [(x.record, x.fs_hz, tuple(x.leads)) for x in found] == [(str(k), FS_HZ, LEADS) for k in range(N)]
        np.testing.assert_allclose([x.signal for x in found], ALL_MV, atol=1e-6)
        assert found[1].row["exam_id"] == found[1].row["patient_id"] == 1 and found[1].row["is_male"] is None
        assert np.isnan(found[1].row["age"])


@pytest.mark.parametrize(
    ("unit", "scale", "per_mv", "dtype"),
    [
        ("mV", 1.0, 1.0, ">f4"),
        ("uV", 1.0, 1e3, "i2"),
        ("µV", 4.88, 1e3 / 4.88, "i4"),
        ("V", 1.0, 1e-3, "f8"),
        ("digital", 0.005, 200, "i2"),
        ("mV", 0.001, 1e3, "i2"),
        ("zscore", 1.0, 1.0, "f2"),
    ],
)
def test_a_one_millivolt_sine_survives_every_unit(
    tmp_path: Path, unit: str, scale: float, per_mv: float, dtype: str
) -> None:
    stored = ALL_MV * per_mv
    save(tmp_path / "x.npy", (np.round(stored) if "i" in dtype else stored).astype(dtype))
    source = opened(tmp_path, unit=unit, scale=scale)
    assert source.unit == ("zscore" if unit == "zscore" else "mV")
    np.testing.assert_allclose([x.signal for x in recordings(source)], ALL_MV, atol=0.0026)


def test_several_files_are_one_array_in_the_order_of_their_names(tmp_path: Path) -> None:
    for k, name in enumerate(["part_1.npy", "part_2.hdf5", "part_10.npy"]):
        save(tmp_path / name, ALL_MV[k : k + 1] if k < 2 else ALL_MV[2:])
    table = {"age": [30, 40, 50, 60], "sex": ["F", "M", "F", "M"], "AF": [0, 1, 0, 0], "id_patient": [1, 1, 2, 3]}
    pd.DataFrame(table).rename(columns={"id_patient": "patient_id"}).to_csv(tmp_path / "t.csv", index=False)
    found = recordings(opened(tmp_path))
    np.testing.assert_allclose([x.signal for x in found], ALL_MV, atol=1e-6)
    assert [(x.row["exam_id"], x.row["age"], x.row["patient_id"], x.row["AF"]) for x in found] == [
        (0, 30.0, 1, False),
        (1, 40.0, 1, True),
        (2, 50.0, 2, False),
        (3, 60.0, 3, False),
    ]
    assert [x.row["exam_id"] for x in recordings(opened(tmp_path, records="[13]"))] == [1, 3]
    pd.DataFrame(table)[:3].to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"t.csv: has 3 lines for 4 recordings"):
        opened(tmp_path)
    save(tmp_path / "part_2.hdf5", np.zeros((1, 1000, 9)))
    with pytest.raises(DataError, match=r"part_2.hdf5: has shape .* lead axis has length 9, not 12"):
        opened(tmp_path)


def test_ids_join_array_and_table(tmp_path: Path) -> None:
    save(tmp_path / "x.h5", ALL_MV, name="signals/raw", study=np.array([8, 5, 6, 6]))
    found = recordings(opened(tmp_path, ids="study"))
    assert [x.row["exam_id"] for x in found] == [8, 5]
    pd.DataFrame({"exam_id": [5, 6, 8, 9], "age": [50, 60, 80, 90]}).to_csv(tmp_path / "exams.csv", index=False)
    source = opened(tmp_path, ids="study", dataset="signals/raw", table="exams.csv")
    found = recordings(source)
    assert [(x.record, x.row["age"]) for x in found] == [("8", 80), ("5", 50)]
    np.testing.assert_allclose(found[1].signal, ALL_MV[1], atol=1e-6)
    assert {x.record: x.reason for x in source.refused} == {"6": "has several recordings", "9": "no recording"}
    (tmp_path / "exams.csv").write_text("exam_id,age\n8,80\n8,81\n5,50\n")
    source = opened(tmp_path, ids="study")
    assert [x.record for x in recordings(source)] == ["5"]
    assert {x.record: x.reason for x in source.refused} == {
        "8": "exam_id stands on 2 lines of exams.csv",
        "6": "has several recordings",
    }


def test_a_file_for_every_record(tmp_path: Path) -> None:
    lengths = {"12": 700, "7": 1000, "bad": 10}
    for name, n in lengths.items():
        save(tmp_path / f"{name}.npy", sine_mv(n=n))
    (tmp_path / "bad.npy").write_bytes((tmp_path / "bad.npy").read_bytes()[:500])
    source = opened(tmp_path, axes="time,lead")
    assert [(x.record, x.reason.split(",")[0]) for x in source.refused] == [("bad", "bad.npy: cannot be read as npy")]
    assert [(x.record, x.row["exam_id"], len(x.signal)) for x in recordings(source)] == [
        ("7", 7, 1000),
        ("12", 12, 700),
    ]
    (tmp_path / "t.csv").write_text("exam_id,age\n12,50\n8,60\n")
    source = opened(tmp_path, axes="time,lead")
    assert [(x.record, x.row["age"]) for x in recordings(source)] == [("12", 50)]
    assert {x.record: x.reason for x in source.refused[1:]} == {"7": "no line in t.csv", "8": "no recording"}
    save(tmp_path / "x1.npy", sine_mv())
    with pytest.raises(DataError, match="which line belongs to which file"):
        opened(tmp_path, axes="time,lead")
    (tmp_path / "t.csv").write_text("record,age\nx1,50\n7,60\n")
    assert [(x.record, x.row["age"]) for x in recordings(opened(tmp_path, axes="time,lead"))] == [("7", 60), ("x1", 50)]
    with h5py.File(tmp_path / "x1.h5", "w") as file:
        file["a"] = sine_mv()
    with pytest.raises(DataError, match="several files are called x1"):
        opened(tmp_path, axes="time,lead")


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"axes": "record,lead"}, "axes are 'record,lead'"),
        ({"axes": "record,time,channel"}, "expected time and lead"),
        ({"axes": "record,lead,time"}, "the lead axis has length 1000, not 12"),
        ({"axes": "record,1,time,lead"}, "expected one array with 4 axes, found none"),
        ({"unit": "mm"}, "unit is 'mm'"),
        ({"unit": "digital"}, "say with scale how many mV"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"leads": LEADS[:8]}, "the lead axis has length 12, not 8"),
        ({"dataset": "nothing"}, "no array 'nothing'; it has digital, ecg"),
        ({"dataset": "digital"}, "holds whole numbers .int16., which can't be mV"),
        ({"ids": "digital"}, "expected 4 whole numbers in the array of ids 'digital'"),
        ({"table": "none.csv"}, "none.csv: cannot be read as a csv"),
        ({}, "expected one array with 3 axes, found digital, ecg; name the right one"),
    ],
)
def test_declarations_that_do_not_fit(tmp_path: Path, layout: dict[str, object], words: str) -> None:
    save(tmp_path / "x.hdf5", ALL_MV, digital=(1000 * ALL_MV).astype("i2"))
    named = {"ids": {"dataset": "ecg"}, "table": {"dataset": "ecg"}, "leads": {"dataset": "ecg"}}
    if layout.get("axes") == "record,lead,time":
        named["axes"] = {"dataset": "ecg"}
    more = next((named[key] for key in layout if key in named), {})
    with pytest.raises(DataError, match=words):
        opened(tmp_path, **{**more, **layout})


def test_folders_without_a_layout_or_arrays(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*.hdf5, \*.h5 or \*.npy file"):
        opened(tmp_path)
    save(tmp_path / "x.npy", ALL_MV)
    with pytest.raises(DataError, match="declare at least a sampling rate"):
        open_arrays(tmp_path, SourceOptions())
    with pytest.raises(DataError, match="sampling rate is -5"):
        opened(tmp_path, fs_hz=-5.0)
    np.save(tmp_path / "x.npy", np.array([["a"]], dtype=object))
    with pytest.raises(DataError, match=r"x.npy: cannot be read as npy"):
        opened(tmp_path)
    for dtype in ("complex128", "timedelta64[ms]", "bool"):
        np.save(tmp_path / "x.npy", (1000 * ALL_MV).astype(dtype))
        with pytest.raises(DataError, match=f"has type {re.escape(dtype)}"):
            opened(tmp_path)
    (tmp_path / "x.npy").write_bytes(b"INUMPY\x01\x00" + (tmp_path / "x.npy").read_bytes()[8:])
    with pytest.raises(DataError, match=r"x.npy: cannot be read as npy"):
        opened(tmp_path)
    (tmp_path / "x.npy").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match="Git LFS pointer"):
        opened(tmp_path)
    (tmp_path / "x.npy").unlink()
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 500)
    with pytest.raises(DataError, match=r"x.h5: cannot be read, it is damaged"):
        opened(tmp_path)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_mutated_files_are_refused_or_read_never_a_traceback(tmp_path_factory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / data.draw(st.sampled_from(["x.npy", "x.h5"]))
    save(path, np.ones((2, 60, 12), dtype="f4"))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 3000)))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        source = opened(folder)
        n = min(len(source.names), 10)
        assert len(list(source.read(0, n))) == n
    except DataError as error:
        assert path.name in str(error)
