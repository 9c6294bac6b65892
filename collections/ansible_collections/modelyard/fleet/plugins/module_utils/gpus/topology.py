"""How GPUs are joined: ``nvidia-smi topo -m``, ``amd-smi topology --json``, ``rocm-smi --showtopotype --json``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_GPU = re.compile(r"^GPU([0-9]{1,4})$")
_KIND = re.compile(r"^(?:NV[0-9]{1,3}|C2C|PIX|PXB|PHB|NODE|SYS)$")
_PAIR = re.compile(
    r"^\(Topology\) Link type between DRM devices ([0-9]{1,4}) and ([0-9]{1,4})$", re.IGNORECASE
)

Link = dict[str, Any]


def parse_nvidia(text: str) -> tuple[list[Link], dict[int, int], str]:
    """Links between GPUs, NUMA node by GPU index, and a sentence when there is no matrix.

    Kinds are nvidia-smi's: ``NV#`` over so many NVLinks, ``PIX`` through one PCIe bridge, ``PXB`` through several,
    ``PHB`` through the host bridge, ``NODE`` within a NUMA node, ``SYS`` between them. Other devices' rows and columns
    (network cards) are left out.
    """
    columns: list[str] = []
    links: list[Link] = []
    nodes: dict[int, int] = {}
    width, affinity = 0, False
    for line in _ANSI.sub("", text).splitlines():
        cells = line.split()
        if not columns:
            if (
                cells
                and _GPU.match(cells[0])
                and all(not _KIND.match(cell) and cell != "X" for cell in cells)
            ):
                columns = cells[: cells.index("CPU")] if "CPU" in cells else cells
                width = len(columns)
                affinity = "NUMA" in cells
            continue
        own = _GPU.match(cells[0]) if cells else None
        if not own or len(cells) < 1 + width:
            continue
        row = int(own.group(1))
        for name, kind in zip(columns, cells[1:]):  # noqa: B905 - the rest of the line is affinities
            other = _GPU.match(name)
            if other and int(other.group(1)) > row and _KIND.match(kind):
                links.append({"gpus": [row, int(other.group(1))], "kind": kind})
        rest = cells[1 + width :]
        if affinity and len(rest) > 1 and re.match(r"^[0-9]{1,4}$", rest[1]):
            nodes[row] = int(rest[1])
    return links, nodes, "" if columns else "nvidia-smi printed no matrix of links"


def parse_amd(value: Any) -> tuple[list[Link], str]:
    """Links from amd-smi's JSON (ROCm 6.2 and later): a list of GPUs, each with its ``links``, in any order."""
    links = []
    for item in value if isinstance(value, list) else []:
        if not isinstance(item, dict) or not isinstance(item.get("links"), list):
            continue
        for link in item["links"]:
            if not isinstance(link, dict):
                continue
            one: Any = item.get("gpu")
            other: Any = link.get("gpu")
            kind = str(link.get("link_type", "")).upper()
            if _is_index(one) and _is_index(other) and one < other and kind in ("XGMI", "PCIE"):
                links.append({"gpus": [one, other], "kind": kind})
    return links, "" if links else "amd-smi told no links"


def parse_rocm(system: Any) -> tuple[list[Link], str]:
    """Links from the part ``system`` of rocm-smi's JSON: one key for each pair, the upper triangle only."""
    links = []
    for key, kind in sorted(system.items()) if isinstance(system, dict) else []:
        found = _PAIR.match(str(key))
        if found and str(kind).upper() in ("XGMI", "PCIE"):
            links.append({"gpus": sorted(map(int, found.groups())), "kind": str(kind).upper()})
    return links, "" if links else "rocm-smi told no links"


def groups(vendor: str, links: Iterable[Link], nodes: dict[int, int]) -> list[dict[str, Any]]:
    """Sets of GPUs that belong together, by index: ``nvlink`` or ``xgmi``, ``pcie_switch``, and ``numa`` with its node."""
    found: list[dict[str, Any]] = []
    kinds = {
        "nvlink": [link["gpus"] for link in links if link["kind"].startswith("NV")],
        "xgmi": [link["gpus"] for link in links if link["kind"] == "XGMI"],
        "pcie_switch": [link["gpus"] for link in links if link["kind"] in ("PIX", "PXB")],
    }
    for kind, pairs in kinds.items():
        found += [{"vendor": vendor, "kind": kind, "gpus": gpus, "node": None} for gpus in joined(pairs)]
    for node in sorted(set(nodes.values())):
        gpus = sorted(index for index, own in nodes.items() if own == node)
        found.append({"vendor": vendor, "kind": "numa", "gpus": gpus, "node": node})
    return found


def joined(pairs: Iterable[list[int]]) -> list[list[int]]:
    """The connected sets of a graph, each sorted."""
    sets: list[set[int]] = []
    for pair in pairs:
        touching = [one for one in sets if one & set(pair)]
        sets = [one for one in sets if not one & set(pair)] + [set(pair).union(*touching)]
    return sorted(sorted(one) for one in sets)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10_000
