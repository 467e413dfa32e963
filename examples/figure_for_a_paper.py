"""How do I get this figure into my paper? A figure of the report, restyled, and its data."""

import sys

import unifeat as uf

run = uf.open(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
figure = run.figure("heldout")
figure.update_layout(width=360, height=320, font_size=11, title=None)
figure.write_html("heldout.html", include_plotlyjs=True)  # with kaleido and Chromium: figure.write_image("heldout.svg")
best = max(run.info["pairs"], key=lambda pair: pair["kept"])
data = run.space_pair(best["space_a"], best["space_b"]).query("kept")[["correlation", "correlation_heldout"]]
data.to_csv("heldout.csv", index=False)
print(f"heldout.html, heldout.csv ({len(data)} pairs)")
