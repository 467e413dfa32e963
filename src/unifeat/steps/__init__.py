"""The steps of a run, in the order of the data's way; `unifeat.pipeline` lists them."""
