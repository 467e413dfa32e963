"""Which features do many models have? Families hold at most one feature of each space, joined by kept pairs."""

import sys

import unifeat as uf

run = uf.open(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
found = uf.families(run)
print(found)
sizes = found.table["size"].value_counts().sort_index(ascending=False)
for size, count in sizes.items():
    print(f"  {count} families of {size} spaces")
print(found.table.head(5).to_string(index=False))
