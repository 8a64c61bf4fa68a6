"""A Slurm array script in which each task is a worker on the same results folder.

Nothing in the script depends on which task it is: tasks may start late, be taken away, or never start, and the others
do their work. The text is made here; Slurm itself is never asked.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from ecgscale.errors import EcgscaleError

NOTICE_S = 120
"""Before the time limit Slurm says so, and the trial keeps its checkpoint. Our choice."""

_TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}")
"""The forms of sbatch(1): minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
_MEMORY = re.compile(r"\d+[KMGT]?")
_NAME = re.compile(r"[\w.,:@%+/=-]+")


@dataclass(frozen=True)
class Array:
    """What every task of the array asks for.

    Attributes:
        tasks: workers at once; more than there are trials are no use.
        gpus: per task; 0 for none.
        processes: workers inside one task; by default one per GPU.
        time: limit of one task, in Slurm's forms.
        mem: per task, for example 16G.
    """

    tasks: int = 4
    gpus: int = 1
    cpus: int = 4
    time: str = "24:00:00"
    mem: str = "16G"
    processes: int | None = None
    threads: int = 1
    partition: str | None = None
    account: str | None = None


def script(sweep_file: Path, data: Path, out: Path, name: str, array: Array) -> str:
    """The text to give to `sbatch`; paths stay as they are given, relative to where it is submitted.

    Raises:
        EcgscaleError: a value is none that Slurm understands.
    """
    _require(_TIME, "--time", array.time, "24:00:00, 90 (minutes) or 2-12 (days-hours)")
    _require(_MEMORY, "--mem", array.mem, "16G")
    asked = [f"array=0-{array.tasks - 1}", "ntasks=1", f"cpus-per-task={array.cpus}", f"mem={array.mem}"]
    asked += [f"time={array.time}", f"gpus-per-node={array.gpus}"] if array.gpus else [f"time={array.time}"]
    for option, value in (("partition", array.partition), ("account", array.account)):
        if value is not None:
            _require(_NAME, f"--{option}", value, "a name without spaces")
            asked.append(f"{option}={value}")
    processes = array.processes or max(array.gpus, 1)
    command = ["ecgscale", "work", str(sweep_file), "--data", str(data), "--out", str(out)]
    command += ["--processes", str(processes), "--threads", str(array.threads)]
    packing = shlex.join(["ecgscale", "plan", str(sweep_file), "--data", str(data)])
    return _SCRIPT.format(
        name=re.sub(r"[^\w.-]", "-", name),
        asked="\n".join(f"#SBATCH --{option}" for option in asked),
        notice=NOTICE_S,
        packing=packing.replace("\n", " "),
        threads=array.threads,
        command=shlex.join(command),
    )


def _require(form: re.Pattern[str], option: str, value: str, example: str) -> None:
    if not form.fullmatch(value):
        raise EcgscaleError(f"{option} {value!r}: give for example {example}")


_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=ecgscale-{name}
{asked}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%A_%a.out
# So many seconds before the time limit, this shell (B:) gets USR1, and passes it on:
#SBATCH --signal=B:USR1@{notice}
#
# Every task is one worker on the same results folder: they agree there on who runs what. Tasks may be added by
# submitting the script again, cancelled, or preempted at any time; unfinished trials go on from their checkpoints.
# Have the data packed once, before the first submission:
#   {packing}
# Put what makes `ecgscale` available (modules, a virtual environment) below this line.

set -u
export OMP_NUM_THREADS={threads}

asked_to_stop=
worker=
stop() {{
    asked_to_stop=1
    if [ -n "$worker" ]; then kill -TERM "$worker" 2>/dev/null; fi
}}
trap stop USR1 TERM

{command} &
worker=$!
# a signal ends `wait` early: wait until the worker has gone
while true; do
    wait "$worker"
    code=$?
    kill -0 "$worker" 2>/dev/null || break
done
if [ -n "$asked_to_stop" ] && [ "$code" -ne 0 ]; then
    echo "asked to stop with trials left: queued again"
    scontrol requeue "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""
