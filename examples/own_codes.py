"""What do two dictionaries share, of which I have only the codes? Matrices and decoder rows from anywhere."""

import numpy as np
import scipy.sparse as sp

import unifeat as uf

rng = np.random.default_rng(0)
tokens, documents = 6000, np.repeat(np.arange(30), 200)  # which document each row is of
codes = sp.random(tokens, 120, density=0.03, format="csr", rng=rng)
rows = rng.normal(size=(120, 24))
turned = rows @ np.linalg.qr(rng.normal(size=(24, 24)))[0]  # another basis: no coordinate is the same
other = sp.hstack([codes[:, 60:], sp.random(tokens, 40, density=0.03, rng=rng)], format="csr")
run = uf.compare(
    [
        uf.space("one", codes=uf.Codes(codes, documents), decoder=rows),
        uf.space("two", codes=uf.Codes(other, documents), decoder=np.vstack([turned[60:], rng.normal(size=(40, 24))])),
    ],
    matching={"min_count": 20, "min_correlation": 0.3},
    inference={"permutations": 100, "rematches": 9},
    out="runs/own-codes",
)
print(run, run.scores[["metric", "score", "null_mean", "p"]].to_string(index=False), sep="\n")
assert len(run.pairs.query("kept")) == 60, "they share 60 features"
