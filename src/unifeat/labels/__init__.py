"""Words for features: names that somebody gave them, plain ones made from contexts, and whether partners agree."""
