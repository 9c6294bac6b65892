"""What there is of the edge on this host: units, HAProxy, addresses, configurations, certificates. Reads only.

Nothing secret leaves: of keys and passwords only digests and permissions.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import ssl
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import generations
from ansible_collections.modelyard.fleet.plugins.module_utils.generations import ended
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.command import run
from ansible_collections.modelyard.fleet.plugins.module_utils.probe import request
from ansible_collections.modelyard.fleet.plugins.module_utils.security.machine import listening_of, mode_of

UP, DOWN, UNKNOWN = "up", "down", "unknown"
PARTS = ("haproxy", "keepalived")
# what may be shown; everything else of a configuration is a key or a password
_SHOWN = ("haproxy.cfg", "keepalived.conf", "check-haproxy")
_PROPERTIES = "Id,LoadState,ActiveState,UnitFileState,MainPID"
_STATUS = re.compile(
    r'^haproxy_server_status\{proxy="proxies",server="(?P<name>[^"]+)",state="(?P<state>[A-Z]+)"\} 1(?:\.0*)?$',
    re.MULTILINE,
)  # fmt: skip
_STATES = {"UP": "up", "NOLB": "up", "DRAIN": "draining", "MAINT": "maintenance", "DOWN": "down"}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSIONS = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def units(names: Mapping[str, str], timeout_s: int) -> tuple[dict[str, dict[str, Any]], str]:
    """Of each unit (by what it is for) ``load``, ``active``, ``enabled`` and ``pid``; else why nothing is known."""
    command = ["systemctl", "show", f"--property={_PROPERTIES}", *names.values()]
    code, out, error = run(command, timeout_s)
    if code != 0:
        return {}, f"systemctl: {' '.join(error.split()) or f'exit status {code}'}"
    by_name = {}
    for block in out.strip().split("\n\n"):
        pairs = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        by_name[pairs.get("Id", "")] = {
            "load": pairs.get("LoadState", UNKNOWN),
            "active": pairs.get("ActiveState", UNKNOWN),
            "enabled": pairs.get("UnitFileState", "") or "not there",
            "pid": int(pairs.get("MainPID") or 0),
        }
    return {key: by_name[name] for key, name in names.items() if name in by_name}, ""


def haproxy(local_port: int, timeout_s: float) -> dict[str, Any]:
    """``state``, ``reason``, the ``generation`` in force and the state of each of the ``proxies`` as HAProxy has it."""
    found: dict[str, Any] = {"state": DOWN, "reason": "", "generation": None, "proxies": {}}
    base = f"http://127.0.0.1:{local_port}"
    try:
        status, _ = request(f"{base}/live", None, timeout_s)
        if status != 200:
            return found | {"reason": f"{base}/live answered {status}"}
        _, number = request(f"{base}/generation", None, timeout_s)
        _, metrics = request(f"{base}/metrics", None, timeout_s)
    except (OSError, http.client.HTTPException) as error:
        return found | {"reason": f"{base}: {getattr(error, 'reason', error)}"}
    text = number.decode("ascii", "replace").strip()
    return found | {
        "state": UP,
        "generation": int(text) if text.isdecimal() else None,
        "proxies": {
            match["name"]: _STATES.get(match["state"], UNKNOWN)
            for match in _STATUS.finditer(metrics.decode("utf-8", "replace"))
        },
    }


def addresses(own: str, timeout_s: int) -> dict[str, Any]:
    """``here``: every address of this host; ``interface``: the one that has its own; ``reason``: why that is unknown."""
    code, out, error = run(["ip", "-json", "address", "show"], timeout_s)
    try:
        if code != 0:
            raise ValueError(error or f"exit status {code}")
        links = json.loads(out)
        here = {
            str(one["local"]): str(link["ifname"])
            for link in links
            for one in link.get("addr_info") or ()
            if one.get("local")
        }
    except (ValueError, KeyError, TypeError) as wrong:
        return {"here": None, "interface": "", "reason": f"ip address: {wrong}"}
    return {"here": sorted(here), "interface": here.get(own, ""), "reason": ""}


def configuration(root: Path) -> dict[str, Any]:
    """The current generation: its ``number`` and the ``good`` one's, ``texts`` that may be shown, ``digests`` of every
    file, what is ``open`` to others than its owner, and the certificates' public halves.
    """
    number = generations.number_of(root, generations.CURRENT)
    found: dict[str, Any] = {
        "number": number, "good": generations.number_of(root, generations.GOOD), "texts": {}, "digests": {}, "open": [],
        "certificates": {}, "problem": "",
    }  # fmt: skip
    try:
        # one that may not be looked into is not missing
        list(root.iterdir())
        files = generations.contents(root, generations.CURRENT) or {}
        place = (root / generations.CURRENT).resolve()
        for path in (root, place, *sorted(place.rglob("*"))) if files else ():
            mode = mode_of(path)
            if mode is not None and int(mode, 8) & 0o077:
                found["open"].append({"path": str(path), "mode": mode})
    except FileNotFoundError:
        return found
    except OSError as error:
        return found | {"problem": str(error)}
    for name, data in files.items():
        found["digests"][name] = hashlib.sha256(data).hexdigest()
        if name in _SHOWN:
            found["texts"][name] = data.decode("utf-8", "replace")
        if name.startswith("certificates/"):
            first = _CERTIFICATE.search(data.decode("utf-8", "replace"))
            found["certificates"][name] = first[0] if first else ""
    return found


def gathered(wanted: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Files of a configuration that are made of files on the host: the ``digest`` they would have, or the ``problem``."""
    found = {}
    for name, paths in wanted.items():
        try:
            data = b"".join(ended(Path(path).read_bytes()) for path in paths)
            found[name] = {"digest": hashlib.sha256(data).hexdigest(), "problem": ""}
        except OSError as error:
            found[name] = {"digest": "", "problem": str(error)}
    return found


