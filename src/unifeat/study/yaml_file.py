"""Reading users' YAML files without the surprises of YAML 1.1.

As in YAML 1.2's core schema, `010` is ten, and `1:30`, `no`, `on` and `2024-01-01` are text. Duplicate keys, Python
tags, and aliases or nesting that would exhaust the machine are refused, with their line.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from unifeat.errors import UserError
from unifeat.store.machine import machine_error

MOST_BYTES = 10_000_000
_MOST_LEVELS = 50  # nested lists and maps; a study has seven levels
_MOST_ALIAS_ENTRIES = 100_000  # entries that aliases may add to those written
_MOST_DIGITS = 400  # Python refuses numbers of several thousand digits

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
# YAML 1.2 does not allow underscores between digits, but 1_000_000 can only be a number.
_INT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_CORE = {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT}


def read_yaml(path: Path, what: str) -> Any:
    """The data in a YAML file (or a JSON file, which is YAML too).

    Args:
        what: what messages call the file: "study runs/x.yaml".

    Raises:
        UserError: no such file, not a regular file, unreadable, larger than 10 MB or not UTF-8; and as `parse_yaml`.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):  # reading a pipe would wait for input
            it_is = "it is a folder" if stat.S_ISDIR(kind) else "it is not a regular file: save it as one"
            raise UserError(f"{what}: no such file ({it_is})")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(f"{what}: no such file") from error
    except OSError as error:
        raise machine_error(error, what) or UserError(f"{what} cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{what} is larger than {MOST_BYTES // 1_000_000} MB: is it the right file?")
    try:
        return parse_yaml(content.decode("utf-8-sig"), what)
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 (byte {error.start}): convert it first") from error


def parse_yaml(text: str, what: str) -> Any:
    """The data in a YAML text: dicts, lists, str, int, float, bool and None.

    Raises:
        UserError: not YAML, a key given twice, a tag of another type, nested too deep, or too many aliases. The message
            names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        told = "" if isinstance(error, _RefusedError) else "not valid YAML "
        problem = " ".join(problem.split())
        hint = _hint(text, mark.line) if mark and told else ""
        raise UserError(f"{what}{where}: {told}" + (f"({problem}){hint}" if told else problem)) from error
    except (ValueError, OverflowError) as error:  # an escape such as "\U00110000"
        raise UserError(f"{what}: not valid YAML ({error})") from error


def _hint(text: str, number: int) -> str:
    """What is probably wrong in a line; empty if that cannot be told."""
    lines = text.splitlines()
    line = lines[number] if number < len(lines) else ""
    bare = re.search(r"[^\s\"'{,:]*\{layer\}[^\s\"',}]*", re.sub(r"\"[^\"]*\"|'[^']*'", "", line))
    return f': put a name with {{layer}} in quotes there, "{bare[0]}"' if bare else ""


def dump_yaml(data: Any) -> str:
    """Data as YAML that this module and YAML 1.1 readers read in the same way."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _RefusedError(ConstructorError):
    """Valid YAML that is refused here."""

    def __init__(self, problem: str, node: Node) -> None:
        super().__init__(None, None, problem, node.start_mark)


class _Loader(yaml.SafeLoader):
    yaml_constructors: ClassVar[dict[Any, Any]] = {None: yaml.SafeLoader.construct_undefined}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > _MOST_LEVELS:
            event = self.peek_event()
            raise _RefusedError(f"nested more than {_MOST_LEVELS} deep", ScalarNode("", "", event.start_mark))
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> Node | None:
        node = super().get_single_node()
        if node is not None:
            _check_aliases(node)
        return node

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, MappingNode):
            raise ConstructorError(None, None, "expected keys with values", node.start_mark)
        mapping: dict[Any, Any] = {}
        first: dict[Any, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise ConstructorError(None, None, "a key is a list or a map", key_node.start_mark)
            key = self.construct_object(key_node, deep=deep)
            if key in first:
                raise _RefusedError(
                    f"the key {key!r} is given a second time (first in line {first[key]}): drop one", key_node
                )
            first[key] = key_node.start_mark.line + 1
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def _check_aliases(root: Node) -> None:
    """Refuse aliases that contain themselves, and aliases of aliases that expand to too many entries."""
    measured: dict[int, tuple[int, int]] = {}  # by node: number of entries with aliases expanded, and depth
    under_way: set[int] = set()
    written = 0

    def measure(node: Node) -> tuple[int, int]:
        nonlocal written
        if not isinstance(node, CollectionNode):
            return 1, 0
        if id(node) in under_way:
            raise _RefusedError("an alias refers to something that contains it", node)
        if id(node) not in measured:
            under_way.add(id(node))
            parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
            written += len(parts) + 1
            inside = [measure(part) for part in parts]
            depth = 1 + max((deep for _, deep in inside), default=0)
            if depth > _MOST_LEVELS:
                raise _RefusedError(f"nested more than {_MOST_LEVELS} deep", node)
            measured[id(node)] = 1 + sum(entries for entries, _ in inside), depth
            under_way.remove(id(node))
        return measured[id(node)]

    entries, _ = measure(root)
    if entries > written + _MOST_ALIAS_ENTRIES:
        raise _RefusedError(f"its aliases expand to more than {_MOST_ALIAS_ENTRIES:,} entries", root)


def _null(loader: _Loader, node: Node) -> None:
    _scalar(loader, node, "null")


def _bool(loader: _Loader, node: Node) -> bool:
    return _scalar(loader, node, "bool").lower() == "true"


def _int(loader: _Loader, node: Node) -> int:
    text = _scalar(loader, node, "int").replace("_", "")
    if len(text) > _MOST_DIGITS:
        raise _RefusedError(f"a number of {len(text)} digits", node)
    return int(text, 10 if text[:2] not in ("0x", "0o") else 0)


def _float(loader: _Loader, node: Node) -> float:
    return float(_scalar(loader, node, "float").replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _str(loader: _Loader, node: Node) -> str:
    text = loader.construct_scalar(node)  # type: ignore[arg-type]
    try:
        # JSON writes characters above U+FFFF as two surrogates.
        return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _RefusedError("text with half a character (a lone surrogate)", node) from None


def _scalar(loader: _Loader, node: Node, kind: str) -> str:
    text = loader.construct_scalar(node)  # type: ignore[arg-type]
    if not _CORE[kind].fullmatch(text):
        raise ConstructorError(None, None, f"{text[:40]!r} is not of type {kind}", node.start_mark)
    return text


_Loader.yaml_implicit_resolvers = {}  # otherwise add_implicit_resolver would copy PyYAML's own
for _kind, _pattern in _CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern.pattern})\\Z"), None)
for _kind, _construct in (("null", _null), ("bool", _bool), ("int", _int), ("float", _float), ("str", _str)):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct)
_Loader.yaml_constructors |= {
    f"tag:yaml.org,2002:{_kind}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{_kind}"]
    for _kind in ("seq", "map")
}


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, which also quotes text that only the loader above would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _kind in ("int", "float"):
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_CORE[_kind].pattern})\\Z"), list("-+0123456789.")
    )
