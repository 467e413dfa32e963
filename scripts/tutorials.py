"""Execute the tutorials and keep their outputs: `python scripts/tutorials.py [--check] [NAME ...]`.

With --check they are executed in a copy, and nothing is written. They use the demo's models (`unifeat demo --install`).
Needs requirements/docs.txt, and kaleido with Chromium for the pictures of figures.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
_SECONDS = 1200  # for one cell


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Execute a notebook in a folder. Raises what a cell raises."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


def tidied(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """A notebook without what differs from machine to machine: paths, progress, counts of seconds."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        cell.outputs = [out for out in cell.outputs if not (out.output_type == "stream" and out.name == "stderr")]
        for out in cell.outputs:
            out.pop("metadata", None)
            out.metadata = {} if out.output_type != "stream" else None
            if out.output_type == "stream":
                out.pop("metadata")
                out.text = _without_paths(out.text, folder)
            for kind in ("text/plain", "text/html"):
                if kind in out.get("data", {}):
                    out.data[kind] = _without_paths(out.data[kind], folder)
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def _without_paths(text: str, folder: Path) -> str:
    text = text.replace(str(folder) + "/", "").replace(str(folder), "")
    cache = os.environ.get("UNIFEAT_CACHE")  # (if it is not set, no text has it)
    return re.sub(r"/[\w./@-]+/(?=[\w.-]+)", "…/", text) if cache and cache in text else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("PLOTLY_RENDERER", "png")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    paths = [TUTORIALS / f"{name}.ipynb" for name in asked.names] or sorted(TUTORIALS.glob("*.ipynb"))
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            notebook = tidied(execute(path, Path(folder)), Path(folder))
        if not asked.check:
            nbformat.write(notebook, path)
        print(path.stem, file=sys.stderr)


if __name__ == "__main__":
    main()
