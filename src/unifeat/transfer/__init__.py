"""What shared features do: one model run on another's features, and what pairs do to the next token."""
