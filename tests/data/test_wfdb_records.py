"""WFDB records: real ones as wfdb reads them, every unit and header dialect in mV, damaged ones refused by name."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgscale.conventions import LEADS
from ecgscale.data.wfdb_records import read_header, read_record
from ecgscale.errors import DataError

with warnings.catch_warnings():  # wfdb 4.3.1 uses what pandas 3.1 deprecates
    warnings.simplefilter("ignore")
    import wfdb

REAL = Path(os.environ.get("ECGSCALE_REAL_DATA", "")) / "ecg"
needs_real = pytest.mark.skipif(
    "ECGSCALE_REAL_DATA" not in os.environ or not REAL.is_dir(), reason="no ECGSCALE_REAL_DATA"
)


def sine_mv(n: int = 900, fs_hz: float = 500, n_leads: int = 12) -> np.ndarray:
    """(time, lead): a 1 mV, 1 Hz sine in the first lead, smaller ones in the others; no whole number of periods."""
    return np.sin(2 * np.pi * np.arange(n) / fs_hz)[:, None] / np.arange(1, n_leads + 1)


def write(
    folder: Path,
    signal_mv: np.ndarray,
    *,
    name: str = "r1",
    first: str | None = None,
    line: str = "{file} 16 1000.0(0)/mV 16 0 {start} {checksum} 0 {lead}",
    per_mv: float = 1000.0,
    offset: int = 0,
    prefix: bytes = b"",
    suffix: str = ".dat",
) -> Path:
    """A record with correct checksums; `line` is the pattern of its signal lines. Returns its header."""
    digital = np.round(signal_mv * per_mv + offset).astype("<i2")
    checksums = digital.sum(axis=0, dtype=np.int64) % 65536
    file = name + suffix
    (folder / file).write_bytes(prefix + digital.tobytes())
    header = [first or f"{name} {digital.shape[1]} 500 {len(digital)}"]
    for k, lead in enumerate(LEADS[: digital.shape[1]]):
        header.append(line.format(file=file, start=digital[0, k], checksum=checksums[k], lead=lead))
    path = folder / f"{name}.hea"
    path.write_text("\n".join(header) + "\n#Age: 63\n# Sex: Male\n", encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"{path.stem}: ")
    return str(caught.value)


@needs_real
@pytest.mark.parametrize(("folder", "n"), [("ludb/data", 200), ("cinc2021-sample/records", 87)])
def test_every_real_record_has_the_samples_that_wfdb_reads(folder: str, n: int) -> None:
    paths = sorted((REAL / folder).glob("*.hea"))
    assert len(paths) == n
    for path in paths:
        theirs = wfdb.rdrecord(str(path.with_suffix("")), physical=False)
        ours = read_record(path, digital_per_mv=1.0)
        assert np.array_equal(ours.signal_mv, theirs.d_signal), path.stem
        assert (list(ours.leads), ours.header.fs_hz) == (theirs.sig_name, theirs.fs)
        physical = (theirs.d_signal - np.array(theirs.baseline)) / np.array(theirs.adc_gain)
        np.testing.assert_allclose(read_record(path).signal_mv, physical, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("line", "per_mv", "offset"),
    [
        ("{file} 16 1000.0(0)/mV 16 0 {start} {checksum} 0 {lead}", 1000, 0),  # PTB-XL
        ("{file} 16 200.0(0)/mV 16 0 {start} {checksum} 0 {lead}", 200, 0),  # MIMIC-IV-ECG
        ("{file} 16 2000/mv 16 0 {start} {checksum} 0 {lead}", 2000, 0),
        ("{file} 16 1/uV 16 0 {start} {checksum} 0 {lead}", 1000, 0),
        ("{file} 16 2.5(100)/µV 16 0 {start} {checksum} 0 {lead}", 2500, 100),
        ("{file} 16:0 200000/V 16 0 {start} {checksum} 0 {lead}", 200, 0),
        ("{file} 16 1000 16 -50 {start} {checksum} 0 {lead}", 1000, -50),  # the baseline is the ADC's zero
        ("{file} 16 1000", 1000, 0),
    ],
)
def test_a_one_millivolt_sine_in_every_unit(tmp_path: Path, line: str, per_mv: float, offset: int) -> None:
    record = read_record(write(tmp_path, sine_mv(), line=line, per_mv=per_mv, offset=offset))
    np.testing.assert_allclose(record.signal_mv, sine_mv(), atol=0.5 / per_mv + 1e-6)  # half a digital unit


def test_both_years_header_dialects_of_the_challenges(tmp_path: Path) -> None:
    v4 = b"\x1e\0\0\0\x0c\0\0\0\x84\x03\0\0\0\0\0\0\x04\0\0\0val\0"  # MATLAB v4: int16, 12 × 900, "val"
    old = write(
        tmp_path,
        sine_mv(),
        name="E00271",
        first="E00271.mat 12 500 900 05-May-2020 14:50:55",
        line="{file} 16+24 1000/mV 16 0 {start} {checksum} 0 {lead}",
        prefix=v4,
        suffix=".mat",
    )
    with pytest.raises(ValueError, match="record line"):
        wfdb.rdheader(str(old.with_suffix("")))
    new = write(
        tmp_path,
        sine_mv(),
        name="JS00001",
        line="{file} 16x1+24 1000.0(0)/mV 16 0 {start} {checksum} 0 {lead}",
        prefix=v4,
        suffix=".mat",
    )
    for path in (old, new):
        record = read_record(path)
        np.testing.assert_allclose(record.signal_mv, sine_mv(), atol=0.5001e-3)
        assert (record.header.comment("age"), record.header.comment("Sex")) == ("63", "Male")
        assert record.leads == LEADS


def test_old_latin_1_headers_and_byte_order_marks(tmp_path: Path) -> None:
    path = write(tmp_path, sine_mv(), line="{file} 16 1/µV 16 0 {start} {checksum} 0 {lead}")
    path.write_bytes(path.read_text("utf-8").encode("latin-1"))
    np.testing.assert_allclose(read_record(path).signal_mv, sine_mv(), atol=0.5001e-3)
    path = write(tmp_path, sine_mv())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    np.testing.assert_allclose(read_record(path).signal_mv, sine_mv(), atol=0.5001e-3)


def test_leads_in_two_files_and_a_marked_sample(tmp_path: Path) -> None:
    signal = sine_mv(n_leads=8)
    path = write(tmp_path, signal)
    digital = np.fromfile(tmp_path / "r1.dat", "<i2").reshape(-1, 8)
    digital[7, 5] = -32768
    digital[:, :6].tofile(tmp_path / "a.dat")
    digital[:, 6:].tofile(tmp_path / "b.xyz")
    header = ["r1 8 500 900", *(f"a.dat 16 1000/mV 16 0 0 0 0 {x}" for x in LEADS[:6])]
    path.write_text("\n".join([*header, *(f"b.xyz 16 1000/mV 16 0 0 0 0 v{x}" for x in "xy")]))
    record = read_record(path)
    assert np.argwhere(np.isnan(record.signal_mv)).tolist() == [[7, 5]]
    np.testing.assert_allclose(np.nan_to_num(record.signal_mv, nan=signal[7, 5]), signal, atol=0.5001e-3)
    assert record.leads == (*LEADS[:6], "vx", "vy")
    (tmp_path / "b.xyz").unlink()
    (tmp_path / "r1.dat").unlink()
    assert "its signal file b.xyz is not there" in refusal(path)
    digital[:99, 6:].tofile(tmp_path / "b.xyz")
    assert "b.xyz is truncated, 396 of 3600 bytes" in refusal(path)


# Damage


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{file} 16", "the header has no gain in mV, µV or V for lead ?"),
        ("{file} 16 0(0)/mV 16 0 {start} {checksum} 0 {lead}", "no gain in mV, µV or V for lead I;"),
        ("{file} 16 inf/mV 16 0 {start} {checksum} 0 {lead}", "no gain"),
        ("{file} 16 1000/mmHg 16 0 {start} {checksum} 0 {lead}", "no gain"),
        ("{file} 16 -1000/mV 16 0 {start} {checksum} 0 {lead}", "gain for lead I is -1000 per mV"),
        ("{file} 16 1e999/mV 16 0 {start} {checksum} 0 {lead}", "gain for lead I is inf per mV"),
        ("{file} 16 1e-3/mV 16 0 {start} {checksum} 0 {lead}", "gain for lead I is 0.001 per mV"),
        ("{file} 212 1000/mV 16 0 {start} {checksum} 0 {lead}", "format other than 16 (it is 212); convert"),
        ("{file} 16x4 1000/mV 16 0 {start} {checksum} 0 {lead}", "format other than 16 (it is 16x4)"),
        ("{file} 16:3 1000/mV 16 0 {start} {checksum} 0 {lead}", "format other than 16 (it is 16:3)"),
        ("{file} ?? 1000/mV", "cannot understand the signal line 'r1.dat ?? 1000/mV'"),
        ("{file} 16+" + 5000 * "9", "cannot understand the signal line"),
        ("{file} 16+24 1000/mV 16 0 {start} {checksum} 0 {lead}", "r1.dat is truncated, 21600 of 21624 bytes"),
        ("elsewhere/r9.dat 16 1000/mV 16 0 {start} 1 0 {lead}", "samples do not add up"),
    ],
)
def test_signal_lines_that_would_give_wrong_numbers(tmp_path: Path, line: str, words: str) -> None:
    assert words in refusal(write(tmp_path, sine_mv(), line=line))


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("", "announces"),
        ("r1 12", "is not a WFDB header"),
        ("r1/3 12 500 900", "has several segments"),
        ("r1 12 fast 900", "cannot understand the first line of r1.hea: 'r1 12 fast 900'"),
        ("r1 12 nan 900", "announces 900 samples at nan Hz"),
        ("r1 12 0 900", "announces 900 samples at 0 Hz"),
        ("r1 12 500 -4", "announces -4 samples"),
        ("r1 13 500 900", "announces 13 signals and describes 12"),
        ("r1 -1 500 900", "announces -1 signals"),
        ("r1 12 500 901", "r1.dat is truncated, 21600 of 21624 bytes"),
        ("r1 12 500 99999999999", "r1.dat is truncated"),
        ("r1 9 500 900", "damaged, its samples do not add up"),
        ("r1 12 500 899", "damaged, its samples do not add up"),
    ],
)
def test_first_lines_that_are_not_of_this_record(tmp_path: Path, first: str, words: str) -> None:
    path = write(tmp_path, sine_mv())
    text = path.read_text("utf-8")
    path.write_text(text.replace("r1 12 500 900", first or "r1.dat 16 900"), encoding="utf-8")
    assert words in refusal(path)


def test_files_that_are_not_the_signal(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * b"0" + b"\nsize 120000\n"
    path = write(tmp_path, sine_mv())
    data = path.with_suffix(".dat")
    stored = data.read_bytes()
    data.write_bytes(pointer)
    assert "r1.dat is a Git LFS pointer, not the signal; run `git lfs pull`" in refusal(path)
    data.write_bytes(stored[:10801])
    assert "r1.dat is truncated, 10801 of 21600 bytes; get it again" in refusal(path)
    damaged = bytearray(stored)
    damaged[500] ^= 4
    data.write_bytes(damaged)
    assert "r1.dat is damaged, its samples do not add up to the checksums" in refusal(path)
    data.unlink()
    assert "its signal file r1.dat is not there" in refusal(path)
    data.mkdir()
    assert "its signal file r1.dat is not there" in refusal(path)
    path.write_bytes(pointer)
    assert "r1.hea is a Git LFS pointer" in refusal(path)
    path.unlink()
    assert "its header r1.hea is not there" in refusal(path)
    path.mkdir()
    assert "its header r1.hea cannot be read: Is a directory" in refusal(path)
    (tmp_path / "r2.hea").write_text("r2 1 500 9\n" + 999 * "x" + " 16 1000/mV")
    assert "cannot be read: File name too long" in refusal(tmp_path / "r2.hea")


def test_a_file_longer_than_announced_is_read_only_if_the_checksums_agree(tmp_path: Path) -> None:
    path = write(tmp_path, sine_mv())
    with path.with_suffix(".dat").open("ab") as file:
        file.write(bytes(24))
    np.testing.assert_allclose(read_record(path).signal_mv, sine_mv(), atol=0.5001e-3)
    path = write(tmp_path, sine_mv(), line="{file} 16 1000/mV 16 0 {start} 0 0 {lead}")
    assert len(read_record(path).signal_mv) == 900
    with path.with_suffix(".dat").open("ab") as file:
        file.write(bytes(24))
    assert "r1.dat holds 21624 bytes where the header announces 21600" in refusal(path)


def test_a_header_without_a_length_leaves_it_to_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, sine_mv(), first="r1 12 500/100(0)")
    assert read_header(path).n_samples == 0
    np.testing.assert_allclose(read_record(path).signal_mv, sine_mv(), atol=0.5001e-3)


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_mutated_records_are_refused_by_name_or_read(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = write(folder, sine_mv(n=40))
    victim = data.draw(st.sampled_from([path, path.with_suffix(".dat")]))
    stored = bytearray(victim.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, max(len(stored) - 1, 0)))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "digits", "swap"]))
        if kind == "flip" and stored:
            stored[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del stored[place : place + data.draw(st.integers(1, 200))]
        elif kind == "insert":
            stored[place:place] = data.draw(st.binary(min_size=1, max_size=20))
        elif kind == "digits":
            stored[place:place] = data.draw(st.sampled_from([b"9", b"-", b"e9", b"1e-40", b"0", 30 * b"7", b"/", b" "]))
        else:
            stored[place:], stored[:place] = stored[:place], stored[place:]
    victim.write_bytes(stored)
    try:
        record = read_record(path)
    except DataError as error:
        assert str(error).startswith("r1: ")
    else:
        assert record.signal_mv.dtype == np.float32 and record.signal_mv.shape[1] == len(record.leads)
        assert not np.isinf(record.signal_mv).any()
