"""How far a sweep is, as its folder tells: states, costs, time left, and what the terminal shows of it."""

import datetime
import json
import os
import threading

import pytest
from rich.console import Console

from ecgscale import status
from ecgscale.console_status import status_json, view, watch_status
from ecgscale.errors import EcgscaleError
from ecgscale.plan import plan
from ecgscale.records import TransferRecord
from ecgscale.results import append, ask_retries, attempts_at, read
from ecgscale.specs import load_grid
from ecgscale.status import State, Watched
from ecgscale.transfer_files import publish_read_out

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture
def folder(tmp_path, tiny_sweep):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "sweep.yaml").write_text(tiny_sweep.read_text())
    return tmp_path / "tiny"


@pytest.fixture
def cells(tiny_sweep):
    return plan(load_grid(tiny_sweep)).trials


@pytest.fixture
def add(folder, make_record):
    """`add(cell, minute, **fields)`: a row of that cell, which took a minute."""

    def row(cell, minute=0, **fields):
        spec, started = cell.spec, NOW - datetime.timedelta(minutes=60 - minute)
        ended = started + datetime.timedelta(seconds=60)
        known = {name: getattr(spec, name) for name in ("label", "arm", "rung", "data_fraction", "trial_id", "seed")}
        known |= {"read_outs": [read_out.read_out_id for read_out in spec.read_outs]}
        known |= {"wall_s": 60.0, "started_at": started, "ended_at": ended, "spec": spec.model_dump_json()}
        record = make_record(**known | fields)
        append(folder, record)
        return record

    return row


def lease(folder, label, age_s=0.0, running_s=5.0):
    path = folder / "leases" / f"{label}.1.json"
    path.parent.mkdir(exist_ok=True)
    started = NOW - datetime.timedelta(seconds=running_s)
    path.write_text(json.dumps({"label": label, "started_at": started.isoformat(), "beat": 7}))
    os.utime(path, (NOW.timestamp() - age_s,) * 2)


def failed(failure, **fields):
    status = failure if failure in ("out_of_memory", "diverged") else "failed"
    row = {"status": status, "failure": failure, "reason": f"{failure} it is"}
    return row | {"id_loss": None} | fields


def shown(progress, width=200) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))
    console.print(view(progress))
    console.file.close()
    return console.export_text()


# --- states --------------------------------------------------------------------------------------------------------


def test_a_folder_without_rows_has_everything_to_do(folder, cells):
    found = Watched(folder).progress(NOW)
    assert found.counts == {State.TO_DO: len(cells)} and not found.finished
    assert found.eta_s is None and found.spent_s == {}
    assert f"{len(cells)} to do" in shown(found)


def test_every_trial_has_a_state(folder, cells, add):
    add(cells[0])
    add(cells[1], **failed("bug", bug="0123456789ab"))
    add(cells[2], **failed("diverged"))
    lease(folder, cells[1].spec.label)  # it is being tried again
    lease(folder, cells[3].spec.label)
    lease(folder, cells[4].spec.label, age_s=1e4)  # its worker is gone
    lease(folder, cells[0].spec.label)  # published, not given back yet
    (folder / "leases" / "half.1.json").write_text('{"label": "x')
    states = [trial.state for trial in Watched(folder).progress(NOW).trials]
    assert states[:5] == [State.DONE, State.RUNNING, State.FAILED, State.RUNNING, State.TO_DO]


