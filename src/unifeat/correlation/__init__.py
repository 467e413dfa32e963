"""Exact correlation of paired codes, sparse or dense, on all cores. Independent of studies, stores and models."""
