"""Matching features of two spaces: candidates, filters, methods, hubs, stability, intervals."""
