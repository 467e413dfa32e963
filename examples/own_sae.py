"""Does my own SAE find what another SAE of the same activations finds? Any object with `encode` and `W_dec` does."""

import numpy as np

import unifeat as uf

rng = np.random.default_rng(0)
directions = rng.normal(size=(40, 32))
directions /= np.linalg.norm(directions, axis=1, keepdims=True)
strengths = rng.exponential(size=(5000, 40)) * (rng.random((5000, 40)) < 0.05)
activations = (strengths @ directions).astype("float32")
documents = np.repeat(np.arange(25), 200)


class Dictionary:
    """An encoder that reads each direction and keeps what is above a threshold."""

    def __init__(self, order, threshold):
        self.W_dec, self.threshold = directions[order].astype("float32"), threshold

    def encode(self, x):
        codes = np.asarray(x) @ self.W_dec.T
        return np.where(codes > self.threshold, codes, 0)

    def decode(self, codes):
        return np.asarray(codes) @ self.W_dec


loose, strict = Dictionary(np.arange(40), 0.4), Dictionary(rng.permutation(40), 0.8)
run = uf.compare(
    [
        uf.space(name, activations=[(activations, documents)], sae=sae)
        for name, sae in (("loose", loose), ("strict", strict))
    ],
    matching={"min_count": 20},
    inference={"permutations": 100},
    out="runs/own-sae",
)
print(run, {name: round(space["fvu"], 2) for name, space in run.info["spaces"].items()})
