"""The sections of the report, one module each: from a run to the data of the section's template."""
