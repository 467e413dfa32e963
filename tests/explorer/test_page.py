"""The page in a real browser: it is driven as a user would, and it asks no network for anything."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer_data import data_of

from pages import ROOT
from unifeat.explorer.write import write_explorer
from worlds import FEATURES, HOSTILE, WORDS, World, add_pair, documents, enrich, make_world, spiral

PAGE = Path(__file__).parents[2] / "src" / "unifeat" / "explorer" / "page"
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_SIZE = {"width": 1100, "height": 640}
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


_NAMED = {"www.w3.org", "github.com", "get.webgl.org", "www.npmjs.com"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestTheBundle:
    """What is in the package is what its sources give."""

    bundle = json.loads((PAGE / "bundle.json").read_text(encoding="utf-8"))

    @pytest.mark.skipif(not (ROOT / "explorer").is_dir(), reason="the sources are not part of this distribution")
    def test_it_is_of_these_sources(self):
        folder = ROOT / "explorer"
        names = {path.relative_to(folder).as_posix() for path in (folder / "src").iterdir()}
        names |= {"package.json", "package-lock.json", "tsconfig.json", "build.mjs"}
        assert set(self.bundle["sources"]) == names
        changed = [name for name, digest in self.bundle["sources"].items() if sha256(folder / name) != digest]
        assert not changed, "run `npm ci && npm run build` in explorer/"

    @pytest.mark.skipif(not (ROOT / "explorer" / "node_modules").is_dir(), reason="no packages to build it with")
    def test_what_typescript_finds_wrong_is_not_built(self, tmp_path):
        folder = tmp_path / "explorer"
        shutil.copytree(ROOT / "explorer", folder, ignore=shutil.ignore_patterns("node_modules"))
        (folder / "node_modules").symlink_to(ROOT / "explorer" / "node_modules")
        numbers = folder / "src" / "numbers.ts"
        with numbers.open("a", encoding="utf-8") as file:
            file.write('export const wrong: number = "1";\n')
        done = subprocess.run(["node", "build.mjs"], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "numbers.ts" in done.stdout + done.stderr
        assert not (tmp_path / "src").exists()

    def test_nobody_changed_it_by_hand(self):
        assert {name: sha256(PAGE / name) for name in self.bundle["files"]} == self.bundle["files"]
        assert {path.name for path in PAGE.iterdir()} == {
            *self.bundle["files"],
            "bundle.json",
            "explorer.css",
            "explorer.html",
        }

    def test_licences_of_all_that_is_in_it(self):
        licences = (PAGE / "LICENCES.txt").read_text(encoding="utf-8")
        for name, version in self.bundle["packages"].items():
            assert re.search(rf"^{re.escape(name)} {re.escape(version)} \((MIT|ISC|BSD-3-Clause)\)$", licences, re.M)

    def test_it_names_no_address(self):
        """But the namespace of SVG, and what libraries say in comments and errors; a browser is asked below."""
        names = ("explorer.js", "explorer.css", "explorer.html")
        text = "".join((PAGE / name).read_text(encoding="utf-8") for name in names)
        assert set(re.findall(r"(?:https?:)?//(\w[\w.-]+\.[a-z]{2,})", text)) <= _NAMED


# The browser

browser_only = pytest.mark.skipif(_CHROMIUM is None, reason="no chromium to open the page in")
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    """A made-up run and its page."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIFEAT_CACHE", str(folder / "cache"))
        patch.setattr("unifeat.explorer.maps._umap", spiral)
        world = make_world(folder / "world")
        return world, write_explorer(world.run)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright to drive the browser")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any, shown: tuple[World, Path]) -> Iterator[Open]:
    """Opens the page at an address, with maps or without, and watches for requests, errors and dialogs."""
    wrong: list[str] = []
    contexts = []

    def go(address: str = "", *, maps: bool = False, page: Path | None = None, **settings: Any) -> Any:
        settings = {"reduced_motion": "reduce"} | settings
        contexts.append(browser.new_context(viewport=settings.pop("viewport", _SIZE), **settings))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(45_000)
        if not maps:  # (they take most of the time, without a graphics card)
            tab.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        tab.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "blob:", "data:")) else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        tab.goto((page or shown[1]).as_uri() + address)
        tab.wait_for_selector("html[data-ready=all]")
        return tab

    yield go
    for context in contexts:
        context.close()
    assert wrong == []


