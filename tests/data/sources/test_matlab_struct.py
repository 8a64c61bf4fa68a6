"""MATLAB structs: what scipy writes is read as it was, what is damaged is refused."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ecgscale.data.sources.matlab_struct import read_struct
from ecgscale.errors import DataError

NUMBERS = arrays(
    st.sampled_from(["f8", "f4", "i2", "u1", "i4", "u8"]), array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=9)
)


@settings(deadline=None, max_examples=60)
@given(NUMBERS, st.text("aZ09 ü", min_size=1), st.booleans())
def test_whatever_scipy_writes(tmp_path_factory: pytest.TempPathFactory, data, text: str, compressed: bool) -> None:
    path = tmp_path_factory.mktemp("mat") / "x.mat"
    fields = {"sex": text, "data": data, "a_longer_name": 1.5, "cell": np.array([1, "x"], dtype=object)}
    scipy.io.savemat(path, {"before": 1.0, "ECG": fields, "after": "x"}, do_compression=compressed)
    found = read_struct(path, "ECG")
    assert found.keys() == {"sex", "data", "a_longer_name"}
    assert found["sex"] == text and found["a_longer_name"] == 1.5
    assert found["data"].dtype == data.dtype
    np.testing.assert_array_equal(found["data"], data)


def test_big_endian(tmp_path: Path) -> None:
    """A struct E with a field d that holds the doubles 1 and 2, byte by byte after the format's description."""

    def element(kind: int, content: bytes) -> bytes:
        return kind.to_bytes(4) + len(content).to_bytes(4) + content + bytes(-len(content) % 8)

    def matrix(flags: int, size: tuple[int, int], name: bytes, *rest: bytes) -> bytes:
        head = element(6, flags.to_bytes(4) + bytes(4)) + element(5, size[0].to_bytes(4) + size[1].to_bytes(4))
        return element(14, head + element(1, name) + b"".join(rest))

    numbers = matrix(6, (1, 2), b"", element(9, np.array([1.0, 2.0], ">f8").tobytes()))
    length = (0x00040005).to_bytes(4) + (2).to_bytes(4)  # a small element: four bytes of int32
    stored = b"MATLAB 5.0".ljust(124) + b"\x01\0MI" + matrix(2, (1, 1), b"E", length, element(1, b"d\0"), numbers)
    (tmp_path / "x.mat").write_bytes(stored)
    np.testing.assert_array_equal(read_struct(tmp_path / "x.mat", "E")["d"], [[1, 2]])


def test_files_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_struct(path, "ECG")
    for stored in (b"", bytes(500), b"MATLAB 7.3 MAT-file".ljust(126) + b"IM"):
        path.write_bytes(stored)
        with pytest.raises(DataError, match="is not a MATLAB 5 file"):
            read_struct(path, "ECG")
    for content in ({"val": np.zeros((12, 9))}, {"ECG": np.zeros((12, 9))}, {"other": {"a": 1}}):
        scipy.io.savemat(path, content)
        with pytest.raises(DataError, match="holds no struct ECG"):
            read_struct(path, "ECG")
    scipy.io.savemat(path, {"ECG": np.array([(1,), (2,)], dtype=[("data", object)])})
    with pytest.raises(DataError, match="its struct ECG is not 1 × 1"):
        read_struct(path, "ECG")


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_mutated_files_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    """scipy.io.loadmat does not survive all of these."""
    path = tmp_path_factory.mktemp("mat") / "x.mat"
    fields = {"sex": "Male", "age": 74.0, "data": np.arange(48.0).reshape(12, 4)}
    scipy.io.savemat(path, {"ECG": fields}, do_compression=data.draw(st.booleans()))
    stored = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, max(len(stored) - 1, 0)))
        if data.draw(st.booleans()) and stored:
            stored[place] = data.draw(st.integers(0, 255))
        else:
            del stored[place : place + data.draw(st.integers(1, 99))]
    path.write_bytes(stored)
    try:
        found = read_struct(path, "ECG")
    except DataError as error:
        assert str(error)
    else:
        assert isinstance(found, dict)
