"""Kills an import or a pack at its first step on the disk, then at its second, and so on; run as a script.

Python tells of every file that is opened for writing and of every rename and deletion (`sys.addaudithook`): a child
process dies just before it. What it leaves behind must be whole or nameless, and doing the same again must give the
same bytes and leave nothing else.

Usage: killed_at_every_step.py WORK FOLDER, with a function below that is called WORK. Prints the number of steps.
"""

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from code_folders import QUARTER, noise_mv, write_folder
from source_folders import write_cinc

from ecgscale.data import import_parts, importing, packing
from ecgscale.data.code_format import open_code
from ecgscale.data.importing import import_source
from ecgscale.data.packing import packed
from ecgscale.data.store import open_store, stored_header, verify
from ecgscale.errors import DataError

_STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")
_left = 0


def _hook(event: str, args: tuple[object, ...]) -> None:
    global _left
    if _left == 0 or event not in _STEPS:
        return
    if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _child(work: Callable[[Path], None], folder: Path, die_at: int) -> int:
    """The wait status of a process that does the work."""
    global _left
    if (child := os.fork()) == 0:
        try:
            _left = die_at
            work(folder)
            _left = 0
        except BaseException:
            _left = 0
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Import


def imported(folder: Path) -> None:
    """Into a new folder: three parts of one block each, the middle one with a record that is refused."""
    import_source(folder / "in", folder / "out", jobs=1)


def prepare_imported(folder: Path) -> None:
    importing.BLOCK = 1
    importing.RECORDS_PER_PART = import_parts.RECORDS_PER_PART = 2
    shutil.rmtree(folder / "out", ignore_errors=True)
    if not (folder / "in").exists():
        write_cinc(folder / "in")
        import_source(folder / "in", folder / "whole", jobs=1)


def inspect_imported(folder: Path) -> None:
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} <= {"in", "whole", "out"}
    if (folder / "out").exists():
        assert contents(folder / "out") == contents(folder / "whole")
    for hidden in folder.glob(".*"):  # nobody looks there, and who does finds no folder in CODE format
        for inner in (hidden, *(path for path in hidden.rglob("*") if path.is_dir())):
            _assert_no_half(inner, folder)


def _assert_no_half(inner: Path, folder: Path) -> None:
    try:
        found = open_code(inner)
    except DataError:
        return
    assert len(found.exams) == len(open_code(folder / "whole").exams)


def compare_imported(folder: Path) -> None:
    assert contents(folder / "out") == contents(folder / "whole")
    assert not list(folder.glob(".*")), list(folder.glob(".*"))


def replaced(folder: Path) -> None:
    """Over a folder that is there already."""
    import_source(folder / "in", folder / "out", jobs=1, overwrite=True)


def prepare_replaced(folder: Path) -> None:
    prepare_imported(folder)
    if not (folder / "old").exists():
        write_folder(folder / "old", noise_mv(2))
    shutil.copytree(folder / "old", folder / "out")


def inspect_replaced(folder: Path) -> None:
    known = contents(folder / "old"), contents(folder / "whole")
    if (folder / "out").exists():
        assert contents(folder / "out") in known
    else:  # between two renames: both are there, whole, under hidden names
        aside = list(folder.glob(".out.replaced-*"))
        assert [contents(path) for path in aside] == [contents(folder / "old")]


compare_replaced = compare_imported


# Pack


def stored(folder: Path) -> None:
    """A store of three shards that is not there yet."""
    packed(folder / "P", QUARTER, jobs=1)


def _pack_in_shards() -> None:
    packing.pack.__kwdefaults__["shard_bytes"] = 2 * 2 * 12 * QUARTER.n_samples


def prepare_stored(folder: Path) -> None:
    _pack_in_shards()
    if not (folder / "P").exists():
        write_folder(folder / "P", noise_mv(5))
        packed(folder / "P", QUARTER, jobs=1).path.parent.rename(folder / "whole")
    shutil.rmtree(folder / "P" / "packed", ignore_errors=True)


def inspect_stored(folder: Path) -> None:
    for path in (folder / "P" / "packed").glob("*"):
        assert path.name.endswith(".unfinished") or len(open_store(path)) == 5
        if path.name.endswith(".unfinished") and stored_header(path) is not None:
            verify(open_store(path))  # all that is missing is the name


def compare_stored(folder: Path) -> None:
    found = contents(folder / "P" / "packed")
    whole = contents(folder / "whole")
    assert {name: found[name] for name in whole} == whole
    # what the process was about to delete when it was killed does no harm
    assert all(Path(name).name.startswith(("shard-", "plan")) for name in found.keys() - whole.keys())
    verify(packed(folder / "P", QUARTER, jobs=1))


def stored_again(folder: Path) -> None:
    """A store whose records have changed since."""
    packed(folder / "P", QUARTER, jobs=1)


def prepare_stored_again(folder: Path) -> None:
    _pack_in_shards()
    if not (folder / "P").exists():
        write_folder(folder / "P", noise_mv(5))
        packed(folder / "P", QUARTER, jobs=1).path.parent.rename(folder / "old")
        pd.read_csv(folder / "P" / "exams.csv").assign(age=70).to_csv(folder / "P" / "exams.csv", index=False)
        packed(folder / "P", QUARTER, jobs=1).path.parent.rename(folder / "whole")
    shutil.rmtree(folder / "P" / "packed", ignore_errors=True)
    shutil.copytree(folder / "old", folder / "P" / "packed")


def inspect_stored_again(folder: Path) -> None:
    for path in (folder / "P" / "packed").glob("*"):
        if not path.name.endswith(".unfinished"):
            try:
                verify(open_store(path))
            except DataError:
                continue  # being deleted
            assert contents(path).items() >= contents(folder / "old" / path.name).items() or set(
                open_store(path).index["age"]
            ) == {70}


compare_stored_again = compare_stored


def main(name: str, folder: Path) -> None:
    names = globals()
    work, prepare, inspect, compare = (names[f"{x}{name}"] for x in ("", "prepare_", "inspect_", "compare_"))
    sys.addaudithook(_hook)
    step, status = 0, -1
    while status != 0:
        step += 1
        prepare(folder)
        status = _child(work, folder, step)
        assert status in (0, signal.SIGKILL), f"step {step} ended with {status}"
        inspect(folder)
        assert _child(work_again(work), folder, 0) == 0, f"it did not go on after step {step}"
        compare(folder)
    print(step - 1)


def work_again(work: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same, except that an import which had been published already must ask to overwrite."""

    def again(folder: Path) -> None:
        if work is imported and (folder / "out").exists():
            replaced(folder)
        else:
            work(folder)

    return again


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
