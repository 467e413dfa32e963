"""The sections of the report, one module each: from a run to what its template shows."""
