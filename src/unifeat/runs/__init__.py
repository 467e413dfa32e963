"""A run's folder: reading it, and writing it in one step. Specified in docs/run-folder.md."""
