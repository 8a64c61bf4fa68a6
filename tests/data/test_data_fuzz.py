"""Five hundred damaged folders: each is refused by name, or comes out as if the damage had cost its own records only.

`ECGSCALE_FUZZ_CASES` sets another number. A case is named by its folder and its number; `python test_data_fuzz.py
FOLDER NUMBER` repeats it.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_worker import Worker
from source_folders import FOLDERS

N_CASES = int(os.environ.get("ECGSCALE_FUZZ_CASES", "500"))
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("fuzz"), LIMIT_S)
    yield worker
    worker.stop()


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_damaged_folders_are_refused_or_imported_as_they_are(folder: str, worker: Worker) -> None:
    n = -(-N_CASES // len(FOLDERS))
    outcomes = [worker.run(folder, case) for case in range(n)]
    wrong = {case: outcome for case, outcome in enumerate(outcomes) if outcome.verdict == "wrong"}
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    print(f"\n{folder}: {dict(verdicts)}")
    assert not wrong, "\n".join(f"{folder} {case}: {x.mutation}: {x.wrong}" for case, x in wrong.items())
    assert verdicts["refused"] + verdicts["partly"] > n // 4, "the mutations damage too little to show anything"
    assert verdicts["same"] + verdicts["partly"] + verdicts["silent"] > n // 8, "nothing is ever imported"


if __name__ == "__main__":
    alone = Worker(Path(os.environ.get("TMPDIR", "/tmp")) / f"fuzz-{os.getpid()}", LIMIT_S)
    print(alone.run(sys.argv[1], int(sys.argv[2])))
    alone.stop()