def settled(tab: Any) -> None:
    """Wait for what was typed or chosen to be shown: the page's own timers are shorter, however slow the machine is."""
    tab.evaluate("new Promise((r) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(r)), 170))")


def count(tab: Any) -> tuple[int, int]:
    """How many features are listed, and how many of them have a partner."""
    settled(tab)
    text = tab.inner_text("#count")
    if text.startswith("No feature"):
        return 0, 0
    found = re.match(r"([\d,]+) features?.*?, ([\d,]+) with a partner", text)
    assert found, text
    return int(found[1]), int(found[2])


def listed(tab: Any, column: int = 0) -> list[str]:
    """One column of the rows that are in the page."""
    settled(tab)
    return tab.locator(".inner .row").evaluate_all(f"(rows) => rows.map((row) => row.children[{column}].textContent)")


def point(tab: Any, shown: tuple[World, Path], space: int, feature: int) -> tuple[float, float]:
    """Where a feature is drawn, in the window."""
    tab.wait_for_selector(f".panel.space-{space}[data-drawn]")
    grid = data_of(shown[1], "features")[1][f"{space}.decoder"].reshape(-1, 2)[feature]
    x, y = (grid / 65534 * 2 - 1) * 0.95
    box = tab.locator(".frame").nth(space).bounding_box()
    half = min(box["width"], box["height"]) / 2
    return box["x"] + box["width"] / 2 + x * half, box["y"] + box["height"] / 2 - y * half


def click(tab: Any, at: tuple[float, float], hash_ends: str, *, held_ms: float = 0) -> None:
    """Click at a point of a map, once."""
    tab.mouse.click(*at, delay=held_ms)
    tab.wait_for_function(f"location.hash.endsWith('{hash_ends}')")


def partner(world: World, feature: int) -> int:
    word = world.word[0][feature]
    return world.word[1].index(word)


@browser_only
def test_it_opens_with_every_feature(open_page: Open, shown: tuple[World, Path]):
    tab = open_page(maps=True)
    assert tab.inner_text("#title") == "a@0 × b@1"
    assert tab.inner_text("#run").startswith("run made up </script> · 2026-01-02")
    assert count(tab) == (FEATURES, len(WORDS) - 1)
    assert "15 of 24 features" in tab.inner_text("#feature")
    for space in (0, 1):
        tab.wait_for_selector(f".panel.space-{space}[data-drawn=decoder]")
    settled(tab)
    # Points are there, in more than one colour.
    image = tab.locator("#maps").screenshot()
    tab.evaluate("document.querySelectorAll('.frame canvas').forEach((c) => (c.style.visibility = 'hidden'))")
    assert len(image) > 1.3 * len(tab.locator("#maps").screenshot())


@browser_only
def test_search_finds(open_page: Open, shown: tuple[World, Path]):
    world, _ = shown
    tab = open_page()
    tab.keyboard.press("/")
    tab.keyboard.type("geneva")
    tab.wait_for_function("location.hash.includes('q=geneva')")
    first = tab.locator(".inner .row").first
    assert first.locator("[role=gridcell]").nth(0).inner_text() == "0"
    assert first.locator("[role=gridcell]").nth(2).inner_text() == "token"
    assert count(tab)[0] > 1, "other features have it in their contexts"
    tab.click("#tab-1")
    assert listed(tab)[0] == str(world.word[1].index("Geneva"))
    for query, expected in {"token:Monday": ["1"], "number: 7": ["7"], "#20": ["20"], "label:x": [], "zzz": []}.items():
        tab.click("#tab-0")
        tab.fill("#search", query)
        assert listed(tab) == expected, query
    tab.fill("#search", "token:Monday")
    settled(tab)
    assert tab.inner_text("#count") == "1 feature, 1 with a partner"
    tab.click("#reset")
    assert count(tab)[0] == FEATURES


