"""A table as a value, for the page and for LaTeX alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NOT_HELD = "—"
"""Stands for what is not known, or not held by the points."""


@dataclass(frozen=True)
class Table:
    """Attributes:
    name: of its file, and its label in LaTeX.
    columns: headings.
    n_labels: so many columns on the left are words; of the others, what is not a sentence is a number.
    rows: text; a number has its interval behind it in brackets.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    n_labels: int
    rows: tuple[tuple[str, ...], ...]

    def without_empty_columns(self) -> Table:
        """Columns in which no row says anything say nothing."""
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        return Table(
            self.name,
            self.caption,
            tuple(self.columns[i] for i in kept),
            sum(i < self.n_labels for i in kept),
            tuple(tuple(row[i] for i in kept) for row in self.rows),
        )


_TEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "—": "---",
    "–": "--",
    "…": r"\dots{}",
    "“": "``",
    "”": "''",
    **{c: f"${m}$" for c, m in {"−": "-", "×": r"\times", "∞": r"\infty", "→": r"\to", "∝": r"\propto"}.items()},
    **{c: f"${m}$" for c, m in {"±": r"\pm", "≤": r"\le", "≥": r"\ge", "<": "<", ">": ">", "·": r"\cdot"}.items()},
    **{c: f"$\\{m}$" for c, m in {"α": "alpha", "β": "beta", "κ": "kappa", "σ": "sigma", "δ": "delta"}.items()},
    "²": "$^2$",
}


LONGEST_LINE = 28
"""Characters of a cell; columns with longer ones are set as paragraphs, and no number with its interval is."""

PARAGRAPH = r">{\raggedright\arraybackslash}p{3.4cm}"


def tex(table: Table) -> str:
    """A table of LaTeX's booktabs package: long text in paragraphs, and what is still wide shrunk to the line."""
    alignment = "".join(
        PARAGRAPH if any(len(row[i]) > LONGEST_LINE for row in table.rows) else "l" if i < table.n_labels else "r"
        for i in range(len(table.columns))
    )
    lines = [
        "% needs \\usepackage{array,booktabs,adjustbox}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{escaped(table.caption)}}}",
        f"  \\label{{tab:{table.name}}}",
        "  \\begin{adjustbox}{max width=\\linewidth}",
        f"  \\begin{{tabular}}{{{alignment}}}",
        "    \\toprule",
        f"    {_row(table.columns)}",
        "    \\midrule",
        *(f"    {_row(row)}" for row in table.rows),
        "    \\bottomrule",
        "  \\end{tabular}",
        "  \\end{adjustbox}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text as LaTeX sets it."""
    return re.sub(".", lambda found: _TEX.get(found[0], found[0]), text)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"
