"""A few conclusions and figures of a results folder by themselves: what the scripts in analysis/ are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ecgscale.errors import EcgscaleError
from ecgscale.figures import chapters, write_sheets
from ecgscale.findings import CONCLUSIONS, conclusions
from ecgscale.fitted import Method
from ecgscale.report.verdicts import number
from ecgscale.sweep_laws import DEFAULT, studies


def write_excerpt(
    folder: Path, *, claims: Sequence[str] = (), figures: Sequence[str] = (), method: Method = DEFAULT
) -> list[Path]:
    """Prints conclusions with their findings and writes figures to `results/X/figures/`; returns the files.

    Args:
        claims: Names of conclusions; together they get a figure of their own.
        figures: How the names of the others begin, as the report calls them: `scaling-in`, `loss-to-loss`.

    Raises:
        EcgscaleError: no results, no completed trial among them, or a claim that nobody knows.
    """
    written: list[Path] = []
    for study in studies(folder, method):
        assert study.folder is not None
        every = conclusions(study)
        if unknown := set(claims) - {c.name for c in every}:
            raise EcgscaleError(f"no claim {', '.join(sorted(unknown))}: there are {len(CONCLUSIONS)}, see `findings`")
        found = [c for c in every if c.name in claims]
        for conclusion in found:
            print(f"{conclusion.question} {conclusion.verdict}: {conclusion.summary}")
            print(f"  the paper: {conclusion.published}")
            for f in conclusion.findings:
                if not f.one_task:
                    print(f"  {f.subject}, {f.target}: {number(f)} {f.quantity}, {f.verdict}; {f.reason}")
        wanted = []
        for chapter in chapters(study, found):
            if chapter.kind in ("conclusions", "conclusions-by-task"):
                wanted.append(replace(chapter, name=chapter.name.replace("conclusions", "-".join(claims))))
            elif chapter.name.startswith(tuple(figures)):
                wanted.append(chapter)
        target = study.folder / "figures"
        written += dict.fromkeys(target / file for sheet in write_sheets(wanted, target) for file in sheet.files)
    for file in written:
        print(f"written: {file}")
    return written
