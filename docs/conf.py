"""The documentation's site: `make docs`. Strict, without any request to a network, and readable without one."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generated_pages import MADE
from unifeat import __version__

HERE = Path(__file__).parent
for name, make in MADE.items():
    text, page = make(), HERE / name
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")

project, author, release = "unifeat", "the unifeat authors", __version__
copyright = author
extensions = ["myst_nb", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["site", "**/.ipynb_checkpoints", "jupyter_execute"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "misc.highlighting_failure"]
nb_execution_mode = "off"  # the tutorials are executed by scripts/tutorials.py, and their outputs are kept
html_theme = "pydata_sphinx_theme"
html_title = "unifeat"
html_static_path: list[str] = []
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 6,
}
