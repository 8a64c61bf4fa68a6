"""The rows of a large sweep once more, in one file: never the truth, never in the way."""

import datetime
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from ecgscale import results
from ecgscale.results import NewRows, Outcome, append, outcomes, read
from ecgscale.row_cache import CACHE_FILE, WORTH_A_CACHE

N = 5


@pytest.fixture
def folder(tmp_path, make_record, monkeypatch):
    """Five rows and a cache of them: so few that the test is quick."""
    monkeypatch.setattr(results, "WORTH_A_CACHE", N)
    for n in range(N):
        add(tmp_path, make_record, n)
    read(tmp_path)
    assert (tmp_path / CACHE_FILE).exists()
    return tmp_path


@pytest.fixture
def opened(monkeypatch):
    """The rows that are opened one by one from now on."""
    found, read_row = [], results.read_row
    monkeypatch.setattr(results, "read_row", lambda path: found.append(path.name) or read_row(path))
    return found


def add(folder, make_record, n, **fields):
    started = datetime.datetime(2026, 1, 1, 12, 0, 0, 7, tzinfo=datetime.UTC) + datetime.timedelta(minutes=n)
    return append(folder, make_record(trial_id=f"{n:012x}", seed=n, started_at=started, **fields))


def test_rows_come_out_of_it_as_they_went_in(folder, make_record, opened):
    cached = read(folder)
    assert opened == []
    (folder / CACHE_FILE).unlink()
    assert cached == read(folder) and len(opened) == N
    assert [row.model_dump_json() for row in cached] == [row.model_dump_json() for row in read(folder)]
    assert [row.seed for row in cached] == list(range(N))


def test_outcomes_are_the_rows_in_short(folder, opened):
    found = outcomes(folder)
    assert opened == []
    assert [type(row) for row in found] == [Outcome] * N
    assert [row.model_dump() for row in found] == [row.model_dump(include=Outcome.model_fields) for row in read(folder)]


def test_what_is_new_is_opened_and_what_is_gone_is_gone(folder, make_record, opened):
    add(folder, make_record, N)
    assert [row.seed for row in read(folder)] == list(range(N + 1)) and len(opened) == 1
    next((folder / "rows").glob(f"{2:012x}-*")).unlink()
    assert [row.seed for row in read(folder)] == [0, 1, 3, 4, 5]
    assert [row.seed for row in outcomes(folder)] == [0, 1, 3, 4, 5]
    for n in range(N + 1, 2 * N):
        add(folder, make_record, n)
    read(folder)  # enough new ones for a new cache
    opened.clear()
    assert [row.seed for row in read(folder)] == [0, 1, *range(3, 2 * N)] and opened == []


def test_a_row_that_was_changed_is_read_again(folder, make_record):
    (path,) = (folder / "rows").glob(f"{3:012x}-*")
    other = add(folder / "other", make_record, 3, id_loss=0.125)
    path.write_bytes(other.read_bytes())
    assert [row.id_loss for row in read(folder)].count(0.125) == 1


def test_a_row_that_was_damaged_is_quarantined_and_not_read_from_the_cache(folder):
    (path,) = (folder / "rows").glob(f"{3:012x}-*")
    path.write_bytes(path.read_bytes()[:-200])
    assert [row.seed for row in read(folder)] == [0, 1, 2, 4]
    assert list(results.quarantined(folder)) == [path.name]


def test_a_small_sweep_has_none(tmp_path, make_record):
    for n in range(WORTH_A_CACHE - 1):
        add(tmp_path, make_record, n)
    assert len(read(tmp_path)) == WORTH_A_CACHE - 1 and not (tmp_path / CACHE_FILE).exists()
    add(tmp_path, make_record, WORTH_A_CACHE)
    assert len(outcomes(tmp_path)) == WORTH_A_CACHE and (tmp_path / CACHE_FILE).exists()


def test_a_copied_folder_makes_its_own(folder, tmp_path, opened):
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copy)
    assert read(copy) == read(folder) and len(opened) == N


# --- nothing that can be wrong with it does harm -------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["a bit", "truncated", "empty", "text", "a folder"])
def test_a_damaged_one_is_ignored_and_made_again(folder, opened, damage):
    expected, cache = read(folder), folder / CACHE_FILE
    whole = cache.read_bytes()
    places = range(0, len(whole), len(whole) // 12) if damage == "a bit" else [len(whole) // 2]
    for place in places:
        if damage == "a bit":
            cache.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        elif damage == "a folder":
            cache.unlink()
            cache.mkdir()
        else:
            cache.write_bytes({"truncated": whole[:place], "empty": b"", "text": b"no rows at all"}[damage])
        assert read(folder) == expected
    assert len(opened) == N * len(places)
    if damage != "a folder":
        assert read(folder) == expected and len(opened) == N * len(places)


def test_one_of_another_declaration_is_ignored(folder, monkeypatch, opened):
    other = results.ROW_SCHEMA.with_metadata({"declared": "of another version"})
    monkeypatch.setattr(results, "_cache_schema", lambda: other)
    assert len(read(folder)) == N and len(opened) == N
    monkeypatch.undo()
    assert len(read(folder)) == N  # theirs is not ours either


@pytest.mark.parametrize("step", ["open", "replace"])
def test_where_none_can_be_written_there_is_none(folder, monkeypatch, step):
    do = getattr(results.Path, step)

    def full(self, *arguments, **options):
        if step == "open" and arguments != ("wb",):
            return do(self, *arguments, **options)
        raise OSError(28, "No space left on device")

    (folder / CACHE_FILE).unlink()
    monkeypatch.setattr(results.Path, step, full)
    assert len(outcomes(folder)) == N
    assert [path.name for path in folder.iterdir()] == ["rows"]


def test_several_readers_at_once_agree_and_leave_nothing_behind(folder):
    expected = read(folder)
    (folder / CACHE_FILE).unlink()
    with ThreadPoolExecutor(8) as readers:
        assert all(rows == expected for rows in readers.map(read, [folder] * 16))
    assert sorted(path.name for path in folder.iterdir()) == ["rows", CACHE_FILE]


def test_new_rows_are_seen_once_in_a_folder_that_was_not_there(tmp_path, make_record):
    new = NewRows(tmp_path / "later")
    assert new.look() == []
    add(tmp_path / "later", make_record, 0)
    assert [row.seed for row in new.look()] == [0] and new.look() == []
