"""Where does a feature go, from layer to layer and into other models? Its partners in every space of a run."""

import sys

import unifeat as uf

run = uf.open(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
space = run.info["pairs"][0]["space_a"]
kept = run.pairs.query("kept and space_a == @space")
feature = int(sys.argv[2]) if len(sys.argv) > 2 else int(kept["feature_a"].mode().iloc[0])
print(run.contexts(space, feature, n=2, around=40))
found = run.partners(space, feature).query("kept")
for row in found.itertuples():
    layer, model = run.info["spaces"][row.space]["layer"], run.info["spaces"][row.space]["model"]
    depth = layer / max(run.info["models"][model]["layers"] - 1, 1)
    print(f"  {row.space}/{row.feature}: r {row.correlation:.2f}, at {depth:.0%} of the depth of {model}")
