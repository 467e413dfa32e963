"""What a run found, shown: the HTML report, figures, and the short version for a terminal."""
