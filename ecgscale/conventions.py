"""What everybody in the field must agree on: lead names and order, the CODE format's numbers, the six CODE labels.

Standard library only, so that planning and reporting can use it.
"""

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The standard order, also that of CODE-15 % and of every array in this package."""

INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The eight leads that are measured; the other four are differences and means of I and II (Einthoven, Goldberger)."""

CODE_LABELS = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")
"""The six abnormalities of CODE, in the order of the published networks. `exams.csv` has another: select by name."""

CODE_FS_HZ = 400.0
CODE_N_SAMPLES = 4096
"""10.24 s; shorter signals are padded with zeros on both sides, longer ones cut centrally."""

CODE_MV_PER_UNIT = 0.5
"""The CODE releases are stored as 2 × mV (antonior92/ecg-preprocessing `--scale 2`), whatever their READMEs say."""