@browser_only
def test_leaving_the_search_keeps_it(open_page: Open):
    tab = open_page()
    tab.keyboard.press("/")
    tab.keyboard.type("geneva")
    tab.wait_for_function("location.hash.includes('q=geneva')")
    found = count(tab)
    tab.keyboard.press("Escape")
    settled(tab)
    assert tab.input_value("#search") == "geneva"
    assert tab.evaluate("document.activeElement.id") != "search"
    assert count(tab) == found
    tab.keyboard.press("j")
    tab.wait_for_function("location.hash.startsWith('#a@0/0?')")
    # An address says what is searched, wherever the cursor is.
    tab.focus("#search")
    tab.evaluate("location.hash = '#?q=monday'")
    tab.wait_for_function("document.querySelector('#search').value === 'monday'")


@browser_only
def test_a_click_lights_the_partner(open_page: Open, shown: tuple[World, Path]):
    world, _ = shown
    tab = open_page(maps=True)
    tab.mouse.move(*point(tab, shown, 0, 3))
    tab.wait_for_selector("#maps[data-lines='1']")
    tip = tab.inner_text(".tip")
    assert "a@0/3 president" in tip
    assert f"b@1/{partner(world, 3)}, r 0.86 ident" in tip
    click(tab, point(tab, shown, 0, 3), "a@0/3")
    tab.wait_for_selector("#feature h2.space-0")
    tab.mouse.move(5, 5)
    assert tab.inner_text("#feature h2") == "a@0 / 3"
    tab.wait_for_selector("#maps[data-lines='1']")
    assert tab.evaluate("location.hash") == "#a@0/3"
    tab.click(f"#feature .partner a:has-text('b@1 / {partner(world, 3)}')")
    tab.wait_for_selector("#feature h2.space-1")
    assert tab.inner_text("#feature .partner a") == "a@0 / 3"
    tab.go_back()
    tab.wait_for_selector("#feature h2.space-0")
    # One whose pair was dropped has no line.
    click(tab, point(tab, shown, 0, WORDS.index(WORDS[-1])), "/15")
    tab.mouse.move(5, 5)
    tab.wait_for_selector("#maps[data-lines='0']")
    assert "was dropped: r at or below 0.1" in tab.inner_text("#feature .partner")


@browser_only
def test_a_click_is_a_press_and_a_release_at_one_place(open_page: Open, shown: tuple[World, Path]):
    """However long it takes; a hand may tremble, but a drag that ends where it began is no click."""
    tab = open_page(maps=True)
    x, y = point(tab, shown, 0, 3)
    click(tab, (x, y), "a@0/3", held_ms=700)
    tab.keyboard.press("Escape")
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 3, y + 1)
    tab.mouse.up()
    tab.wait_for_function("location.hash.endsWith('a@0/3')")
    for mode in ("panZoom", "lasso"):
        tab.keyboard.press("Escape")
        tab.check(f"input[value={mode}]", force=True)
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 30, y, steps=5)
        tab.mouse.move(x, y, steps=5)
        tab.mouse.up()
        settled(tab)
        assert "Choose a feature" in tab.inner_text("#feature"), mode
    # Between points, there is nothing to select.
    tab.mouse.click(*(c + 4 for c in (tab.locator(".frame").first.bounding_box()[k] for k in ("x", "y"))))
    settled(tab)
    assert "Choose a feature" in tab.inner_text("#feature")


@browser_only
def test_each_partner_has_its_own_r(open_page: Open, tmp_path: Path, quick_maps: None):
    """Methods that let features share a partner: the tip and the contexts are of the pair that they name."""
    world = make_world(tmp_path / "shared")
    geneva, president = partner(world, 0), partner(world, 3)
    add_pair(world, 0, president, 0.33)  # Geneva's second partner, and its partner's second
    add_pair(world, 5, geneva, 0.99)  # because's better partner, and Geneva's partner's
    page = write_explorer(type(world.run)(world.run.folder))
    tab = open_page("#a@0/0?sort=feature", page=page, maps=True)
    tab.mouse.move(*point(tab, (world, page), 0, 0))
    tab.wait_for_selector(".tip:visible")
    said = tab.inner_text(".tip")
    assert f"b@1/{geneva}, r 0.95" in said
    assert f"b@1/{president}, r 0.33" in said
    sides = tab.locator("#feature .sides > div")
    assert set(sides.nth(0).locator(".under").all_inner_texts()) == {"neva"}
    assert sides.nth(1).locator(".under").count() == 0, "its partner's own partner is another"
    assert f"the strongest partner of b@1 / {geneva} is a@0 / 5" in sides.nth(1).inner_text()
    tab.evaluate("location.hash = '#a@0/5'")
    tab.wait_for_function("document.querySelector('#feature h2').textContent === 'a@0 / 5'")
    assert f"its partner b@1 / {geneva} fires" in tab.inner_text("section[aria-label=Contexts]")


