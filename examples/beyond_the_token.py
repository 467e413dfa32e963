"""Which shared features are more than detectors of one token? Those that correlate among rows of the same token."""

import sys

import unifeat as uf

run = uf.open(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
kept = run.pairs.query("kept")
more = kept[kept["more_than_a_token"].fillna(False).astype(bool)]
print(f"{len(more)} of {len(kept)} pairs are more than a token. The most:")
for pair in more.nlargest(10, "correlation_within_token").itertuples():
    share = (pair.token_share_a + pair.token_share_b) / 2
    print(
        f"  {pair.space_a}/{pair.feature_a} × {pair.space_b}/{pair.feature_b}: r {pair.correlation:.2f}, "
        f"within token {pair.correlation_within_token:.2f}; the token explains {max(share, 0):.0%}"
    )
