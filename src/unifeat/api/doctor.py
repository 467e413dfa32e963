"""What this machine has for unifeat, and what would be faster: `unifeat doctor`. Nothing is started or downloaded."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import psutil

from unifeat import __version__
from unifeat.demo.packages import missing
from unifeat.memory import free_memory
from unifeat.report.terminal_doctor import Finding
from unifeat.report.terminal_plan import size
from unifeat.store import cache_root
from unifeat.store.usage import contents
from unifeat.threads import cores

_LITTLE_MEMORY, _LITTLE_DISK = 8e9, 20e9
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_VERSIONS = ("torch", "transformers", "sae-lens", "numpy", "numba")


def examine() -> list[Finding]:
    """Look at everything."""
    return [_versions(), _cores(), _memory(), _gpu(), _ray(), _cache(), _disk(), _hub(), _figures(), _demo()]


def _versions() -> Finding:
    found = [f"unifeat {__version__}"]  # (the metadata of an editable install may be of an older one)
    for name in _VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return Finding("versions", f"python {platform.python_version()}, {', '.join(found)}")


def _cores() -> Finding:
    usable, all_cores = cores(), os.cpu_count() or 1
    found = f"{usable} usable of {all_cores}" if usable < all_cores else f"{usable}"
    limited = [name for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ]
    advice = f"{limited[0]}={os.environ[limited[0]]} limits them" if limited else ""
    return Finding("cores", found, advice)


def _memory() -> Finding:
    free = free_memory()
    advice = "" if free >= _LITTLE_MEMORY else "little for models above 1B parameters: dtype: bfloat16 takes half"
    return Finding("memory", f"{size(free)} free of {size(psutil.virtual_memory().total)}", advice)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else " (this torch is built without CUDA)"
        return Finding("GPU", f"none{built}", "models run on the CPU; `unifeat plan` says what a GPU would save")
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    free = torch.cuda.mem_get_info()[0]
    advice = "matching: {device: cuda} correlates there, too"
    return Finding("GPU", f"{', '.join(names)}; {size(free)} free on the first", advice)


def _ray() -> Finding:
    if importlib.util.find_spec("ray") is None:
        return Finding("Ray", "not installed", 'pip install "unifeat[ray]" to run on several machines (docs/scale.md)')
    address = os.environ.get("RAY_ADDRESS")
    return Finding("Ray", f"{version('ray')}, {f'RAY_ADDRESS={address}' if address else 'no cluster named'}")


def _cache() -> Finding:
    root = cache_root()
    held = contents(root) if root.exists() else []
    held_bytes = sum(one.size for one in held)
    where = "UNIFEAT_CACHE" if "UNIFEAT_CACHE" in os.environ else "the default place"
    return Finding("cache", f"{root} ({where}): {size(held_bytes)} in {len(held):,} pieces")


def _disk() -> Finding:
    folder = cache_root()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    advice = "" if free >= _LITTLE_DISK else "little: `unifeat cache prune --unused` removes what no kept run uses"
    return Finding("disk", f"{size(free)} free where the cache is", advice)


def _hub() -> Finding:
    offline = [
        name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name) in ("1", "true", "ON")
    ]
    found = f"offline ({offline[0]} is set)" if offline else "models and SAEs may be downloaded"
    token = "a token is set" if os.environ.get("HF_TOKEN") else "no HF_TOKEN, which gated models need"
    return Finding("model hub", f"{found}; {token}")


def _figures() -> Finding:
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    kaleido = importlib.util.find_spec("kaleido") is not None
    advice = []
    if not kaleido:
        advice.append('pip install "unifeat[figures]"')
    if browser is None:
        advice.append("install Chromium")
    what = "to save figures as pictures (as pages they need neither)"
    found = f"{'kaleido' if kaleido else 'no kaleido'}, {browser or 'no browser'}"
    return Finding("pictures", found, f"{' and '.join(advice)} {what}" if advice else "")


def _demo() -> Finding:
    lacking = missing()
    if not lacking:
        return Finding("demo", "its packages are installed")
    return Finding("demo", f"{len(lacking)} packages missing", "`unifeat demo --install` installs them")
