"""Training the SAEs that a study names and that do not exist yet, with SAELens' training classes and trainer.

    text ─► groups of activations (on disk) ─► shuffled batches ─► one trainer per SAE, in lockstep ─► folders
            activations.py                     stream.py           trainers.py, run.py                card.py

All SAEs of one model, whatever their layers, widths and seeds, are trained on one stream of activations. Special
tokens, first positions and attention sinks are masked as in encoding. Activations are scaled to a mean norm of √d, and
the scale is folded into the weights at the end.
"""
