"""Is this similarity more than how often features fire? A test that shuffles among features of like frequency."""

import numpy as np

import unifeat as uf
from unifeat.inference import frequency_strata

rng = np.random.default_rng(0)
counts = np.round(np.exp(rng.normal(5, 1.5, size=300))).astype(int) + 1
# Two dictionaries that share nothing but this: features that fire often point into a common direction.
often = (np.log(counts) - np.log(counts).mean())[:, None]
x, y = (often * rng.normal(size=(1, 20)) + rng.normal(size=(300, 20)) for _ in range(2))
plain = uf.permutation_test(uf.rsa, x, y, permutations=500, seed=0)
within = uf.permutation_test(uf.rsa, x, y, permutations=500, seed=0, strata=frequency_strata(counts, counts))
print("shuffled freely:                  ", plain)
print("shuffled among those of like count:", within)
assert plain.p < 0.01 < within.p