@browser_only
def test_filters_filter(open_page: Open):
    tab = open_page()
    tab.click("summary:has-text('Filters')")
    kept = len(WORDS) - 1
    for value, expected in {
        "with": (kept, kept),
        "without": (FEATURES - kept, 0),
        "no candidate": (FEATURES - len(WORDS), 0),
        "any": (FEATURES, kept),
    }.items():
        tab.select_option("#partner", value)
        assert count(tab) == expected, value
    tab.select_option("#category", label="Days")
    assert listed(tab) == ["1"]
    tab.select_option("#category", "")
    tab.locator("input[aria-label='Least r']").fill("0.8")
    assert count(tab)[0] == 6  # 0.95, 0.92, … 0.80
    tab.locator("input[aria-label='Most r']").fill("0.9")
    assert sorted(map(int, listed(tab))) == [2, 3, 4, 5]
    assert tab.inner_text("#active") == " (1)"
    tab.wait_for_function("location.hash.includes('r=0.8')")
    address = tab.evaluate("location.hash")
    assert count(open_page(address))[0] == 4
    tab.click("#reset")
    assert count(tab)[0] == FEATURES
    assert tab.evaluate("location.hash") in ("", "#")


@browser_only
def test_permalinks_open(open_page: Open, shown: tuple[World, Path]):
    world, _ = shown
    tab = open_page(f"#b@1/{partner(world, 4)}?colour=partner&map=firing&partner=with", maps=True)
    assert tab.inner_text("#feature h2") == f"b@1 / {partner(world, 4)}"
    assert tab.get_attribute("#tab-1", "aria-selected") == "true"
    assert tab.input_value("#colour") == "partner"
    tab.wait_for_selector(".panel.space-1[data-drawn=firing]")
    assert "candidates, none kept" in tab.inner_text("#legend")
    assert count(tab)[0] == len(WORDS) - 1
    selected = tab.locator(".inner .row[aria-selected=true]")
    assert selected.locator("[role=gridcell]").first.inner_text() == str(partner(world, 4))
    for wrong in ("#c@2/1", "#a@0/99", "#a@0/x", "#%", "#a@0/1/2", "#?r=x,y&category=none&colour=zzz"):
        tab.evaluate("location.hash = '#a@0/1'")
        tab.wait_for_function("document.querySelector('#feature h2').textContent === 'a@0 / 1'")
        tab.evaluate(f"location.hash = '{wrong}'")
        tab.wait_for_function("document.querySelector('#feature h2').textContent === 'Choose a feature'")
    assert "Choose a feature" in open_page("#%E0%A4%A").inner_text("#feature")


@browser_only
def test_permalinks_of_three_spaces_and_an_order(open_page: Open, tmp_path: Path, quick_maps: None):
    world = make_world(tmp_path / "three", spaces=("a@0", "b@1", "c@2"))
    page = write_explorer(world.run, ["a@0", "b@1", "c@2"])
    tab = open_page(page=page)
    tab.select_option("#against", label="c@2")
    tab.click("#heads button:has-text('in c@2')")
    tab.wait_for_function("location.hash.includes('sort=')")
    rows, address = listed(tab), tab.evaluate("location.hash")
    again = open_page(address, page=page)
    assert again.locator("#against option:checked").inner_text() == "c@2"
    assert "in c@2" in again.inner_text("#heads")
    assert again.locator("#heads [aria-sort=ascending]").inner_text().startswith("in c@2")
    assert listed(again) == rows
    again.click("#tab-1")
    again.wait_for_function("location.hash.includes('list=')")
    assert open_page(again.evaluate("location.hash"), page=page).get_attribute("#tab-1", "aria-selected") == "true"
    tab.evaluate("location.hash = '#?sort=zzz&against=zzz&list=zzz'")
    tab.wait_for_function("document.querySelector('#against').selectedOptions[0].textContent === 'b@1'")
    assert listed(tab)[0] == "0", "the highest r first"


