"""A file within a zip reads like the file itself, at any place; a damaged one says so."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgscale.data.sources import zip_member
from ecgscale.data.sources.zip_member import ZipMember

CONTENT = np.random.default_rng(0).integers(0, 40, 300_000, dtype=np.uint8).tobytes()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("_KEEP_EVERY_BYTES", 20_000), ("_READ_BYTES", 5_000), ("_STEP_BYTES", 3_000)):
        monkeypatch.setattr(zip_member, name, size)


@pytest.fixture(scope="module", params=[zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED], ids=["deflated", "stored"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    with zipfile.ZipFile(path, "w", request.param) as file:
        file.writestr("other.txt", "something before it")
        file.writestr("folder/data.bin", CONTENT)
    return path


@settings(deadline=None, max_examples=60)
@given(
    reads=st.lists(st.tuples(st.integers(0, len(CONTENT) + 10), st.integers(0, 50_000)), max_size=8),
    check=st.booleans(),
)
def test_any_reads_in_any_order(archive: Path, reads: list[tuple[int, int]], check: bool) -> None:
    with ZipMember(archive, "folder/data.bin") as member:
        if check:
            member.check()
        for start, n in reads:
            member.seek(start)
            assert member.read(n) == CONTENT[start : start + n]
        assert member.seek(-5, io.SEEK_END) == len(CONTENT) - 5
        assert member.read() == CONTENT[-5:]


def test_every_kind_of_damage_is_an_os_error(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    for k in range(200, len(whole) - 500, 9_973):
        damaged = bytearray(whole)
        damaged[k] ^= 0x41
        path = tmp_path / "damaged.zip"
        path.write_bytes(damaged)
        with pytest.raises(OSError), ZipMember(path, "folder/data.bin") as member:
            member.check()
    path.write_bytes(whole[:100_000])
    with pytest.raises(OSError, match="not a zip"):
        ZipMember(path, "folder/data.bin")
    with pytest.raises(OSError, match="no item named"):
        ZipMember(archive, "else.bin")


def test_other_packings_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("data.bin", CONTENT)
    with pytest.raises(OSError, match="unzip it yourself"):
        ZipMember(tmp_path / "a.zip", "data.bin")
