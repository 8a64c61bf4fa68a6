"""Rows: exact round trips, declared types, whole files only, and what counts when there are several."""

import datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgscale import record_files, results
from ecgscale.errors import EcgscaleError
from ecgscale.plan import plan
from ecgscale.results import ROW_SCHEMA, RunRecord, append, latest, missing, read, table, transfer_table
from ecgscale.sweep import backlog

FAILED = {
    **dict.fromkeys(("val_loss_best", "val_loss_last", "best_step", "train_s")),
    **dict.fromkeys(("id_loss", "id_loss_last", "id_constant_loss")),
    "status": "failed",
    "reason": "ValueError: no\n  trial.py:1 in x: y",
    "id_auroc": (),
    "transfer": (),
}


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- one row -------------------------------------------------------------------------------------------------------


def test_a_row_comes_back_as_it_went_in(tmp_path, make_record):
    record = make_record()
    path = append(tmp_path, record)
    assert path.name == f"{record.trial_id}-{record.attempt}.parquet"
    assert read(tmp_path) == [record]
    (again,) = read(tmp_path)
    assert again.model_dump_json() == record.model_dump_json()
    assert again.started_at.utcoffset() == datetime.timedelta(0)
    assert again.started_at.microsecond == 234567
    assert type(again.train_flops) is float and again.train_flops == 9.5e18  # beyond 64-bit integers


def test_a_row_of_a_failed_trial_comes_back_with_its_nulls(tmp_path, make_record):
    record = make_record(**FAILED, git_commit=None, git_dirty=None, peak_memory_bytes=None)
    append(tmp_path, record)
    assert read(tmp_path) == [record]


def test_rows_from_before_failures_had_classes_are_read(tmp_path, make_record):
    later = ("failure", "bug", "git_diff", "cuda_version", "driver_version", "host", "argv", "config_hash", "ended_at")
    for n, status in enumerate(("completed", "diverged", "failed")):
        path = append(tmp_path, make_record(trial_id=f"{n}", status=status))
        pq.write_table(pq.read_table(path).drop_columns(list(later)), path)
    assert [r.failure_class for r in sorted(read(tmp_path), key=lambda r: r.trial_id)] == [None, "diverged", None]


def test_types_are_declared_whatever_the_row_holds(tmp_path, make_record):
    empty = pq.read_schema(append(tmp_path, make_record(**FAILED, git_commit=None, git_dirty=None)))
    full = pq.read_schema(append(tmp_path, make_record()))
    assert empty.equals(full) and empty.equals(ROW_SCHEMA)
    for name in ("id_loss", "val_loss_best", "train_s", "wall_s", "data_fraction"):
        assert empty.field(name).type == pa.float64()
    for name in ("n_params", "n_records", "best_step", "peak_memory_bytes"):
        assert empty.field(name).type == pa.int64()
    assert empty.field("git_dirty").type == pa.bool_()
    assert empty.field("started_at").type == pa.timestamp("us", tz="UTC")
    scores = empty.field("transfer").type.value_type
    assert scores.field("loss").type == scores.field("auroc").type == pa.float64()
    assert scores.field("seen").type == pa.bool_()


def test_every_column_of_the_schema_is_a_field_and_the_other_way_round():
    assert ROW_SCHEMA.names == list(RunRecord.model_fields)


