"""Which features does one model have, and no other? Features that fire often and have no partner anywhere."""

import sys

import unifeat as uf

run = uf.open(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
space = sys.argv[2] if len(sys.argv) > 2 else run.info["pairs"][0]["space_a"]
alone = run.unmatched(space).query("count >= 20")
print(f"{len(alone)} features of {space} fire on 20 tokens or more and have no partner. The three that fire most:")
for row in alone.head(3).itertuples():
    print(f"\nbest r with any candidate: {row.best_correlation:.2f}")
    print(run.contexts(space, row.feature, n=3, around=40))
