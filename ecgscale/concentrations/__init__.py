"""Concentrations read off the ECG: targets, heads, what a head says of a record, and how good and honest that is."""
