"""A run's folder: what is in it (docs/run-folder.md), how it is read, and how it comes to be in one step."""
