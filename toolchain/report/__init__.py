"""The report of a run: one HTML file that needs nothing else, made from the run's record alone."""

from .page import write_report

__all__ = ["write_report"]