@browser_only
def test_hostile_text_stays_text(open_page: Open):
    tab = open_page()
    for word in HOSTILE:
        tab.goto(tab.url.split("#")[0] + f"#a@0/{WORDS.index(word)}")
        tab.wait_for_function(f"document.querySelector('#feature h2')?.textContent === 'a@0 / {WORDS.index(word)}'")
        said = word.replace("\u2028", "↵")
        assert tab.inner_text("#feature .label") == said
        assert "".join(tab.locator(".contexts li").first.locator(".peak").all_text_contents()).strip() == said
    assert tab.locator("img").count() == 0
    assert tab.evaluate("document.scripts.length") == 1


@browser_only
def test_contexts_shade_what_fires(open_page: Open):
    tab = open_page("#a@0/0")
    sides = tab.locator("#feature .sides > div")
    assert "strongest in a@0" in sides.nth(0).inner_text()
    for side in (0, 1):
        lines = sides.nth(side).locator("li")
        assert lines.count() == 5
        assert all("Geneva" in text for text in lines.all_inner_texts())
    marks = sides.nth(0).locator("mark.space-0")
    assert set(re.findall("Geneva|.", "".join(marks.all_text_contents()))) == {"Geneva"}
    shares = [float(mark.evaluate("(e) => e.style.getPropertyValue('--share')")) for mark in marks.all()]
    assert max(shares) == 1.0
    assert 0 < min(shares) < 1
    # Of the other space, the second half of the word is a token of its own.
    under = sides.nth(0).locator(".under.space-1")
    assert set(under.all_inner_texts()) == {"neva"}


@browser_only
def test_a_mark_of_the_byte_order_is_a_character(
    open_page: Open, tmp_path: Path, quick_maps: None, monkeypatch: pytest.MonkeyPatch
):
    """At the beginning of the text a decoder leaves it out, unless told not to."""
    marked = [f"\ufeff {text}" for text in documents(np.random.default_rng(0))]
    monkeypatch.setattr("worlds.documents", lambda rng: marked)
    world = make_world(tmp_path / "marked")
    page = write_explorer(world.run)
    assert data_of(page, "contexts")[1]["text"][0] == 0xFEFF
    tab = open_page("#a@0/0", page=page)
    assert tab.inner_text("#feature .label") == "Geneva"
    lines = tab.locator("#feature .sides > div").first.locator("li").all()
    assert {"".join(line.locator(".peak").all_text_contents()) for line in lines} == {"Geneva"}


@browser_only
def test_a_lasso_selects_many(open_page: Open, shown: tuple[World, Path]):
    tab = open_page(maps=True)
    tab.check("input[value=lasso]", force=True)
    tab.wait_for_selector(".panel.space-0[data-drawn]")
    box = tab.locator(".frame").first.bounding_box()
    left, top, right, bottom = (box["x"] + 4, box["y"] + 4, box["x"] + box["width"] - 4, box["y"] + box["height"] - 4)
    tab.mouse.move(left, top)
    tab.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 3)):
        tab.mouse.move(x, y, steps=4)
        tab.wait_for_timeout(20)
    tab.mouse.up()
    tab.wait_for_selector("#unlasso:visible")
    number, kept = count(tab)
    assert number >= FEATURES - 2, "all but what lies at the edge"
    assert kept >= len(WORDS) - 3
    assert int(tab.get_attribute("#maps", "data-lines")) == kept
    with tab.expect_download() as download:
        tab.click("#download")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert len(rows) == number
    by_feature = {int(row["feature"]): row for row in rows}
    assert by_feature[0]["top_tokens"] == "Geneva"
    assert float(by_feature[0]["correlation"]) == pytest.approx(0.95, abs=1e-4)
    assert by_feature[15]["dropped_because"] == "r at or below 0.1"
    tab.keyboard.press("Escape")
    assert count(tab)[0] == FEATURES


