"""Damages one file of a folder of `source_folders`, in ways that files get damaged, and tells whom it may concern.

Everything is drawn from one generator, so a case number names one mutation for ever.
"""

import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from source_folders import N_RECORDS, Written

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 120024\n"
ALL = frozenset(range(N_RECORDS))
NONE = frozenset[int]()

Rng = np.random.Generator


@dataclass(frozen=True)
class Mutation:
    """What was done.

    Attributes:
        what: In words.
        file: The damaged file's name.
        concerned: The records (0, 1, 2) that may come out otherwise; the others have to be imported as they are.
        detectable: Whether a record that is imported nevertheless has to be the same: there is a checksum.
        may_refuse: The records that may be refused; `ALL` where the damage is to what all have in common.
        may_mislead: The damage may be to ids or paths, so that records come out under other numbers.
    """

    what: str
    file: str
    concerned: frozenset[int]
    may_refuse: frozenset[int]
    detectable: bool = False
    may_mislead: bool = False


def mutate(folder: Path, written: Written, rng: Rng) -> Mutation:
    """Damages one file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    name = path.relative_to(folder).as_posix()
    owner = next((k for k, own in enumerate(written.own) if name in own), None)
    if owner is not None:
        return _of_one_record(folder, path, owner, written, rng)
    if path.suffix == ".csv":
        return _of_the_table(path, written, rng)
    return _of_a_container(path, rng)


# What holds one record


def _of_one_record(folder: Path, path: Path, owner: int, written: Written, rng: Rng) -> Mutation:
    concerned, detectable = {owner}, False
    kinds: list[Callable[[Path, Rng], str]] = [*_ANY]
    if path.suffix == ".hea":
        kinds += [*_TEXT, *[_edit_header] * 10]
    elif path.suffix == ".npy":
        kinds += [_edit_npy] * 4
    if rng.random() < 0.1:
        other = int(rng.choice([k for k in range(N_RECORDS) if k != owner]))
        files = [x for x in written.own[other] if x.endswith(path.suffix)]
        what = _swap(path, folder / files[0])
        concerned.add(other)
        detectable = path.suffix == ".hea" or (path.suffix in (".dat", ".mat") and written.kind != "cpsc")
    else:
        what = kinds[rng.integers(len(kinds))](path, rng)
        # the checksums are in the header, and the sum does not see what comes behind the last sample
        detectable = path.suffix in (".dat", ".mat") and written.kind != "cpsc" and what in ("one bit", "truncated")
    touched = frozenset(concerned)
    return Mutation(what, path.name, touched, touched, detectable)


# The table


def _of_the_table(path: Path, written: Written, rng: Rng) -> Mutation:
    kinds = [*_ANY, *_TEXT, *[_edit_table] * 4]
    what = kinds[rng.integers(len(kinds))](path, rng)
    return Mutation(what, path.name, ALL, ALL, may_mislead=True)


# What holds many records


def _of_a_container(path: Path, rng: Rng) -> Mutation:
    if path.suffix == ".zip":
        what = _ANY[rng.integers(len(_ANY))](path, rng)
        return Mutation(what, path.name, frozenset({2}), frozenset({2}), detectable=True)
    here = rng.random()
    rows = _rows_of(path)
    if path.suffix == ".npy":
        what = (_edit_npy if here < 0.4 else _ANY[rng.integers(len(_ANY))])(path, rng)
        return Mutation(what, path.name, ALL, ALL)
    # of the release's two parts the first holds records 0 and 1, the second record 2
    inside = (
        frozenset({2}) if path.name == "exams_part1.hdf5" else ALL - {2} if path.name.startswith("exams_p") else ALL
    )
    if here < 0.25:
        row = int(rng.integers(len(rows)))
        what = _edit_samples(path, row, rng)
        touched = frozenset({sorted(inside)[row]}) if row < len(inside) else NONE
        return Mutation(what, path.name, touched, touched)
    if here < 0.4:
        row = int(rng.integers(len(rows)))
        offset, size = rows[row]
        content = bytearray(path.read_bytes())
        content[offset + int(rng.integers(size))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        touched = frozenset({sorted(inside)[row]}) if row < len(inside) else NONE
        return Mutation("one bit of the samples", path.name, touched, touched)
    what = (_edit_hdf5 if here < 0.7 else _ANY[rng.integers(len(_ANY))])(path, rng)
    # another unit or scale in one part is a contradiction of the whole folder
    return Mutation(what, path.name, inside, ALL, may_mislead=True)


def _rows_of(path: Path) -> list[tuple[int, int]]:
    """Where the samples of every row lie in an HDF5 file: first byte and size."""
    if path.suffix == ".npy":
        return []
    with h5py.File(path) as file:
        array = file["ecg" if "ecg" in file else "tracings"]
        if array.chunks is None:
            first, size = array.id.get_offset(), array.dtype.itemsize * int(np.prod(array.shape[1:]))
            return [(first + k * size, size) for k in range(len(array))]
        found = [array.id.get_chunk_info(k) for k in range(array.id.get_num_chunks())]
        return [(x.byte_offset, x.size) for x in sorted(found, key=lambda x: x.chunk_offset)]


# Damage to any file


def _truncated(path: Path, rng: Rng) -> str:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(len(content)))])
    return "truncated"


def _emptied(path: Path, rng: Rng) -> str:
    path.write_bytes(b"")
    return "emptied"


def _pointer(path: Path, rng: Rng) -> str:
    path.write_bytes(LFS)
    return "an LFS pointer"


def _one_bit(path: Path, rng: Rng) -> str:
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    return "one bit"


def _some_bytes(path: Path, rng: Rng) -> str:
    """Mostly near the start, where formats keep what they are about."""
    content = bytearray(path.read_bytes())
    reach = min(len(content), int(rng.choice([64, 1024, 4096, 1 << 30])))
    for _ in range(int(rng.integers(1, 9))):
        content[int(rng.integers(reach))] = int(rng.integers(256))
    path.write_bytes(content)
    return "some bytes"


def _a_block_of_zeros(path: Path, rng: Rng) -> str:
    content = bytearray(path.read_bytes())
    first = int(rng.integers(len(content)))
    size = min(int(rng.integers(1, 5000)), len(content) - first)
    content[first : first + size] = bytes(size)
    path.write_bytes(content)
    return "a block of zeros"


def _a_block_less(path: Path, rng: Rng) -> str:
    content = bytearray(path.read_bytes())
    first = int(rng.integers(len(content)))
    del content[first : first + int(rng.integers(1, 1000))]
    path.write_bytes(content)
    return "a block less"


def _more_behind(path: Path, rng: Rng) -> str:
    path.write_bytes(path.read_bytes() + rng.bytes(int(rng.integers(1, 5000))))
    return "more behind"


def _random(path: Path, rng: Rng) -> str:
    path.write_bytes(rng.bytes(len(path.read_bytes())))
    return "random bytes"


def _removed(path: Path, rng: Rng) -> str:
    path.unlink()
    return "removed"


def _a_folder(path: Path, rng: Rng) -> str:
    path.unlink()
    path.mkdir()
    return "a folder of that name"


_ANY = (
    *(_truncated, _truncated, _emptied, _pointer, _one_bit, _one_bit, _some_bytes, _some_bytes),
    *(_a_block_of_zeros, _a_block_less, _more_behind, _random, _removed, _a_folder),
)


def _swap(path: Path, other: Path) -> str:
    between = path.with_name("between")
    shutil.move(path, between)
    shutil.move(other, path)
    shutil.move(between, other)
    return f"swapped with {other.name}"


# Damage to texts

_ABSURD = (
    *("", "nan", "-1", "0", "1e400", "-1e-400", "9" * 30, "9" * 5000, "1.5", "inf", "abc", '"', "µV", "\0", "'", "1,2"),
    *("16x0", "16:5", "16+99999999", "12/3", "2**99999", "{'a': {}}", "[" * 300, "../../x", "/", "True", "2" * 18),
)


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").split("\n")


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines), encoding="utf-8")


def _a_line_less(path: Path, rng: Rng) -> str:
    lines = _lines(path)
    del lines[int(rng.integers(len(lines)))]
    _write(path, lines)
    return "a line less"


def _a_line_repeated(path: Path, rng: Rng) -> str:
    lines = _lines(path)
    k = int(rng.integers(len(lines)))
    lines.insert(int(rng.integers(len(lines))), lines[k])
    _write(path, lines)
    return "a line repeated"


def _encoded(path: Path, rng: Rng) -> str:
    encoding = str(rng.choice(["utf-16", "utf-8-sig", "utf-32-be", "cp500"]))
    path.write_bytes(path.read_text("utf-8").encode(encoding, errors="replace"))
    return f"in {encoding}"


def _latin(path: Path, rng: Rng) -> str:
    content = bytearray(path.read_bytes())
    content.insert(int(rng.integers(len(content))), 0xB5)
    path.write_bytes(content)
    return "a Latin-1 letter"


_TEXT = (_a_line_less, _a_line_repeated, _encoded, _latin)


def _edit_table(path: Path, rng: Rng) -> str:
    lines = _lines(path)
    how = int(rng.integers(5))
    if how == 0:  # a column less
        column = int(rng.integers(lines[0].count(",") + 1))
        _write(path, [",".join(x for k, x in enumerate(line.split(",")) if k != column) for line in lines])
        return f"without column {column}"
    if how == 1:
        other = str(rng.choice([";", "\t"]))
        _write(path, [line.replace(",", other) for line in lines])
        return f"separated by {other!r}"
    if how == 2:
        _write(path, lines[:1])
        return "only its header"
    row = int(rng.integers(len(lines) - 1))
    cells = lines[row].split(",")
    cell, value = int(rng.integers(len(cells))), str(rng.choice(np.array(_ABSURD, dtype=object)))
    cells[cell] = value
    lines[row] = ",".join(cells)
    _write(path, lines)
    return f"cell {cell} of line {row + 1} is {value[:20]!r}"


def _edit_header(path: Path, rng: Rng) -> str:
    """A WFDB header: its first line, or one of a signal."""
    lines = _lines(path)
    how = int(rng.integers(4))
    if how == 0:
        del lines[10:13]
        lines[0] = lines[0].replace(" 12 ", " 9 ")
        _write(path, lines)
        return "nine leads"
    row = int(rng.integers(1, 13)) if how < 3 else 0
    words = lines[row].split(" ")
    word, value = int(rng.integers(len(words))), str(rng.choice(np.array(_ABSURD, dtype=object)))
    if how == 1:
        word, value = 2, str(rng.choice(["", "0", "/mV", "1000", "-1000/mV", "1e-9/mV", "1000(7)/mV", "1000/mmHg"]))
    words[word] = value
    lines[row] = " ".join(words)
    _write(path, lines)
    return f"word {word} of line {row + 1} is {value[:20]!r}"


# Damage to arrays


def _edit_npy(path: Path, rng: Rng) -> str:
    array = np.load(path)
    how = int(rng.integers(8))
    if how == 0:
        np.save(path, np.asfortranarray(array))
    elif how == 1:
        np.save(path, np.delete(array, 0, axis=int(rng.integers(array.ndim))))
    elif how == 2:
        np.save(path, array.swapaxes(0, -1))
    elif how == 3:
        np.save(path, array.astype(str(rng.choice(["S3", "c16", "?", "u1", "f2", "M8[s]", "i8", ">i4"]))))
    elif how == 4:
        np.save(path, array.astype(object), allow_pickle=True)
    elif how == 5:
        np.save(path, array.reshape(-1))
    elif how == 6:
        content = path.read_bytes()
        end = content.index(b"\n")
        said = content[:end].replace(b"'shape': (", b"'shape': (9999999999999, ").replace(b"  ", b"")
        path.write_bytes(said.ljust(end) + content[end:])
    else:
        content = path.read_bytes()
        path.write_bytes(content[:6] + struct.pack("<BB", 9, 9) + content[8:])
    return f"npy edit {how}"


def _edit_samples(path: Path, row: int, rng: Rng) -> str:
    """Samples of one row of an HDF5 array that no ECG has."""
    with h5py.File(path, "r+") as file:
        array = file["ecg" if "ecg" in file else "tracings"]
        index: tuple[object, ...] = (slice(None), slice(None), row) if "ecg" in file else (row,)
        samples = array[index]
        value = (
            rng.choice([np.nan, np.inf, -np.inf, 1e30, 3e38, 0.0])
            if array.dtype.kind == "f"
            else rng.choice([0, 32767])
        )
        if rng.random() < 0.5:
            samples[...] = value
        else:
            samples[samples.shape[0] // 2] = value
        array[index] = samples
    return f"samples of row {row} are {value}"


def _edit_hdf5(path: Path, rng: Rng) -> str:
    with h5py.File(path, "r+") as file:
        name = "ecg" if "ecg" in file else "tracings"
        array, attributes = file[name][()], dict(file[name].attrs)
        others = [x for x in file if x != name]
        how = int(rng.integers(10))
        if how < 5:
            del file[name]
            if how == 0:
                file[name] = array[..., :9]
            elif how == 1:
                file[name] = array.swapaxes(0, 1)
            elif how == 2:
                file[name] = array.astype(str(rng.choice(["i2", "u1", "f2", "f8", ">f4", "i8"])))
            elif how == 3:
                file.create_group(name)
            else:
                file[name] = array[:1]
            if how != 3:
                file[name].attrs.update(attributes)
            return f"hdf5 edit {how}"
        if how < 8:
            attribute = str(rng.choice(["mv_per_unit", "scale", "fs_hz", "fs", "unit", "leads"]))
            values = (float("nan"), float("inf"), 0.0, -1.0, "mV", "µV", [1.0, 2.0], np.array(b"\xff"), 1e300, ["I"])
            file[name].attrs[attribute] = values[int(rng.integers(len(values)))]
            return f"attribute {attribute} is {file[name].attrs[attribute]!r}"
        if not others:
            return "nothing"
        ids = file[others[0]][()]
        del file[others[0]]
        if how == 8:
            new = (ids[:-1], ids.astype("f8"), ids.astype("S5"), ids[:, None], np.full_like(ids, ids[0]), ids[::-1])
            file[others[0]] = new[int(rng.integers(len(new)))]
        return f"hdf5 edit {how} of the ids"
