"""The codes of weaknesses, each with its sentence and what to do. Codes are stable: programs may rely on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Finding = dict[str, Any]
"""``severity``, ``code``, ``host``, ``subject`` (container, file, port ...), ``what`` and ``todo``."""

FINDING = "finding"
UNKNOWN = "unknown"

HOST = "host-unknown"

CODES: Mapping[str, tuple[str, str]] = {
    HOST: (
        "Nothing is known of this host.",
        "Make it answer, and look again.",
    ),
    "engine-port-everywhere": (
        "The engine's port {port} is open on every address of the host, not only on the one that proxies use.",
        "Publish it on fleet_address, as a deploy does; playbooks/hardening.yml closes it meanwhile.",
    ),
    "engine-port-reachable": (
        "The engine's port {port} answers to {source}, which is neither a proxy nor monitoring.",
        "Run playbooks/hardening.yml, or add that machine to fleet_engine_access.",
    ),
    "proxy-port-reachable": (
        "The proxy's port {port} answers to {source}, neither an edge host nor monitoring: one can go past the edge.",
        "Run playbooks/hardening.yml, or add that machine to fleet_proxy_access.",
    ),
    "edge-listens-wider": (
        "HAProxy listens on {addresses}, which the inventory does not declare: what comes there may not be encrypted.",
        "Run playbooks/edge.yml, which brings it back to what the inventory says.",
    ),
    "edge-old-tls": (
        "The edge speaks {version} with clients that ask for it; the oldest declared is {minimum}.",
        "Run playbooks/edge.yml, which brings it back to what the inventory says (edge_tls_minimum).",
    ),
    "edge-socket-open": (
        "The socket for commands to HAProxy has the mode {mode}: others than root can change what it does.",
        "chmod 0600, and look for what changed it; playbooks/edge.yml and a restart of the unit make it anew.",
    ),
    "container-privileged": (
        "The container is privileged: whoever breaks out of its engine has the host.",
        "Start it without --privileged; GPUs need no more than device requests or CDI.",
    ),
    "container-capabilities": (
        "The container has capabilities that engines do without: {names}.",
        "Start it without --cap-add.",
    ),
    "docker-socket-in-container": (
        "Docker's socket is mounted into the container, which makes it root on the host.",
        "Remove the mount; what must see containers gets a proxy of the socket that only reads.",
    ),
    "container-root": (
        "The container's processes run as root.",
        "Set fleet_container_user (a deploy applies it), or start it with --user.",
    ),
    "root-writable": (
        "The container's root file system can be written to, and its engine {engine} needs no such thing.",
        "Set fleet_container_read_only: true and deploy; start others with --read-only and a tmpfs at /tmp.",
    ),
    "new-privileges": (
        "Processes in the container may gain privileges (set-user-id programs work).",
        "Start it with --security-opt no-new-privileges, as a deploy does.",
    ),
    "secret-in-arguments": (
        "A secret stands on the engine's command line ({names}), where every user of the host and every log can see it.",
        "Move it to env of the model (from the vault), and change the secret: it has been seen.",
    ),
    "docker-api-open": (
        "Docker's API listens on {addresses} and asks nobody for a certificate: whoever reaches it is root.",
        "Remove the tcp:// host from daemon.json or the unit and use SSH, or set tlsverify with certificates.",
    ),
    "docker-socket-open": (
        "Docker's socket has the mode {mode}: every user of the host is root.",
        "chmod 0660, owner root, group docker; look for what changed it (SocketMode of docker.socket).",
    ),
    "secret-file-open": (
        "The file has the mode {mode}, and what is in it is secret ({holds}).",
        "chmod {wanted}, and change the secrets: others may have read them.",
    ),
    "admin-key-weak": (
        "The proxy's management key {weakness}.",
        "Make one with `openssl rand -hex 32`, and restart the proxy.",
    ),
    "admin-key-file-open": (
        "The file with the proxy's management key has the mode {mode}: others can read it.",
        "chmod 0640 (group: the proxy's), and make a new key with `openssl rand -hex 32`.",
    ),
    "firewall-missing": (
        "The ports of the engines were closed here, and the table inet modelyard is not in force any more.",
        "systemctl restart modelyard-firewall, then find out what flushed it; playbooks/hardening.yml puts it back too.",
    ),
    "firewall-changed": (
        "The table inet modelyard in force is not what its file says: somebody changed it by hand.",
        "Run playbooks/hardening.yml, which brings it back to what the inventory says.",
    ),
    "engine-upgrades-itself": (
        "{how} may upgrade {names} unasked, which restarts the container engine and every model on it.",
        "apt-mark hold {names}, or name them in its blacklist (dnf: exclude); upgrade them host by host, drained.",
    ),
}


def finding(code: str, host: str, subject: str, **values: Any) -> Finding:
    """A weakness that was seen."""
    what, todo = (text.format(**values) for text in CODES[code])
    return _made(FINDING, code, host, subject, what, todo)


def unknown(code: str, host: str, subject: str, why: str) -> Finding:
    """Something that nobody could look at."""
    return _made(UNKNOWN, code, host, subject, f"Not known: {why}", CODES[HOST][1])


def _made(severity: str, code: str, host: str, subject: str, what: str, todo: str) -> Finding:
    return {"severity": severity, "code": code, "host": host, "subject": subject, "what": what, "todo": todo}
