"""The study: the typed settings of a run, and the YAML file they are written in."""