def test_what_is_trained_and_not_read_out_yet_is_told(folder, cells, add):
    """Known without the data; what failed is explained like a failed trial."""
    add(cells[0])
    add(cells[1], read_outs=())
    record = add(cells[2], read_outs=())
    watched = Watched(folder)
    assert [trial.label for trial in watched.progress(NOW).to_read_out] == [c.spec.label for c in cells[1:3]]
    (read_out,) = cells[2].spec.read_outs
    failed = TransferRecord(
        trial_id=record.trial_id,
        population="B",
        read_out=read_out.read_out_id,
        sweep="tiny",
        label=record.label,
        **{"status": "failed", "reason": "column 'x' is gone", "failure": "data"},
        **{"wall_s": 1.0, "device": "cpu", "threads": 1, "versions": "{}", "spec": read_out.model_dump_json()},
        **{"computed_at": NOW, "published_at": NOW},
    )
    assert publish_read_out(folder, failed)
    found = watched.progress(NOW)
    assert found.counts[State.DONE] == 3 and not found.finished
    text = " ".join(shown(found).split())
    assert "3 completed" in text and "2 to be read out" in text
    assert "1 trained, but not read out: data" in text and "on B: column 'x' is gone" in text
    assert "ecgscale data check" in text
    told = json.loads(json.dumps(status_json(found)))
    assert told["missing"] == len(cells) - 1 and told["to_read_out"] == 2
    assert [(r["label"], r["failure"]) for r in told["not_read_out"]] == [(record.label, "data")]


def test_a_failure_that_was_mended_is_done(folder, cells, add):
    add(cells[0], 1, **failed("infrastructure"))
    add(cells[0], 5)
    found = Watched(folder).progress(NOW)
    assert found.trials[0].state is State.DONE and found.n_attempts == 2
    assert found.spent_s == {"cpu": 120.0}  # the failed attempt has cost, too


def test_without_a_sweep_file_rows_are_all_there_is(folder, cells, add):
    add(cells[0])
    (folder / "sweep.yaml").unlink()
    found = Watched(folder).progress(NOW)
    assert len(found.trials) == 1 and found.finished and status_json(found)["missing"] is None


def test_rows_of_cells_that_are_no_longer_in_the_sweep_are_shown(folder, cells, add):
    add(cells[0], label="of-former-days")
    found = Watched(folder).progress(NOW)
    assert [t.label for t in found.trials if t.state is State.DONE] == ["of-former-days"]
    assert found.counts[State.TO_DO] == len(cells)


def test_a_folder_that_is_watched_sees_new_rows_and_reads_each_once(folder, cells, add, monkeypatch):
    reads = []
    read_row = status.results.read_row
    monkeypatch.setattr(status.results, "read_row", lambda path: reads.append(path) or read_row(path))
    watched = Watched(folder)
    for n in range(4):
        add(cells[n], n)
        assert watched.progress(NOW).counts[State.DONE] == n + 1
    assert len(reads) == len(set(reads)) == 4


# --- time and cost -------------------------------------------------------------------------------------------------


def test_time_left_follows_what_trials_have_really_taken(folder, cells, add):
    slow = 3.0
    for n, cell in enumerate(cells[:4]):
        add(cell, 5 * n, wall_s=slow * cell.cpu_s)
    found = Watched(folder).progress(NOW)
    assert found.eta_s == pytest.approx(slow * sum(c.cpu_s for c in cells[4:])) and found.at_once == 1
    for cell in cells[4:6]:
        lease(folder, cell.spec.label, running_s=2.0)
    two = Watched(folder).progress(NOW)
    assert two.at_once == 2
    assert found.eta_s / 2 - 5 < two.eta_s < found.eta_s / 2 + 5


def test_trials_that_overlapped_ran_at_once(folder, cells, add):
    for cell, minute in zip(cells, (0, 0.5, 0.9, 5), strict=False):
        add(cell, minute)
    assert Watched(folder).progress(NOW).at_once == 3


def test_trials_one_after_the_other_did_not_run_at_once(folder, cells, add):
    for cell, minute in zip(cells, (0, 1, 2), strict=False):
        add(cell, minute)
    assert Watched(folder).progress(NOW).at_once == 1


def test_cost_is_told_by_device_and_counts_cores(folder, cells, add):
    add(cells[0], threads=4)
    add(cells[1], device="NVIDIA H100")
    assert Watched(folder).progress(NOW).spent_s == {"cpu": 240.0, "NVIDIA H100": 60.0}


# --- what is shown -------------------------------------------------------------------------------------------------


