"""Checking an SAE: what it does on real activations, against what it says of itself and against misreadings."""
