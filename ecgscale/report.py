"""The findings of a results folder as files: laws as CSV and JSON, figures as PDF."""

from __future__ import annotations

import json
from pathlib import Path

from ecgscale import results
from ecgscale.sweep_laws import studies


def write_report(folder: Path) -> list[Path]:
    """Writes `laws.csv`, `laws.json`, `runs.csv`, `transfer.csv` and the figures; returns the files.

    Raises:
        EcgscaleError: no results, or no completed trial among them.
    """
    from ecgscale.figures import write_figures

    written: list[Path] = []
    for study in studies(folder):
        assert study.folder is not None
        report = study.folder / "report"
        report.mkdir(exist_ok=True)
        records = results.read(study.folder)
        for name, table in (
            ("laws.csv", study.law_table()),
            ("runs.csv", results.table(records)),
            ("transfer.csv", results.transfer_table(records)),
        ):
            table.to_csv(report / name, index=False)
            written.append(report / name)
        (report / "laws.json").write_text(json.dumps(study.to_dict(), indent=1))
        written.append(report / "laws.json")
        written.extend(write_figures(study, report))
    return written
