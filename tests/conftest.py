"""What many tests need: a tiny data directory, a tiny sweep over it, and rows that look like a trial's."""

import datetime
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecgscale.data.embedded import write_population
from ecgscale.data.populations import populations
from ecgscale.data.synthetic import POPULATIONS
from ecgscale.plan import Plan, plan
from ecgscale.results import LabelScore, RunRecord, TaskScore, new_attempt
from ecgscale.specs import GridSpec, load_grid


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, then those with many: a file is one process's, and what it begins last, others wait
    for."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    n_tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -n_tests[item.path]))


N_A, N_B = 300, 150

TINY_SWEEP = """\
name: tiny
question: Does it run?

data:
  train_on: A
  transfer_to: [B]
  n_train_records: 200
  split: {seed: 0, validation: 0.15, test: 0.25}

input: {fs_hz: 100, n_samples: 1024, patch_samples: 16}

axes:
  family: [resnet, transformer]
  paradigm: [sl, ssl]
  rung: [20K]
  data_fraction: [1/2, 1]

train:
  budget: {kind: samples_seen, value: 48}
  batch_size: 16
  learning_rate:
    resnet: {base: 3e-3}
    transformer: {base: 2e-3}
  n_evaluations: 3

probe:
  tasks:
    - {name: SB, column: SB}
    - {name: male, column: is_male}
    - {name: over_65, column: age, above: 65}
    - {name: age, column: age, kind: regression}
"""
"""Four arms of the smallest rung, three steps each; SB is seen, the other tasks are not."""


@pytest.fixture(autouse=True)
def _no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own wandb settings are none of the tests' business."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic populations A and B. Read only: tests that change a population copy it first."""
    folder = tmp_path_factory.mktemp("data")
    for name, n_records in (("A", N_A), ("B", N_B)):
        write_population(folder / name, POPULATIONS[name], n_records=n_records, seed=0, jobs=1)
    return folder


@pytest.fixture(scope="session")
def tiny_sweep_text() -> str:
    return TINY_SWEEP


@pytest.fixture(scope="session")
def tiny_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep file."""
    path = tmp_path_factory.mktemp("sweeps") / "tiny.yaml"
    path.write_text(TINY_SWEEP)
    return path


@pytest.fixture(scope="session")
def tiny_grid(tiny_sweep: Path) -> GridSpec:
    return load_grid(tiny_sweep)


@pytest.fixture(scope="session")
def tiny_plan(tiny_grid: GridSpec, data_dir: Path) -> Plan:
    """The plan with its data: the populations are packed, fingerprints and D are real."""
    return plan(tiny_grid, populations(tiny_grid, data_dir))


@pytest.fixture
def grid_from(tmp_path: Path) -> Callable[..., GridSpec]:
    """`grid_from({old: new})`: the tiny sweep with parts of its text replaced, loaded from a file."""

    def load(changes: dict[str, str] | None = None) -> GridSpec:
        text = TINY_SWEEP
        for old, new in (changes or {}).items():
            assert old in text, f"{old!r} is not in the tiny sweep"
            text = text.replace(old, new)
        path = tmp_path / "changed.yaml"
        path.write_text(text)
        return load_grid(path)

    return load


@pytest.fixture(scope="session")
def make_record() -> Callable[..., RunRecord]:
    """`make_record(**fields)`: a row as a completed trial leaves it, with some fields changed."""

    def make(**fields: Any) -> RunRecord:
        task = TaskScore(
            population="B",
            task="male",
            kind="binary",
            seen=False,
            loss=0.61,
            constant_loss=0.69,
            auroc=0.74,
            l2=0.01,
            n_train=100,
            n_test=30,
            n_test_positive=14,
        )
        age = task.model_copy(update={"task": "age", "kind": "regression", "auroc": None, "n_test_positive": None})
        row: dict[str, Any] = {
            "sweep": "tiny",
            "trial_id": "0123456789ab",
            "attempt": new_attempt(),
            "label": "resnet-sl-20K-f1-k6-s0",
            "family": "resnet",
            "paradigm": "sl",
            "rung": "20K",
            "arm": "resnet-sl",
            "data_fraction": 1.0,
            "n_labels": 6,
            "seed": 0,
            "n_params": 19_987,
            "n_params_head": 102,
            "n_records": 215,
            "n_samples_seen": 48,
            "train_flops": 9.5e18,  # more than a 64-bit integer holds
            "status": "completed",
            "loss_unit": "nats",
            "val_loss_best": 0.31,
            "val_loss_last": 0.33,
            "best_step": 2,
            "id_loss": 0.1 + 0.2,  # not the same double as 0.3
            "id_loss_last": 0.35,
            "id_constant_loss": 0.28,
            "id_auroc": (
                LabelScore(label="AF", auroc=0.9, n_test_positive=3),
                LabelScore(label="ST", auroc=None, n_test_positive=0),
            ),
            "transfer": (task, age),
            "wall_s": 1.25,
            "train_s": 0.5,
            "peak_memory_bytes": 3_000_000_000,
            "device": "cpu",
            "threads": 1,
            "git_commit": "0" * 40,
            "git_dirty": False,
            "versions": json.dumps({"torch": "2.13.0"}),
            "data_fingerprint": json.dumps({"A": "be68c3596613"}),
            "spec": "{}",
            "started_at": datetime.datetime(2025, 11, 22, 18, 30, 1, 234567, tzinfo=datetime.UTC),
        }
        return RunRecord.model_validate(row | fields)

    return make
