"""The embedded data set on disk: simulated populations in CODE format, made once and recognised when they are there."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgscale.data.code_format import CodeWriter
from ecgscale.data.synthetic import Population, synthesize_block
from ecgscale.data.worker_process import n_cores
from ecgscale.errors import DataError

GENERATOR_VERSION = 2
"""Raise it when the generator's bytes change: folders of another version are made again."""

BLOCKS_IN_FLIGHT_PER_JOB = 3
"""Bounds memory: one block of about 96 records is 19 MB."""

Block = tuple[pd.DataFrame, npt.NDArray[np.float32]]


def write_population(
    folder: Path,
    population: Population,
    *,
    n_records: int,
    seed: int,
    jobs: int = 0,
    progress: Callable[[int], None] | None = None,
) -> bool:
    """Writes a population as a CODE folder; returns False when the folder holds these very records already.

    Args:
        jobs: drawing processes, 0 for one per core; the bytes do not depend on it.

    Raises:
        DataError: the folder holds something that was not made here.
    """
    wanted = {"source": "ecgscale synthetic", "population": population.name, "n_records": n_records, "seed": seed}
    wanted["generator_version"] = GENERATOR_VERSION
    if folder.exists():
        found = _provenance(folder)
        if found.get("source") != wanted["source"]:
            raise DataError(f"{folder}: exists and is not a synthetic population; choose another --out")
        if all(found.get(key) == value for key, value in wanted.items()):
            return False
    with CodeWriter(folder, overwrite=True, provenance=wanted) as writer:
        n_left = n_records
        for exams, signal_mv in _blocks(population, n_records, seed, jobs or n_cores()):
            n_take = min(len(exams), n_left)
            writer.append(exams.iloc[:n_take], signal_mv[:n_take])
            n_left -= n_take
            if progress is not None:
                progress(n_take)
    return True


def _blocks(population: Population, n_records: int, seed: int, jobs: int) -> Iterator[Block]:
    """Blocks in order until they hold `n_records`, drawn ahead in `jobs` processes."""
    # spawned, not forked: the caller may hold threads
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        numbers = itertools.count()
        drawing = deque(
            pool.submit(synthesize_block, population, number, seed)
            for number in itertools.islice(numbers, BLOCKS_IN_FLIGHT_PER_JOB * jobs)
        )
        n_drawn = 0
        while n_drawn < n_records:
            block = drawing.popleft().result()
            drawing.append(pool.submit(synthesize_block, population, next(numbers), seed))
            n_drawn += len(block[0])
            yield block
        for unneeded in drawing:
            unneeded.cancel()


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
        return found
    except (OSError, json.JSONDecodeError):
        return {}