def unit_files(names: Iterable[str], folder: Path = Path("/etc/systemd/system")) -> dict[str, str | None]:
    """The text of each unit's file; None where there is none. Raises ``OSError``."""
    found: dict[str, str | None] = {}
    for name in names:
        path = folder / name
        found[name] = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
    return found


def sockets(proc: Path, pid: int) -> list[dict[str, Any]]:
    """``address`` and ``port`` of what a program and the processes that it has started listen on. Raises ``OSError``."""
    list((proc / str(pid) / "fd").iterdir())  # who may not see its sockets sees everybody's below
    children = [str(pid)]
    for entry in proc.iterdir():
        try:
            if entry.name.isdecimal() and _parent(entry) == pid:
                children.append(entry.name)
        except OSError:
            continue  # it ended while we looked
    found = {one for child in children for one in listening_of(proc, child)}
    return [{"address": address, "port": port} for address, port in sorted(found)]


def _parent(process: Path) -> int:
    # after the name, which may hold anything, in its brackets: state and parent
    return int((process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])


def older_tls(address: str, port: int, minimum: str, timeout_s: float) -> dict[str, str]:
    """Whether TLS older than ``minimum`` (``TLSv1.2``, ``TLSv1.3``) is spoken at an address.

    ``state``: ``refused``, ``closed`` (nobody listens), ``accepted`` (with its ``version``) or ``unknown`` (with
    the ``reason``).
    """
    oldest = {"TLSv1.2": 2, "TLSv1.3": 3}.get(minimum, 2)
    with warnings.catch_warnings():
        # that these versions are no good is what this is about
        warnings.simplefilter("ignore", DeprecationWarning)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            # what this system would not speak by itself
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = _VERSIONS[0]
            context.maximum_version = _VERSIONS[oldest - 1]
        except (ssl.SSLError, ValueError) as error:
            return {"state": UNKNOWN, "version": "", "reason": f"this host's TLS does not speak it: {error}"}
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as plain:
            spoken = context.wrap_socket(plain)
            version = str(spoken.version())
            spoken.close()
            return {"state": "accepted", "version": version, "reason": ""}
    except ssl.SSLError as error:
        # an alert is the other side's answer; anything else may be this side's own fault
        if "ALERT" in str(error.reason or "").upper():
            return {"state": "refused", "version": "", "reason": ""}
        return {"state": UNKNOWN, "version": "", "reason": str(error)}
    except ConnectionRefusedError as error:
        return {"state": "closed", "version": "", "reason": str(error)}
    except OSError as error:
        return {"state": UNKNOWN, "version": "", "reason": str(error)}
