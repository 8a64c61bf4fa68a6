"""Random kills: every trial exactly once, the same numbers, nothing half written. `make faults` rages for longer."""

import pytest
from storm import SWEEP, TRIALS_PER_SEED, rage, undisturbed

pytestmark = pytest.mark.slow


def test_drivers_killed_at_random_moments(data_dir, tmp_path):
    """Two at once, each training in its own process."""
    sweep_file = tmp_path / "storm.yaml"
    sweep_file.write_text(SWEEP.format(seeds=[0], n_samples_seen=320))
    expected = undisturbed(sweep_file, data_dir, tmp_path / "undisturbed")
    assert len(expected) == TRIALS_PER_SEED
    outcome = rage(sweep_file, data_dir, tmp_path / "storm", expected, seed=0, kills=10, pause_s=0.7, crew=False)
    print(outcome.table())
    assert outcome.harm == [] and outcome.rows == TRIALS_PER_SEED
