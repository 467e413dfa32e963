"""Do these two features correlate, wherever they came from? Arguments: RUN SPACE_A FEATURE_A SPACE_B FEATURE_B."""

import sys

import unifeat as uf

run = uf.open(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
if len(sys.argv) > 5:
    space_a, feature_a, space_b, feature_b = sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
else:  # the strongest pair
    best = run.pairs.query("kept").nlargest(1, "correlation").iloc[0]
    space_a, feature_a, space_b, feature_b = best[["space_a", "feature_a", "space_b", "feature_b"]]
print(run.pair(feature_a, feature_b, space_a, space_b, n=3))
