"""The study: what a user asks for, typed, and the YAML file it is written in."""
