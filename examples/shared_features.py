"""Which features do two models share? The pairs of two spaces, with r on documents that they were not found on."""

import sys

import unifeat as uf

run = uf.open(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
first = max(run.info["pairs"], key=lambda pair: pair["kept"])
pairs = run.space_pair(first["space_a"], first["space_b"]).query("kept")
print(f"{first['space_a']} and {first['space_b']} share {len(pairs)} features; ten of them, at random:")
for pair in pairs.sample(min(10, len(pairs)), random_state=0).itertuples():
    words = " | ".join(" ".join(dict.fromkeys(map(repr, tokens))) for tokens in (pair.top_tokens_a, pair.top_tokens_b))
    print(f"  r {pair.correlation_heldout:5.2f}  {pair.feature_a:5} × {pair.feature_b:<5}  {words}")
