"""Runs mutations of `mutations` in a process of its own, which may hang or crash without taking the tests with it."""

import multiprocessing
import resource
import shutil
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from code_folders import QUARTER
from mutations import Mutation, mutate
from source_folders import FOLDERS, Written

from ecgscale.data.code_format import bad_records, open_code
from ecgscale.data.importing import ImportSummary, import_source
from ecgscale.data.packing import packed
from ecgscale.data.quality import check, check_path
from ecgscale.errors import DataError

MEMORY_BYTES = 6 << 30
"""Address space of a worker beyond what it starts with: who believes an absurd size gets a MemoryError."""

Records = dict[int, tuple[bytes, tuple[str, ...]]]
"""By exam_id, the signal as it is stored and the row of the table."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended: "refused" (the whole folder), "partly" (records refused), "same", "silent" (a record differs
    and nobody could know), or "wrong", with what is wrong."""

    verdict: str
    mutation: str = ""
    said: str = ""
    wrong: str = ""


class Worker:
    """A process that runs cases one by one; a new one after a hang or a crash.

    Args:
        folder: Where cases may write.
        limit_s: Longest time of a case.
    """

    def __init__(self, folder: Path, limit_s: float) -> None:
        self._folder, self._limit_s = folder, limit_s
        self._process: Any = None
        self._pipe: Connection | None = None

    def run(self, name: str, case: int) -> Outcome:
        if self._process is None:
            spawn = multiprocessing.get_context("spawn")
            self._pipe, theirs = spawn.Pipe()
            self._process = spawn.Process(target=_serve, args=(theirs, self._folder), daemon=True)
            self._process.start()
            theirs.close()
            assert self._pipe.poll(120) and self._pipe.recv() == "ready"
        assert self._pipe is not None
        self._pipe.send((name, case))
        try:
            if self._pipe.poll(self._limit_s):
                outcome: Outcome = self._pipe.recv()
                return outcome
            wrong = f"still running after {self._limit_s:g} s"
        except EOFError:
            self._process.join(10)
            wrong = f"the process died, exit code {self._process.exitcode}"
        self.stop()
        return Outcome("wrong", wrong=wrong)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None


def _serve(pipe: Connection, folder: Path) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    pipe.send("ready")
    originals: dict[str, tuple[Written, Records]] = {}
    while True:
        try:
            name, case = pipe.recv()
        except EOFError:
            return
        if name not in originals:
            originals[name] = _original(folder / f"{name}-original", name)
        pipe.send(run_case(folder, name, case, *originals[name]))


def _original(folder: Path, name: str) -> tuple[Written, Records]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = FOLDERS[name](folder / "in")
    import_source(folder / "in", folder / "out", kind=written.kind, options=written.options, jobs=1)
    return written, _records(folder / "out")


def run_case(folder: Path, name: str, case: int, written: Written, original: Records) -> Outcome:
    """Mutates a copy and judges what becomes of it."""
    here = folder / f"{name}-{case}"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    shutil.copytree(folder / f"{name}-original" / "in", here / "in")
    mutation = mutate(here / "in", written, np.random.default_rng([list(FOLDERS).index(name), case]))
    described = f"{mutation.file}: {mutation.what}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outcome = _outcome(here, written, original, mutation)
    except Exception:
        outcome = Outcome("wrong", wrong=traceback.format_exc())
    shutil.rmtree(here)
    return Outcome(outcome.verdict, described, outcome.said, outcome.wrong)


def _outcome(here: Path, written: Written, original: Records, mutation: Mutation) -> Outcome:
    source, out = here / "in", here / "out"
    try:
        summary = import_source(source, out, kind=written.kind, options=written.options, jobs=1)
    except DataError as error:
        if sorted(path.name for path in here.iterdir()) != ["in"]:
            return Outcome("wrong", wrong=f"left behind {sorted(here.iterdir())}")
        outcome = _refusal(str(error), source, written, mutation)
    else:
        outcome = _import(summary, out, written, original, mutation)
    if outcome.verdict != "wrong":
        _look_elsewhere(source, out, written)
    return outcome


