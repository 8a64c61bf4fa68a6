"""The command line as a user types it: help that teaches, JSON for machines, errors that name the way out."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ecgscale import cli
from ecgscale.results import append, read

runner = CliRunner()

COMMANDS = (
    "data synth",
    "data import",
    "data check",
    "plan",
    "sweep",
    "status",
    "show",
    "retry",
    "fit-laws",
    "report",
    "simulate",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    shown = runner.invoke(cli.app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert f"Example: ecgscale {command}" in " ".join(shown.output.split())


def run_main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["ecgscale", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr()


def test_error_is_one_line_without_traceback(monkeypatch, capsys, tmp_path):
    code, printed = run_main(monkeypatch, capsys, "plan", tmp_path / "nothing.yaml")
    assert code == 2
    assert printed.err.startswith("error: ")
    assert "nothing.yaml" in printed.err
    assert "Traceback" not in printed.err


def test_plan_of_the_paper_grid_says_what_it_costs():
    shown = runner.invoke(cli.app, ["plan", "sweeps/grid_paper.yaml"])
    assert "128 trials" in shown.output
    assert "on 1, " in shown.output
    assert "on 8, " in shown.output
    assert "on 64" in shown.output
    bill = json.loads(runner.invoke(cli.app, ["plan", "sweeps/grid_paper.yaml", "--json"]).output)
    sizes = [trial["n_params"] for trial in bill["trials"]]
    assert len(sizes) == 128
    assert min(sizes) == pytest.approx(20_000, rel=0.06)
    assert max(sizes) == pytest.approx(200e6, rel=0.02)
    assert all(trial["train_flops"] > 0 and trial["memory_bytes"] > 0 for trial in bill["trials"])
    assert set(bill["makespan_s"]["gpu"]) == {"1", "8", "64"}


def test_sweep_without_its_population_names_folder_and_way_out(monkeypatch, capsys, tmp_path, tiny_sweep):
    (tmp_path / "C").mkdir()
    arguments = ("sweep", tiny_sweep, "--data", tmp_path, "--out", tmp_path / "out")
    code, printed = run_main(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "wants population 'A', the data directory holds C" in printed.err
    assert not (tmp_path / "out").exists()


def test_status_counts_and_explains(tmp_path, make_record):
    append(tmp_path / "x", make_record())
    diverged = {"label": "resnet-sl-60K-f1-k6-s0", "status": "diverged", "reason": "loss is nan", "id_loss": None}
    append(tmp_path / "x", make_record(trial_id="other", **diverged))
    shown = runner.invoke(cli.app, ["status", str(tmp_path / "x")])
    assert "1 completed, 1 diverged" in shown.output
    assert "loss is nan" in shown.output
    machine = json.loads(runner.invoke(cli.app, ["status", str(tmp_path / "x"), "--json"]).output)
    assert machine["status"] == {"completed": 1, "diverged": 1}
    assert machine["not_completed"][0]["reason"] == "loss is nan"


def test_retry_marks_and_the_status_says_so(tmp_path, make_record, monkeypatch, capsys):
    append(tmp_path, make_record(status="failed", failure="bug", reason="KeyError: x", id_loss=None))
    shown = runner.invoke(cli.app, ["retry", str(tmp_path), "--class", "infrastructure"])
    assert shown.output == "0 marked\n"
    shown = runner.invoke(cli.app, ["retry", str(tmp_path), "--class", "bug,data", "--label", "resnet-*"])
    assert "resnet-sl-20K-f1-k6-s0 (0123456789ab): bug\n1 marked, the next `ecgscale sweep`" in shown.output
    assert "1 marked to be tried again" in runner.invoke(cli.app, ["status", str(tmp_path)]).output
    code, printed = run_main(monkeypatch, capsys, "retry", tmp_path, "--class", "bugs")
    assert code == 2 and "'bugs' is not a valid FailureClass; failures are of class out_of_memory" in printed.err


def test_show_prints_all_of_a_trial(tmp_path, make_record):
    append(tmp_path, make_record(status="failed", failure="bug", bug="ab" * 6, reason="KeyError: x", id_loss=None))
    spec = {"spec": json.dumps({"rung": "20K", "train": {"batch_size": 16}})}
    facts = {"host": "abcdefabcdef", "git_diff": "f" * 64, "argv": json.dumps(["ecgscale", "sweep"])}
    facts |= {"driver_version": "570.86.15", "cuda_version": "12.8", "config_hash": "fedcba987654"}
    append(tmp_path, make_record(**spec, **facts))
    shown = runner.invoke(cli.app, ["show", "resnet-sl-20K-f1-k6-s0", str(tmp_path)])
    assert shown.exit_code == 0
    for words in ("0.3 nats", "19,987 in the encoder", "215 records", "torch 2.13.0", "570.86.15", "12.8", "f" * 64):
        assert words in shown.output
    for words in ("abcdefabcdef", "fedcba987654", "ecgscale sweep", '{"batch_size": 16}', "male", "0.7400", "bug"):
        assert words in shown.output
    told = json.loads(runner.invoke(cli.app, ["show", "0123", str(tmp_path), "--json"]).output)
    assert told["spec"]["train"] == {"batch_size": 16} and told["argv"] == ["ecgscale", "sweep"]
    assert [attempt["status"] for attempt in told["attempts"]] == ["failed", "completed"]


def test_fit_laws_prints_json_on_request(tmp_path, make_record):
    for d in (100, 200, 400, 800):
        append(tmp_path / "x", make_record(trial_id=f"t{d}", n_records=d, id_loss=0.2 + 3 * d**-0.5, transfer=()))
    shown = runner.invoke(cli.app, ["fit-laws", str(tmp_path), "--bootstrap", "20", "--json", "-"])
    fits = {(fit["kind"], fit["law"]): fit for fit in json.loads(shown.output)["fits"]}
    assert fits["L(D)", "power_floor"]["theta"]["alpha"] == pytest.approx(0.5, rel=1e-4)
    assert fits["L(N, D)", "chinchilla"]["theta"] is None
    assert fits["L(N, D)", "chinchilla"]["refused"]


def test_synth_twice_makes_once(tmp_path):
    arguments = ["data", "synth", "--out", str(tmp_path / "d"), "--n-a", "5", "--n-b", "3", "--jobs", "1"]
    assert "5 records\n" in runner.invoke(cli.app, arguments).output
    assert "5 records, already there" in runner.invoke(cli.app, arguments).output


def test_check_has_an_exit_status(tmp_path, data_dir):
    good = runner.invoke(cli.app, ["data", "check", str(data_dir / "A"), "--json"])
    assert good.exit_code == 0
    # read as if stored in millivolts, the CODE factor of two stands out
    doubled = runner.invoke(cli.app, ["data", "check", str(data_dir / "A"), "--mv-per-unit", "5"])
    assert doubled.exit_code == 1


def test_the_documented_truth_is_drawn_into_a_results_folder_once(tmp_path):
    documented = Path("docs/fitting.md").read_text(encoding="utf-8").split("```yaml\n")[-1].split("```")[0]
    truth, out = tmp_path / "truth.yaml", tmp_path / "out"
    truth.write_text(documented, encoding="utf-8")
    command = ["simulate", "sweeps/grid_paper.yaml", "--truth", str(truth), "--out", str(out), "--json"]
    assert json.loads(runner.invoke(cli.app, command).output)["n_rows"] == 128
    assert {row.device for row in read(out)} == {"simulated"}
    again = runner.invoke(cli.app, command)
    assert again.exit_code != 0 and "holds results already" in str(again.exception)
