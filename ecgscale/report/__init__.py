"""A results folder becomes a report: one page for people, tables and figures for papers, CSV and JSON for machines."""

from ecgscale.report.excerpt import write_excerpt, write_target_excerpt
from ecgscale.report.files import Report, write_report

__all__ = ["Report", "write_excerpt", "write_report", "write_target_excerpt"]