@pytest.mark.parametrize("field", ["id_loss", "val_loss_best", "wall_s"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_missing_number_is_null_and_never_nan(make_record, field, value):
    with pytest.raises(ValueError, match="finite"):
        make_record(**{field: value})


def test_rows_are_readable_without_us(tmp_path, make_record):
    """Any parquet reader sees one flat table."""
    for seed in range(3):
        append(tmp_path, make_record(seed=seed, trial_id=f"{seed:012x}"))
    frame = pd.read_parquet(tmp_path / "rows")
    assert sorted(frame["seed"]) == [0, 1, 2]
    assert frame["id_loss"].dtype == "float64"


# --- publishing ----------------------------------------------------------------------------------------------------


def test_publishing_leaves_the_row_and_nothing_else(tmp_path, make_record):
    path = append(tmp_path / "new" / "sweep", make_record())
    assert files(tmp_path) == [path.name]


def test_attempts_never_overwrite_each_other(tmp_path, make_record):
    for _ in range(5):
        append(tmp_path, make_record())
    assert len(read(tmp_path)) == len(files(tmp_path)) == 5


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_interrupted_while_writing_leaves_nothing(tmp_path, make_record, monkeypatch, error):
    def half_written(row, sink, **options):
        sink.write(b"PAR1 and half of a row")
        raise error

    monkeypatch.setattr(record_files.pq, "write_table", half_written)
    with pytest.raises(type(error)):
        append(tmp_path, make_record())
    assert files(tmp_path) == []
    assert read(tmp_path) == []


def test_a_process_killed_while_writing_leaves_nothing_that_is_read(tmp_path, make_record):
    """No clean-up runs then: the unfinished file must not look like a row."""
    path = append(tmp_path, make_record())
    path.rename(path.with_suffix(".4711.tmp"))
    assert read(tmp_path) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign"])
def test_what_is_no_row_is_moved_away_with_a_note(tmp_path, make_record, damage):
    """So that its trial runs again, and nothing is lost that somebody may want to look at."""
    kept = make_record()
    append(tmp_path, kept)
    path = append(tmp_path, make_record())
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not a table")
    else:
        pq.write_table(pa.table({"loss": [0.1]}), path)
    damaged = path.read_bytes()
    assert [row.attempt for row in read(tmp_path)] == [kept.attempt]
    assert (tmp_path / "quarantine" / path.name).read_bytes() == damaged
    assert list(results.quarantined(tmp_path)) == [path.name] and results.quarantined(tmp_path)[path.name]
    assert [row.attempt for row in read(tmp_path)] == [kept.attempt]


def test_a_row_of_a_newer_version_is_not_touched(tmp_path, make_record):
    path = append(tmp_path, make_record(schema_version=results.SCHEMA_VERSION + 1))
    with pytest.raises(EcgscaleError, match=rf"{path.name}: a row of version .*update"):
        read(tmp_path)
    assert path.exists() and results.quarantined(tmp_path) == {}


def test_a_row_that_can_not_be_opened_is_named_and_not_moved(tmp_path, make_record, monkeypatch):
    path = append(tmp_path, make_record())

    def broken(self):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(results.Path, "read_bytes", broken)
        with pytest.raises(EcgscaleError, match=rf"{path.name}: can't be read \(Input/output error\)"):
            read(tmp_path)
    assert len(read(tmp_path)) == 1


def test_where_nothing_can_be_moved_the_file_is_named_with_the_way_out(tmp_path, make_record, monkeypatch):
    path = append(tmp_path, make_record())
    path.write_bytes(b"")

    def read_only(self, *arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(results.Path, "mkdir", read_only)
    with pytest.raises(EcgscaleError, match=rf"{path.name}: not a readable row .*Read-only.*move it away"):
        read(tmp_path)


def test_a_folder_that_can_not_be_written_is_told_before_anything_starts(tmp_path, monkeypatch):
    results.require_writable(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(EcgscaleError, match=r"file: results can't be written there .*--out"):
        results.require_writable(tmp_path / "file")

    def read_only(self, content):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(results.Path, "write_bytes", read_only)
    with pytest.raises(EcgscaleError, match="Read-only file system"):
        results.require_writable(tmp_path)


def test_a_row_that_may_not_be_published_leaves_nothing(tmp_path, make_record):
    assert append(tmp_path, make_record(), may_publish=lambda: False) is None
    assert files(tmp_path) == [] and read(tmp_path) == []


# --- several rows --------------------------------------------------------------------------------------------------


def at(second: int) -> datetime.datetime:
    return datetime.datetime(2025, 1, 1, 0, 0, second, tzinfo=datetime.UTC)


def test_rows_come_oldest_first(tmp_path, make_record):
    for second in (3, 1, 2):
        append(tmp_path, make_record(started_at=at(second)))
    assert [r.started_at.second for r in read(tmp_path)] == [1, 2, 3]


def test_the_completed_attempt_counts_else_the_last(make_record):
    failed, lost = make_record(**FAILED, started_at=at(1)), make_record(**FAILED, started_at=at(3))
    done = make_record(started_at=at(2))
    assert latest([failed, lost]) == {done.trial_id: lost}
    assert latest([failed, done, lost]) == {done.trial_id: done}
    assert latest([]) == {}
    other = make_record(trial_id="ba9876543210")
    assert set(latest([done, other])) == {done.trial_id, other.trial_id}


def test_missing_is_planned_minus_completed_in_the_order_of_the_plan(tiny_grid, make_record):
    specs = plan(tiny_grid).specs
    assert missing(specs, []) == specs
    rows = [
        make_record(trial_id=specs[0].trial_id, read_outs=[r.read_out_id for r in specs[0].read_outs]),
        make_record(trial_id=specs[1].trial_id, **FAILED),
        make_record(trial_id=specs[2].trial_id, **FAILED | {"status": "diverged"}),
        make_record(trial_id="of another "),
    ]
    assert missing(specs, rows) == (specs[1], *specs[3:])  # what has diverged diverges again
    assert missing(specs, rows, {rows[1].attempt}) == (specs[1], *specs[3:])
    assert missing(specs, rows, {rows[2].attempt}) == specs[1:]


def test_a_backlog_counts_what_is_done(tiny_grid, tmp_path, make_record):
    made = plan(tiny_grid)
    assert backlog(made, tmp_path / "none").n_done == 0
    for spec in made.specs[:3]:
        append(tmp_path, make_record(trial_id=spec.trial_id, read_outs=[r.read_out_id for r in spec.read_outs]))
    left = backlog(made, tmp_path)
    assert left.n_done == 3
    assert {s.trial_id for s in left.todo} == {s.trial_id for s in made.specs[3:]}


def test_sweep_folders_are_one_or_all_of_a_folder(tmp_path, make_record):
    append(tmp_path / "results" / "b", make_record())
    append(tmp_path / "results" / "a", make_record())
    (tmp_path / "results" / "notes").mkdir()
    assert [p.name for p in results.sweep_folders(tmp_path / "results")] == ["a", "b"]
    assert [p.name for p in results.sweep_folders(tmp_path / "results" / "b")] == ["b"]
    with pytest.raises(EcgscaleError, match=r"notes: no results here.*rows/\*\.parquet"):
        results.sweep_folders(tmp_path / "results" / "notes")


# --- tables --------------------------------------------------------------------------------------------------------


def test_the_table_has_one_line_per_trial_and_nulls_where_a_trial_failed(make_record):
    rows = [
        make_record(**FAILED, started_at=at(1)),
        make_record(started_at=at(2)),
        make_record(trial_id="ba9876543210", **FAILED),
    ]
    frame = table(rows).set_index("trial_id")
    assert list(frame["status"]) == ["completed", "failed"]
    assert frame["id_loss"].isna().tolist() == [False, True]
    assert "transfer" not in frame


def test_the_transfer_table_has_one_line_per_task_with_the_trials_size(make_record):
    frame = transfer_table([make_record(), make_record(trial_id="ba9876543210", **FAILED)])
    assert list(frame["task"]) == ["male", "age"]
    assert set(frame["n_params"]) == {19_987} and set(frame["population"]) == {"B"}
    assert frame["auroc"].isna().tolist() == [False, True]


def test_tables_of_nothing_have_their_columns():
    assert "id_loss" in table([]) and "loss" in transfer_table([])