@browser_only
def test_keys_walk_through_the_list(open_page: Open):
    tab = open_page()
    rows = listed(tab)
    for key, place in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        tab.keyboard.press(key)
        tab.wait_for_function(f"location.hash === '#a@0/{rows[place]}'")
    tab.focus("#rows")
    tab.keyboard.press("End")
    tab.wait_for_selector(f".inner .row[aria-selected=true]:has-text('{FEATURES - 1}')")
    tab.keyboard.press("Escape")
    assert "Choose a feature" in tab.inner_text("#feature")
    tab.keyboard.press("?")
    assert tab.locator("#help").is_visible()
    assert "regl-scatterplot" in tab.text_content("#help")


@browser_only
def test_the_list_sorts_by_every_column(open_page: Open):
    tab = open_page()
    heads = tab.locator("#heads [role=columnheader]")
    for n in range(heads.count()):
        heads.nth(n).locator("button").click()
        assert heads.nth(n).get_attribute("aria-sort") != "none"
        values = [text for text in listed(tab, n) if text not in ("–", "")]
        keys: list[Any] = values
        if heads.nth(n).get_attribute("class") == "number":
            keys = [float(value.replace("−", "-").removesuffix(" %")) for value in values]
        else:
            keys = [value.casefold() for value in values if value[0].isalpha() and value.isascii()]
        down = heads.nth(n).get_attribute("aria-sort") == "descending"
        assert keys == sorted(keys, reverse=down), heads.nth(n).inner_text()


@browser_only
def test_narrow_and_dark(open_page: Open):
    tab = open_page("#a@0/2", viewport={"width": 390, "height": 800}, color_scheme="dark", maps=True)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    assert max(map(int, re.findall(r"\d+", tab.evaluate(ground)))) < 60
    tab.click("#theme")
    assert "251" in tab.evaluate(ground)


@browser_only
def test_labels_effects_and_families(open_page: Open, tmp_path: Path, quick_maps: None):
    world = make_world(tmp_path / "richer", spaces=("a@0", "b@1", "c@2"))
    enrich(world)
    tab = open_page("#a@0/1", page=write_explorer(type(world.run)(world.run.folder)), maps=True)
    assert tab.inner_text("#feature .label") == "label 1"
    family = tab.inner_text("section[aria-label=Family]")
    assert "Family of 3" in family
    assert "least r 0.50" in family
    assert "b@1 / 3" in family
    assert "c@2 / 7 far away" in family, "a member of a space that is not shown"
    assert tab.inner_text("section[aria-label=Family] .auto") == "far away", "an automatic label"
    effects = tab.inner_text("section[aria-label='Effects on the next token']")
    for text in ("0.25", "up", "down", "<b>"):
        assert text in effects
    options = tab.locator("#colour option").all_inner_texts()
    assert {"label", "family", "size of its family", "category"} <= set(options)
    height = tab.locator(".controls").bounding_box()["height"]
    for colour in ("category", "label", "members", "family"):
        tab.select_option("#colour", colour)
        settled(tab)
        assert tab.locator(".controls").bounding_box()["height"] == height, "names of colours move nothing"
    assert tab.inner_text("#legend").split("\n")[0] == "label 1 (3)", "the largest family first"
    tab.fill("#search", "label 7")
    tab.wait_for_function("location.hash.includes('q=label')")
    assert listed(tab) == ["7"]


@browser_only
def test_without_webgl_the_list_is_there(open_page: Open):
    tab = open_page()
    assert tab.locator("#no-maps").is_visible()
    assert count(tab)[0] == FEATURES


@browser_only
def test_everything_has_a_name(open_page: Open):
    """For screen readers: controls, images and regions."""
    tab = open_page("#a@0/2")
    nameless = tab.evaluate(
        """() => [...document.querySelectorAll('button, input, select, [role=img], [role=grid], dialog')]
            .filter((e) => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim()))
            .map((e) => e.outerHTML.slice(0, 100))"""
    )
    assert nameless == []
    tab.keyboard.press("j")
    tab.wait_for_function("document.querySelector('#said').textContent.startsWith('a@0 feature')")
    assert tab.get_attribute("#rows", "aria-activedescendant")
    assert int(tab.get_attribute("#rows", "aria-rowcount")) == FEATURES + 1
