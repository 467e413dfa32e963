"""Showing the results of a run: the HTML report, figures, and a short version for the terminal."""
