"""Build a release and check it: `python scripts/release.py [--python python3.12 ...]`.

Builds the sdist and the wheel of unifeat and the wheel of its demo's SAEs into dist/, checks them with twine, and
installs the wheel in a clean environment of each Python named (by default this one), where it must import, answer
`--help`, `doctor` and a small comparison. Prints the commands that tag and upload; it does neither.

Needs: pip install build twine
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
_MOST_BYTES = 5_000_000
_SMALL = """
import numpy as np, unifeat as uf
rng = np.random.default_rng(0)
codes = rng.random((900, 12)) * (rng.random((900, 12)) < 0.2)
spaces = [uf.space(codes=uf.Codes(codes, np.repeat(np.arange(9), 100)), decoder=np.eye(12)) for _ in range(2)]
run = uf.compare(spaces, matching={"min_count": 5}, inference={"permutations": 5, "bootstraps": 5})
assert len(run.pairs.query("kept")) == 12, run
print(run)
"""


def call(*command: object, cwd: Path = ROOT) -> None:
    """Run a command; stop if it fails."""
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def version() -> str:
    """The version, which is written in four places that must agree."""
    places = {
        "pyproject.toml": r'^version = "([^"]+)"',
        "src/unifeat/__init__.py": r'^__version__ = "([^"]+)"',
        "CITATION.cff": r"^version: (\S+)",
        "CHANGELOG.md": r"^## (\d+\.\d+\.\d+)",
    }
    found = {}
    for name, pattern in places.items():
        match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.M)
        found[name] = match[1] if match else "none"
    if len(set(found.values())) != 1:
        sys.exit(f"the version is not the same everywhere: {found}")
    return next(iter(found.values()))


def build() -> list[Path]:
    """The files of the release."""
    shutil.rmtree(DIST, ignore_errors=True)
    call(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    call(sys.executable, "-m", "build", "--wheel", "--outdir", DIST, ROOT / "packages" / "demo-saes")
    files = sorted(DIST.iterdir())
    call(sys.executable, "-m", "twine", "check", "--strict", *files)
    (wheel,) = DIST.glob("unifeat-*.whl")
    if wheel.stat().st_size >= _MOST_BYTES:
        sys.exit(f"{wheel.name} has {wheel.stat().st_size:,} bytes: what has come in?")
    return files


def check_wheel(python: str) -> None:
    """Install the wheel in a clean environment and use it."""
    (wheel,) = DIST.glob("unifeat-*.whl")
    with tempfile.TemporaryDirectory() as folder:
        call(python, "-m", "venv", Path(folder) / "env")
        inside = Path(folder) / "env" / "bin"
        constraints = ROOT / "requirements" / "constraints.txt"
        call(inside / "pip", "install", "--quiet", "-c", constraints, "torch==2.13.0")
        call(inside / "pip", "install", "--quiet", "-c", constraints, wheel)
        call(inside / "unifeat", "--help", cwd=Path(folder))
        call(inside / "unifeat", "doctor", cwd=Path(folder))
        call(inside / "python", "-c", _SMALL, cwd=Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", help="an interpreter to check the wheel with; may be repeated")
    asked = parser.parse_args()
    number = version()
    files = build()
    for python in asked.python or [sys.executable]:
        check_wheel(python)
    print(f"\n{number} is built and checked. To publish it:")
    print(f"  git tag -a v{number} -m 'unifeat {number}' && git push origin v{number}")
    print(f"  {sys.executable} -m twine upload {' '.join(str(path.relative_to(ROOT)) for path in files)}")


if __name__ == "__main__":
    main()
