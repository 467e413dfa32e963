"""Matching again: many draws by `unifeat run`, beside fewer draws made one after another.

    python benchmarks/rematch.py runs/demo [--null rematch] [--draws 99] [--fewer 29] [--cells 4] [--enough 10]

Takes a finished run whose codes are in the cache; its stored draws are not used. "One after another" is what unifeat
did before draws were units of several: each correlates on all cores, and each measure is prepared for itself. Prints
seconds a pair of spaces, by the clock and of all cores together (which other processes change less), their ratios, and
how many draws were spared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import unifeat as uf
from unifeat.engine import Local
from unifeat.errors import UserError
from unifeat.matching.by_chance import ByChance
from unifeat.pipeline.match import Cell
from unifeat.pipeline.pair_set import PairSet
from unifeat.pipeline.rematch import again, rematch_cells
from unifeat.pipeline.reopen import reopen
from unifeat.progress import set_mode
from unifeat.store import cache_root
from unifeat.study.measures import MetricSpec
from unifeat.study.spec import Study
from unifeat.threads import cores, each


def without_draws(cache: Path, folder: Path) -> None:
    """A cache with everything that another holds, except draws."""
    for own in cache.iterdir():
        if own.name != "rematches":
            (folder / own.name).symlink_to(own)


class Stopwatch:
    """Seconds since it was made: by the clock, and of all cores."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def one_after_another(cell: Cell, study: Study, draws: int) -> None:
    """Some draws of one pair of spaces."""
    chance = ByChance(cell.comparison, study.inference.rematch_by)
    for number in range(draws):
        table = chance.candidates(number)
        cell.rule.decide(table)
        pairs = PairSet.of(cell, "all", cell.rule.strongest(table, len(cell.kept)))
        list(each(partial(score, pairs), study.geometry))


def score(pairs: PairSet, spec: MetricSpec) -> float:
    """One measure, prepared for itself; NaN where there are too few pairs."""
    try:
        return pairs.value(spec).value
    except UserError:
        return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--null", default="rematch", choices=["rematch", "same_token", "same_two_tokens"])
    parser.add_argument("--draws", type=int, default=99)
    parser.add_argument("--fewer", type=int, default=29)
    parser.add_argument("--cells", type=int, help="only the first so many pairs of spaces")
    parser.add_argument("--enough", type=int, default=10)
    parser.add_argument("--before", type=float, default=0.39, help="seconds of a draw that the last line compares with")
    options = parser.parse_args()
    set_mode("quiet")
    with tempfile.TemporaryDirectory() as folder:
        without_draws(cache_root(), Path(folder))
        os.environ["UNIFEAT_CACHE"] = folder
        opened = reopen(uf.open(options.run))
        asked = {"rematches": 0, "same_token": 0, "same_two_tokens": 0, "enough": options.enough}
        asked["rematches" if options.null == "rematch" else options.null] = options.draws
        inference = opened.study.inference.model_copy(update=asked)
        study = opened.study.model_copy(update={"inference": inference})
        cells = opened.cells[: options.cells]
        facts = [cell.matched().facts for cell in cells]
        one_after_another(cells[0], study, 1)  # compile
        watch = Stopwatch()
        found = rematch_cells(study, again(study)[0], cells, facts, Local())
        many = watch.read()
        watch = Stopwatch()
        for cell in cells:
            one_after_another(cell, study, options.fewer)
        fewer = watch.read()
    made = sum(own["draws"] for own in found)
    scored = sum(len(values) for own in found for values in own["scores"])
    measures = len(study.geometry)
    asked_of_all = options.draws * len(cells)
    print(
        f"{len(cells)} pairs of spaces, {options.null}: {options.draws} draws, and {options.fewer} one after another. "
        f"Draws made: {made:,} of {asked_of_all:,}; scored: {scored:,} of {measures * asked_of_all:,}"
    )
    for name, one, other in zip(("clock", "all cores"), many, fewer, strict=True):
        print(f"  {name}: {one / len(cells):.1f} s a pair, and {other / len(cells):.1f} s ({one / other:.2f} ×)")
    before = options.fewer * options.before
    on_idle = many[1] / cores() / len(cells)
    print(
        f"  {options.fewer} × {options.before} s are {before:.1f} s: by the clock {many[0] / len(cells) / before:.2f} "
        f"×, and {on_idle / before:.2f} × if {cores()} cores had nothing else to do"
    )


if __name__ == "__main__":
    main()
