"""The steps of a study, from text to report, each in a module of its own; `run` carries them out in order."""