def _refusal(said: str, source: Path, written: Written, mutation: Mutation) -> Outcome:
    known = {path.name for path in source.rglob("*")} | {mutation.file, source.name, *written.names}
    wrong = ""
    if not any(name in said for name in known) or "\n" in said or len(said) > 1000:
        wrong = f"the message names no file and no record, or is too long: {said}"
    if len(mutation.may_refuse) < len(written.ids):
        wrong = f"all was refused though only {sorted(mutation.may_refuse)} are damaged: {said}"
    return Outcome("wrong" if wrong else "refused", said=said, wrong=wrong)


def _import(summary: ImportSummary, out: Path, written: Written, original: Records, mutation: Mutation) -> Outcome:
    found = _records(out)
    differ = {exam_id for exam_id in found if found[exam_id] != original.get(exam_id)}
    lost = original.keys() - found.keys()
    of = dict(zip(written.ids, range(len(written.ids)), strict=True))
    signals = {signal for signal, _ in original.values()}
    said = "; ".join(f"{x.record}: {x.reason}" for x in summary.refused)
    wrong = []
    for exam_id in sorted(differ):
        signal = found[exam_id][0]
        if exam_id not in of:
            if not mutation.may_mislead:
                wrong.append(f"exam {exam_id} does not exist")
        elif of[exam_id] not in mutation.concerned or mutation.detectable:
            wrong.append(f"exam {exam_id} differs")
        elif mutation.file.endswith(".csv"):  # a table never changes a signal
            mistaken = signal not in signals if written.by_line else signal != original[exam_id][0]
            if mistaken:
                wrong.append(f"the signal of exam {exam_id} is not that of its file")
    if strangers := [written.ids.index(x) for x in lost if of[x] not in mutation.may_refuse]:
        wrong.append(f"records {strangers} are lost though they are not damaged")
    reasons = " ".join(f"{x.record} {x.reason}" for x in summary.refused)
    unsaid = [x for x in lost if str(x) not in reasons and written.names[of[x]] not in reasons]
    removed = mutation.what in ("removed", "a folder of that name") and mutation.file.endswith((".hea", ".mat", ".npy"))
    if unsaid and not mutation.file.endswith(".csv") and not removed and not mutation.may_mislead:
        wrong.append(f"nothing is said of {unsaid}: {said}")
    if len(found) != summary.n_records:
        wrong.append(f"{len(found)} records, but {summary.n_records} are said to be imported")
    if wrong:
        return Outcome("wrong", said=said, wrong="; ".join(wrong))
    return Outcome("silent" if differ else "partly" if lost or summary.refused else "same", said=said)


def _look_elsewhere(source: Path, out: Path, written: Written) -> None:
    """Nothing but DataErrors from the other ways to look at the damaged folder, and none from the imported one."""
    if out.exists():
        check(open_code(out))
    try:
        report, _ = check_path(source, kind=written.kind, layout=written.options.layout)
        report.facts(), report.to_dict()
    except DataError:
        pass
    try:
        packed(source, QUARTER, source=open_code(source), skip_bad=True, jobs=1)
    except DataError:
        pass


def _records(folder: Path) -> Records:
    code = open_code(folder)
    signals = code.read(range(len(code.exams)))
    assert not any(bad_records(signals)), "a record that is no ECG was imported"
    exams = code.exams.drop(columns=["trace_file", "trace_row"])
    rows = [tuple(f"{name}={_plain(x)}" for name, x in row.items()) for row in exams.to_dict("records")]
    return {int(x): (signal.tobytes(), row) for x, signal, row in zip(exams["exam_id"], signals, rows, strict=True)}


def _plain(value: object) -> str:
    """The same whether a neighbour made a column of numbers one of texts or not."""
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return ""
    try:
        return str(value) if isinstance(value, bool | np.bool_) else f"{float(value):.12g}"  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
