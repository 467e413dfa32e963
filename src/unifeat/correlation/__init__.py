"""Exact correlation of paired codes, sparse or dense, on all cores. Knows no study, no store and no model."""
