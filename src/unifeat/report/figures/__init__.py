"""Figures of a run, as plain data in plotly's format: for the report, for notebooks (`Run.figure`) and for papers."""
