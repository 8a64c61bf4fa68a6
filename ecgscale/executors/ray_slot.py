"""What runs on the nodes of a Ray cluster: a slot, the actor that trains one trial or group after the other."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ecgscale.data.packing import packed
from ecgscale.data.store import HEADER, store_name
from ecgscale.errors import DataError
from ecgscale.execution import Execution
from ecgscale.executors import Ended, shipping
from ecgscale.failures import FailureClass
from ecgscale.preemption import StopRequest
from ecgscale.side_by_side import Group
from ecgscale.specs import TrialSpec


@dataclass(frozen=True)
class Answer:
    """How trials ended, and whether their process should go on."""

    ends: tuple[Ended, ...]
    anonymous_bytes: int
    """Memory of the process that is its own; pages of packed records, which the kernel may drop, not counted."""
    asked_to_stop: bool
    files: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    """Trial id → what it has published, if that is to be shipped; see `shipping`."""


class Slot:
    """The actor."""

    def __init__(self) -> None:
        import ecgscale.executors.inprocess  # noqa: F401  brings torch along: before the first trial, not in it

    def pid(self) -> int:
        """The first that it is asked, and answers once it can take trials."""
        return os.getpid()

    def run(self, group: Group, execution: Execution, files: Mapping[str, bytes] | None) -> Answer:
        """Runs trials side by side, mostly a single one, as far as they are not done.

        Args:
            files: what they have published, for nodes that don't see the results folder; None if this one does.
        """
        from ecgscale.executors.inprocess import ends

        asked = StopRequest()
        if files is not None:
            execution = replace(execution, results=_folder_of_this_node(execution.results))
            for spec in group:
                for _ in shipping.taken(execution.results, spec.trial_id):
                    continue  # left by a driver that was killed, and its results folder may be another by now
            shipping.put(execution.results, files)
        try:
            for spec in group:
                _pack_if_missing(spec, execution.data)
        except DataError as error:
            reason = str(error).replace(f"{execution.data}/", "")
            failed = [Ended(s.trial_id, s.label, "failed", 0.0, None, reason, FailureClass.DATA) for s in group]
            return Answer(tuple(failed), 0, False)
        ended = tuple(ends(group, execution, asked=asked))
        published = {}
        if files is not None:
            published = {s.trial_id: dict(shipping.taken(execution.results, s.trial_id)) for s in group}
        return Answer(ended, _anonymous_bytes(), asked.reason is not None, published)


def ask_to_stop(pids: Iterable[int]) -> None:
    """Run on the node of these processes: their trials write checkpoints and end."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def gpu_memory_gib() -> float | None:
    """Run on a node with GPUs: the memory of the smallest; None where NVIDIA's tool is missing."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return min((int(mib) / 1024 for mib in re.findall(r"^\d+$", told, re.MULTILINE)), default=None)


def _anonymous_bytes() -> int:
    with suppress(OSError):
        found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    return 0


# --- nodes that share no folder ------------------------------------------------------------------------------------


def _folder_of_this_node(folder: Path) -> Path:
    """Where trials of one results folder keep checkpoints on this node, and what they publish until it is shipped."""
    return _temporary(f"results-{folder}")


def _pack_if_missing(spec: TrialSpec, data: Path) -> None:
    """Packs the records of this node, if they were never packed here: the first that comes does it.

    Raises:
        DataError: they can't be packed.
    """
    for name in (spec.train_on, *spec.transfer_to):
        population = data / name
        store = population / "packed" / store_name(spec.input)
        if population.is_dir() and not (store / HEADER).exists():
            with _one_at_a_time(str(store)):
                # the driver has packed the same records, and refused them then if bad ones were not to be left out
                packed(population, spec.input, skip_bad=True)


@contextmanager
def _one_at_a_time(what: str) -> Iterator[None]:
    """Of the processes of this node."""
    with (_temporary("locks") / hashlib.sha256(what.encode()).hexdigest()[:12]).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _temporary(name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"ecgscale-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
