"""The SAEs of unifeat's demo, one folder each. unifeat reads their files; there is no code."""
