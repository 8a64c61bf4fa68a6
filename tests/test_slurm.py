"""The array script: what bash and a pretended Slurm make of it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ecgscale.errors import EcgscaleError
from ecgscale.slurm import Array, script

SWEEP, DATA, OUT = Path("sweeps/tiny.yaml"), Path("my data/$HOME"), Path("results/tiny")

WORKER = """\
#!/bin/bash
echo "$@" >> worker.log
{body}
"""
REQUEUE = """\
#!/bin/bash
echo "$@" >> scontrol.log
"""


def tool(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def run_as_task(folder: Path, body: str) -> subprocess.Popen:
    tool(folder, "ecgscale", WORKER.format(body=body))
    tool(folder, "scontrol", REQUEUE)
    (folder / "sweep.sbatch").write_text(script(SWEEP, DATA, OUT, "tiny", Array(gpus=2)))
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    environment |= {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}
    return subprocess.Popen(["bash", "sweep.sbatch"], cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("array", [Array(), Array(1, 0, 1, "2-12", "500M", 3, 2, "gpu", "lab-1")])
def test_bash_can_read_it(tmp_path, array):
    file = tmp_path / "sweep.sbatch"
    file.write_text(script(SWEEP, DATA, OUT, "a name; with $(tricks)", array))
    subprocess.run(["bash", "-n", str(file)], check=True)


def test_it_asks_for_what_was_wanted():
    lines = script(SWEEP, DATA, OUT, "tiny", Array(8, 2, 6, "04:00:00", "32G", partition="gpu")).splitlines()
    assert lines[0] == "#!/bin/bash"
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH ")}
    assert {"array=0-7", "gpus-per-node=2", "cpus-per-task=6", "time=04:00:00", "mem=32G", "partition=gpu"} <= asked
    assert {"requeue", "signal=B:USR1@120"} <= asked
    assert not any("gpus" in line for line in script(SWEEP, DATA, OUT, "tiny", Array(gpus=0)).splitlines()[:12])


@pytest.mark.parametrize(
    ("field", "value"), [("time", "a day"), ("mem", "16 gigabytes"), ("partition", "gpu\nrm -r"), ("account", "a b")]
)
def test_what_slurm_would_not_understand_is_refused(field, value):
    with pytest.raises(EcgscaleError, match=f"--{field}"):
        script(SWEEP, DATA, OUT, "tiny", Array(**{field: value}))


def test_a_worker_that_ends_ends_the_task_with_its_status(tmp_path):
    assert run_as_task(tmp_path, "exit 3").wait(20) == 3
    told = (tmp_path / "worker.log").read_text()
    assert told == "work sweeps/tiny.yaml --data my data/$HOME --out results/tiny --processes 2 --threads 1\n"
    assert not (tmp_path / "scontrol.log").exists()


def test_before_its_time_limit_the_task_lets_the_worker_end_and_is_queued_again(tmp_path):
    body = "trap 'sleep 0.3; touch kept; exit 130' TERM; touch started; while true; do sleep 0.05; done"
    task = run_as_task(tmp_path, body)
    wait_for(tmp_path / "started")
    task.send_signal(signal.SIGUSR1)
    assert task.wait(20) == 130
    assert (tmp_path / "kept").exists()
    assert (tmp_path / "scontrol.log").read_text() == "requeue 10_3\n"


def test_a_task_that_finished_in_spite_of_the_signal_is_not_queued_again(tmp_path):
    task = run_as_task(tmp_path, "trap 'exit 0' TERM; touch started; while true; do sleep 0.05; done")
    wait_for(tmp_path / "started")
    task.send_signal(signal.SIGUSR1)
    assert task.wait(20) == 0
    assert not (tmp_path / "scontrol.log").exists()