def test_cells_fill_up_with_losses_and_states(folder, cells, add):
    by_label = {cell.spec.label: cell for cell in cells}
    add(by_label["resnet-ssl-20K-f1-s0"], id_loss=0.123456, loss_unit="mse")
    add(by_label["resnet-ssl-20K-f0.5-s0"], **failed("out_of_memory"))
    lease(folder, "transformer-ssl-20K-f1-s0")
    text = shown(Watched(folder).progress(NOW))
    assert "resnet-ssl  1/2 · mse" in text and "0.1235" in text and "memory" in text
    assert "running: transformer-ssl-20K-f1-s0" in text
    assert "1/2" in text and "20K" in text


def test_every_class_is_explained_with_what_to_do(folder, cells, add):
    for cell, failure in zip(cells, ("out_of_memory", "diverged", "data", "infrastructure", "bug"), strict=False):
        add(cell, **failed(failure, bug="0123456789ab" if failure == "bug" else None))
    text = " ".join(shown(Watched(folder).progress(NOW)).split())
    for words in ("a larger device", "learning_rate", "ecgscale data check", "make room", "[0123456789ab]"):
        assert words in text
    for failure in ("out_of_memory", "diverged", "data", "infrastructure", "bug"):
        assert f"1 {failure}" in text and f"{failure} it is" in text


def test_many_failures_of_a_class_are_not_all_listed(folder, cells, add):
    for cell in cells[:8]:
        add(cell, **failed("bug"))
    text = shown(Watched(folder).progress(NOW))
    assert "8 bug" in text and "and 3 more" in text and text.count("bug it is") == 5


def test_json_holds_every_cell(folder, cells, add):
    add(cells[0], id_loss=0.25)
    add(cells[1], **failed("diverged"))
    lease(folder, cells[2].spec.label)
    told = json.loads(json.dumps(status_json(Watched(folder).progress(NOW))))
    assert told["counts"] == {"done": 1, "running": 1, "failed": 1, "to do": len(cells) - 3}
    assert told["failures"] == {"diverged": 1} and told["missing"] == len(cells) - 1
    by_label = {trial["label"]: trial for trial in told["trials"]}
    assert by_label[cells[0].spec.label]["loss"] == 0.25
    assert by_label[cells[2].spec.label]["running_s"] == pytest.approx(5)


def test_watching_ends_when_nothing_is_left(folder, cells, add, capsys):
    for cell in cells[:-1]:
        add(cell)
    late = threading.Timer(0.3, add, [cells[-1]])
    late.start()
    watch_status([Watched(folder)], 0.05, as_json=True)
    late.join()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["counts"]["to do"] == 1 and lines[-1]["counts"]["to do"] == 0


# --- one trial, and asking for another try -------------------------------------------------------------------------


def test_a_trial_is_found_by_label_id_or_its_beginning(folder, cells, add):
    first, counts = add(cells[0], 9, **failed("bug")), add(cells[0], 1)
    add(cells[1])
    for name in (cells[0].spec.label, first.trial_id, first.trial_id[:6]):
        assert attempts_at(read(folder), name) == [first, counts]
    with pytest.raises(EcgscaleError, match=r"'nothing': no row.*there are"):
        attempts_at(read(folder), "nothing")


def test_a_label_of_two_trials_asks_for_the_id(folder, cells, add):
    add(cells[0])
    add(cells[0], trial_id="ba9876543210")
    with pytest.raises(EcgscaleError, match=r"several trials.*ba9876543210"):
        attempts_at(read(folder), cells[0].spec.label)


def test_retries_are_asked_by_class_and_label(folder, cells, add):
    add(cells[0], 1, **failed("bug"))
    add(cells[0], 5)  # mended
    for cell, failure in zip(cells[1:], ("bug", "diverged", "data", "infrastructure"), strict=False):
        add(cell, **failed(failure))
    marked = ask_retries(folder, read(folder), {"bug", "diverged"})
    assert {r.label for r in marked} == {cells[1].spec.label, cells[2].spec.label}
    assert ask_retries(folder, read(folder), {"data"}, label="no-such-*") == []
    assert ask_retries(folder, read(folder), {"data"}, label=cells[3].spec.label[:8] + "*") != []
    found = Watched(folder).progress(NOW)
    assert found.retries == 3
    assert "3 marked to be tried again" in shown(found)
