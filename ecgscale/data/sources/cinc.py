"""PhysioNet/CinC Challenges 2020 and 2021, and what is distributed in their form: WFDB in any subfolder.

https://physionet.org/content/challenge-2021/: Georgia, CPSC 2018 and its extra set, PTB-XL, PTB, INCART,
Chapman-Shaoxing and Ningbo (also on their own, as `ecg-arrhythmia`). Age, sex and SNOMED CT codes are in the headers,
of both years' dialects; nothing is known about patients.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ecgscale.data.sources.source import RecordFiles, Recording, SourceOptions
from ecgscale.data.sources.vocabulary import clean_age, clean_sex, exam_ids, labels_of_snomed
from ecgscale.data.sources.wfdb_table import release_of
from ecgscale.data.wfdb_records import read_record
from ecgscale.errors import DataError

# The letters that record names begin with (challenge 2021, "Data Sources").
_COLLECTIONS = {"A": "cpsc", "Q": "cpsc-extra", "I": "incart", "S": "ptb", "HR": "ptbxl", "E": "georgia"}
_LAST_CHAPMAN = 10_646  # JS00001-JS10646 are Chapman-Shaoxing's 10,646 patients, the rest is Ningbo's

_SNOMED_CODE = re.compile(r"\d{6,18}")


@dataclass(kw_only=True, eq=False)
class Cinc(RecordFiles):
    """The records below a folder; `paths` are their headers, relative to it and without `.hea`."""

    folder: Path
    names: Sequence[str]
    paths: Sequence[str]
    ids: Sequence[int]
    version: str | None = None
    advice: Sequence[str] = ()
    kind: str = "cinc"
    changed: Sequence[str] = (
        "patient unknown: every record counts as its own patient",
        "age 300 set to 90, ages below 0 or unknown left empty",
    )

    def recording(self, k: int) -> Recording:
        name = self.names[k]
        record = read_record(self.folder / f"{self.paths[k]}.hea")
        header = record.header
        stated = header.comment("Dx")
        if stated is None:
            raise DataError("its header has no '#Dx:' line with SNOMED codes")
        dx = [code.strip() for code in stated.split(",")]
        if not any(_SNOMED_CODE.fullmatch(code) for code in dx):
            raise DataError(f"its '#Dx:' line holds no SNOMED code: {stated[:60]!r}")
        row = {
            "exam_id": self.ids[k],
            "patient_id": self.ids[k],
            "age": clean_age(header.comment("Age")),
            "is_male": clean_sex(header.comment("Sex")),
            **labels_of_snomed(dx),
            "record": name,
            "collection": collection_of(name),
            "dx": ";".join(dx),
        }
        return Recording(name, record.signal_mv, record.leads, header.fs_hz, row)


def looks_like_cinc(folder: Path) -> bool:
    """Whether any WFDB header is below the folder."""
    return next(folder.rglob("*.hea"), None) is not None


def open_cinc(folder: Path, options: SourceOptions) -> Cinc:
    """Opens the records below a folder. A record's name is its file's, or its path where two files share a name.

    The exam ids are those of the whole folder, whichever records are asked for.
    """
    paths = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.hea"))
    names = [path.rpartition("/")[2] for path in paths]
    if len(set(names)) < len(names):
        names = paths
    asked = [k for k, name in enumerate(names) if fnmatchcase(name, options.records)]
    ids = exam_ids(names)
    names = [names[k] for k in asked]
    return Cinc(
        folder=folder,
        names=names,
        paths=[paths[k] for k in asked],
        ids=[ids[k] for k in asked],
        version=release_of(folder),
        advice=_advice(names),
    )


def collection_of(name: str) -> str:
    """Where a record comes from, by its name: `E00271` is georgia, `JS00001` chapman-shaoxing; "" if unknown."""
    parts = re.fullmatch(r"(?:.*/)?([A-Z]+)(\d{1,9})", name)
    if parts is None:
        return ""
    if parts[1] == "JS":
        return "chapman-shaoxing" if int(parts[2]) <= _LAST_CHAPMAN else "ningbo"
    return _COLLECTIONS.get(parts[1], "")


def _advice(names: Sequence[str]) -> tuple[str, ...]:
    repeating = sorted({collection_of(name) for name in names} & {"ptbxl", "ptb", "incart"})
    if not repeating:
        return ()
    return (
        f"patients have several records in {', '.join(repeating)}, and nothing here tells which: do not split these "
        "into train and test (PTB-XL's own folder knows its patients)",
    )
