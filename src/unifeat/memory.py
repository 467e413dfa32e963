"""How much memory is free: on this machine, or in the container or job that this process runs in."""

from __future__ import annotations

from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")
_SHARE = 0.6  # of what is free: other programs may want some of the rest


def working_memory() -> float:
    """Bytes that a computation may take without being told how many: 60 % of what is free."""
    return _SHARE * free_memory()


def free_memory() -> float:
    """Bytes that can be had without swapping, within the limit of the control group (Docker, SLURM, Kubernetes)."""
    import psutil

    return float(min([psutil.virtual_memory().available, *_left_in_groups()]))


def _left_in_groups() -> list[int]:
    """What each control group of this process, from the inside out, has left of its limit."""
    try:
        own = next(
            line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"
        )
    except (OSError, StopIteration, IndexError):
        return []
    folder = _GROUP / own.strip("/")
    left = []
    for group in [folder, *folder.parents]:
        if not group.is_relative_to(_GROUP):
            break
        try:
            limit = int((group / "memory.max").read_text())  # "max" where there is none
            used = int((group / "memory.current").read_text())
            facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            left.append(limit - used + int(facts.get("inactive_file", 0)))  # file pages are given back when needed
        except (OSError, ValueError):
            continue
    return left
