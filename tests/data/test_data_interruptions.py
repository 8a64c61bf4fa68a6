"""Killed at every step, or out of disk at any size: what carries the name is whole, and the same call goes on."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from code_folders import QUARTER, noise_mv, write_folder
from killed_at_every_step import contents
from source_folders import write_cinc

from ecgscale.data.importing import import_source
from ecgscale.data.packing import packed
from ecgscale.data.store import store_name, verify
from ecgscale.errors import DataError

LIMITS = (100, 1_000, 5_000, 20_000, 50_000, 100_000, 200_000, 300_000)
"""Largest bytes of a file; what these tests write ends between them."""


@pytest.mark.slow
@pytest.mark.parametrize("work", ["imported", "replaced", "stored", "stored_again"])
def test_killed_at_every_step(work: str, tmp_path: Path) -> None:
    script = Path(__file__).parent / "killed_at_every_step.py"
    done = subprocess.run([sys.executable, str(script), work, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15, "hardly any step was seen"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond it fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_import_that_finds_the_disk_full_anywhere(tmp_path: Path) -> None:
    write_cinc(tmp_path / "in")
    import_source(tmp_path / "in", tmp_path / "whole", jobs=1)
    n_full = 0
    for limit in LIMITS:
        try:
            with largest_file(limit):
                import_source(tmp_path / "in", tmp_path / "out", jobs=1)
        except DataError as error:
            assert "out: the disk is full" in str(error) and not (tmp_path / "out").exists()
            n_full += 1
        else:
            break
    assert 0 < n_full < len(LIMITS)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "whole"]


@pytest.mark.parametrize("last", ["to_csv", "write_text"])
def test_an_import_whose_table_finds_no_room(last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signals are all there when it happens."""
    write_cinc(tmp_path / "in")
    write_text = Path.write_text

    def full(self: object, *arguments: object, **others: object) -> None:
        if isinstance(self, Path) and self.name != "provenance.json":
            write_text(self, *arguments, **others)
        else:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pd.DataFrame if last == "to_csv" else Path, last, full)
    with pytest.raises(DataError, match=r"out: the disk is full\. What was finished is kept"):
        import_source(tmp_path / "in", tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert import_source(tmp_path / "in", tmp_path / "out", jobs=1).n_continued == 3


def test_a_pack_that_finds_the_disk_full_anywhere(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "P", noise_mv(5))
    path = folder / "packed" / store_name(QUARTER)
    n_full = 0
    for limit in LIMITS:
        try:
            with largest_file(limit):
                store = packed(folder, QUARTER, jobs=1)
        except DataError as error:
            assert "the disk is full" in str(error) and not path.exists()
            n_full += 1
        else:
            break
    assert 0 < n_full < len(LIMITS)
    verify(store)
    assert len(store) == 5 and [x.name for x in path.parent.iterdir()] == [path.name]
