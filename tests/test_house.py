"""The house: a room imports only from itself and from the rooms below it, and no two modules need each other."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

import unifeat

SRC = Path(unifeat.__file__).parent
# From the ground up. A module of the package itself (errors, cli …) is a room of its own.
FLOORS = (
    *("errors", "progress", "threads", "memory", "devices", "store", "vocabulary", "study", "engine", "geometry"),
    *("inference", "correlation", "text", "models", "saes", "codes", "matching", "multiway", "subspaces", "labels"),
    *("transfer", "synthetic", "published", "runs", "report", "pipeline", "explorer", "demo", "api", "cli"),
)
PURE = {"geometry", "inference", "correlation"}  # functions on arrays, which know nothing of a study or of the disk
UNKNOWN_TO_PURE = {"store", "study", "text", "models", "saes", "codes"}


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(SRC.rglob("*.py"))}


def room(module: str) -> str:
    """The room of a module; an empty text for the package's own `__init__`, which only passes on."""
    return module.split(".")[1] if "." in module else ""


def imported(path: Path, source: str | None = None) -> set[str]:
    """Every module of unifeat that a module names in an import: anywhere in it, in functions and for types only too."""
    module = name_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source if source is not None else path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner != "unifeat.__version__":  # the package's own word, which costs no import
                    found.add(inner if inner in MODULES else base)
    return {name for name in found if name == "unifeat" or name.startswith("unifeat.")}


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports."""
    return {name: imported(path) for name, path in MODULES.items()}


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in MODULES} - {""} == set(FLOORS)
    for path in SRC.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert (path / "__init__.py").is_file(), f"{path.name} is no package"


def test_what_is_imported_is_there() -> None:
    unknown = {(name, other) for name, others in imports().items() for other in others if other not in MODULES}
    assert not unknown


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    if module == "unifeat":
        return
    own = FLOORS.index(room(module))
    for other in imports()[module]:
        assert other != "unifeat", f"{module} imports the package itself: import from the module that has it"
        assert FLOORS.index(room(other)) <= own, f"{module} imports {other}, which lies above it"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in PURE])
def test_pure_rooms_know_neither_disk_nor_study(module: str) -> None:
    assert not {other for other in imports()[module] if room(other) in UNKNOWN_TO_PURE}


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Modules that need each other in a circle, or an empty list."""
    done: set[str] = set()
    way: list[str] = []

    def visit(module: str) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        way.append(module)
        for other in sorted(graph.get(module, ())):
            if circle := visit(other):
                return circle
        way.pop()
        done.add(module)
        return []

    for module in graph:
        if circle := visit(module):
            return circle
    return []


def test_no_module_needs_itself_by_a_round_way() -> None:
    """For types only, or inside a function, a circle runs; but who reads one of the modules must read them all."""
    # (A room's `__init__` gathers its modules for those outside; within the room it is not imported, see above.)
    assert circle_in(imports()) == []


def test_rooms_do_not_import_their_own_front_door() -> None:
    """Within a room, modules import each other, not the `__init__` that gathers them."""
    for module, others in imports().items():
        front = f"unifeat.{room(module)}"
        if module != front and room(module):
            assert front not in others or MODULES.get(front, Path()).name != "__init__.py", module


def test_what_tests_read_is_in_the_sdist() -> None:
    """Tests are part of the source distribution, and so are the folders and files beside them that they open."""
    root = Path(__file__).parents[1]
    included = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    sources = [path.read_text(encoding="utf-8") for path in (root / "tests").rglob("*.py")]
    read = {name for source in sources for name in re.findall(r'(?:ROOT|parents\[\d\]) / "([\w.]+)"', source)}
    assert {"examples", "scripts", "docs"} <= read
    assert read - {"shared"} <= {*included["include"], "pyproject.toml"}


class TestTheTestItself:
    """It sees what it should: imports in functions, for types, relative ones, modules named as attributes."""

    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("import unifeat.saes.load", "unifeat.saes.load"),
            ("from unifeat.saes import load", "unifeat.saes.load"),
            ("from unifeat.saes.load import load_sae", "unifeat.saes.load"),
            ("def f():\n    from unifeat.cli import main", "unifeat.cli"),
            ("if TYPE_CHECKING:\n    from unifeat import cli", "unifeat.cli"),
            ("from . import keys", "unifeat.store.keys"),
            ("from .keys import key_of", "unifeat.store.keys"),
            ("from .. import progress", "unifeat.progress"),
            ("from ..saes.load import load_sae", "unifeat.saes.load"),
            ("from unifeat import load_sae", "unifeat"),
            ("import unifeat", "unifeat"),
        ],
    )
    def test_imports_are_seen(self, source: str, found: str) -> None:
        assert imported(SRC / "store" / "pieces.py", source) == {found}

    def test_others_are_not(self) -> None:
        source = "import numpy, unifeatures\nfrom unifeat import __version__"
        assert imported(SRC / "store" / "pieces.py", source) == set()

    def test_circles_are_seen(self) -> None:
        assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
        assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
