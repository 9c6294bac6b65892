"""Two hosts with a proxy and an edge each, two addresses, a hundred streams: what is lost with a proxy, and with a host.

One address stays where it is, the other prefers the second host, so that each host carries half of the streams. The
engines run on the machine that runs the tests, so that nothing but the edge is lost with a host.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from openai import DefaultHttpxClient, OpenAI

from tests.e2e.site import PROXY_PORT, begin
from tests.hosts.inventories import write_inventory
from tests.hosts.lab import Lab
from tests.hosts.machine import Host
from tests.parts import edge_packages, wheelhouse
from tests.parts.docker import docker
from tests.tools.certificates import Authority
from tests.tools.ports import free_range

pytestmark = pytest.mark.timeout(420)

STREAMS = 100
MODEL = "echo"
# nothing that a test waits for may take longer; how long it took is told, not judged
PATIENCE_S = 60
# an engine says something five times a second: who hears nothing for so long is lost
SILENCE_S = 8
DEAD_HOST_S = 3


@dataclass
class Site:
    """Both hosts and their addresses; ``trust`` is what clients check certificates by."""

    alpha: Host
    beta: Host
    staying: str
    preferring: str
    trust: ssl.SSLContext
    inventory: Path

    def play(self, verb: str, *more: str) -> dict[str, Any]:
        """Run a playbook for both hosts, and for the engines where it only looks; its result."""
        result = self.inventory.parent / "result.json"
        result.unlink(missing_ok=True)
        log = self.inventory.parent / f"{verb}.log"
        words = ("-e", f"modelyard_result_file={result}", *more)
        assert begin(verb, self.inventory, log, [], *words).wait(240).status == 0, log.read_text()
        return dict(json.loads(result.read_text())) if result.exists() else {}

    def host(self, name: str) -> Host:
        return {"alpha": self.alpha, "beta": self.beta}[name]

    async def by(self, address: str) -> str:
        """The edge host that answers at an address now; empty where nobody does."""
        timeout = aiohttp.ClientTimeout(total=0.5)
        try:
            # a connection of its own each time: a kept one would be asked for long after its host has died
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"https://{address}/live", ssl=self.trust) as answer,
            ):
                return answer.headers.get("X-Modelyard-Edge", "").partition("/")[0]
        except (aiohttp.ClientError, TimeoutError):
            return ""

    def metric(self, host: Host, name: str) -> float:
        """The sum of one of HAProxy's metrics."""
        text = host.run("curl", "--silent", "--fail", "http://127.0.0.1:8405/metrics")
        return sum(
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith(name + "{") and 'proxy="proxies"' in line
        )


@dataclass
class Stream:
    """One stream: who carries it, and what became of it."""

    address: str
    edge: str = ""
    proxy: str = ""
    pieces: int = 0
    lost: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    answer: aiohttp.ClientResponse | None = None

    async def run(self, session: aiohttp.ClientSession, trust: ssl.SSLContext) -> None:
        """Read until it is cut, falls silent or is cancelled."""
        body = {
            "model": MODEL,
            "stream": True,
            "max_tokens": 3000,
            "messages": [{"role": "user", "content": "and on and on"}],
        }
        try:
            async with session.post(
                f"https://{self.address}/v1/chat/completions", json=body, ssl=trust
            ) as answer:
                self.answer = answer
                answer.raise_for_status()
                self.edge, _, self.proxy = answer.headers["X-Modelyard-Edge"].partition("/")
                async for line in answer.content:
                    if line.startswith(b"data: {"):
                        assert "error" not in json.loads(line[6:]), line
                        self.pieces += 1
                        self.begun.set()
                self.lost = "ended"
        except (aiohttp.ClientError, TimeoutError) as error:
            self.lost = repr(error)
        finally:
            self.begun.set()


class Streams:
    """A hundred of them, half at each address, from entering the context to leaving it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.all = [Stream((site.staying, site.preferring)[number % 2]) for number in range(STREAMS)]

    async def __aenter__(self) -> Streams:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        self._tasks = [asyncio.create_task(one.run(self._session, self.site.trust)) for one in self.all]
        await asyncio.gather(*(one.begun.wait() for one in self.all))
        assert [one.lost for one in self.all if one.lost] == []
        return self

    async def __aexit__(self, *error: object) -> None:
        for one in self.all:
            # without the farewell of TLS, which would outlive the event loop
            connection = one.answer.connection if one.answer else None
            if connection is not None and connection.transport is not None:
                connection.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def exactly_these_are_lost(self, carried: Callable[[Stream], bool]) -> tuple[int, int]:
        """Wait until those are lost, and the others have gone on for longer than silence would be noticed after."""
        doomed = [one for one in self.all if carried(one)]
        others = [one for one in self.all if not carried(one)]
        assert doomed
        assert others
        await until(
            lambda: all(one.lost for one in doomed), lambda: f"{[one for one in doomed if not one.lost]}"
        )
        enough = {id(one): one.pieces + 5 * SILENCE_S for one in others}
        await until(
            lambda: all(one.lost or one.pieces >= enough[id(one)] for one in others), lambda: "silence"
        )
        assert [one for one in others if one.lost] == []
        return len(doomed), len(others)


async def until(condition: Callable[[], bool], why: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, why()
        await asyncio.sleep(0.1)


def inventory(directory: Path, lab: Lab, hosts: list[Host], addresses: tuple[str, str]) -> tuple[Path, str]:
    """The inventory as an operator would write it, and the authority of its certificate."""
    authority = Authority()
    issued = authority.issue("edge.example", *addresses)
    fleet = {
        "fleet_name": "edge",
        "fleet_ports": "{}-{}".format(*free_range(10)),
        "fleet_proxy_port": PROXY_PORT,
        "fleet_proxy_wheelhouse": str(wheelhouse.directory()),
        # sockets lie below it
        "fleet_home": "/var/lib/modelyard",
    }
    model = {
        "id": MODEL,
        "engine": "echo",
        "placement": {"replicas": 2, "gpus": 0},
        "args": {"token_rate": 5},
    }
    written = write_inventory(directory / "inventory", {"proxy_hosts": hosts, "edge": hosts}, [model], fleet)
    tree = yaml.safe_load((written / "hosts.yml").read_text())
    for host in hosts:
        tree["all"]["hosts"][host.name]["fleet_proxy_listen"] = host.address
    tree["all"]["children"]["engine_hosts"] = {
        "hosts": {
            "here": {
                "ansible_connection": "local",
                "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                "fleet_runtime": "process",
                "fleet_address": lab.controller,
                "fleet_home": str(directory / "h"),
            }
        }
    }
    (written / "hosts.yml").write_text(yaml.safe_dump(tree))
    edge = {
        "edge_addresses": [
            {"address": f"{addresses[0]}/24", "router_id": 61},
            {"address": f"{addresses[1]}/24", "router_id": 62, "prefer": hosts[1].name},
        ],
        "edge_certificates": [{"name": "main", "certificate": issued.certificate, "key": issued.key}],
        "edge_dead_host_s": DEAD_HOST_S,
    }
    (written / "group_vars" / "edge.yml").write_text(yaml.safe_dump(edge))
    return written, authority.certificate


@pytest.fixture(scope="module")
def site(lab: Lab, start_hosts: Callable[..., list[Host]], short_directory: Path) -> Any:
    hosts = start_hosts("alpha", "beta")
    with ThreadPoolExecutor() as side_by_side:
        list(side_by_side.map(lambda host: edge_packages.install(host.container), hosts))
    addresses = str(lab.subnet[200]), str(lab.subnet[201])
    written, authority = inventory(short_directory, lab, hosts, addresses)
    trust = ssl.create_default_context(cadata=authority)
    try:
        run = begin("site", written, short_directory / "site.log", []).wait(300)
        assert run.status == 0, f"{run}\n{hosts[0].journal()}"
        yield Site(hosts[0], hosts[1], addresses[0], addresses[1], trust, written)
    finally:
        stopping = ("-e", "confirm=all", "--limit", "here")
        begin("stop", written, short_directory / "stop.log", [], *stopping).wait(120)


@pytest.fixture(scope="module")
def short_directory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Sockets lie below it, and a socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="m") as name:
        yield Path(name)


def ask(site: Site, address: str, words: int) -> str:
    """One plain request by an ordinary client, which tries again by itself; the proxy that answered."""
    client = OpenAI(
        base_url=f"https://{address}/v1", api_key="none", timeout=10, max_retries=6,
        http_client=DefaultHttpxClient(verify=site.trust),
    )  # fmt: skip
    with client:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, max_tokens=words, messages=[{"role": "user", "content": "a few words"}]
        )
        assert raw.parse().choices[0].finish_reason == "length"
        return raw.headers["X-Modelyard-Edge"]


async def test_a_proxy_that_is_killed_loses_its_own_streams_and_no_plain_request(site: Site) -> None:
    await until_held(site, {site.staying: "alpha", site.preferring: "beta"})
    for host in (site.alpha, site.beta):
        settings = host.run("cat", "/opt/modelyard/modelyard-proxy.env")
        assert f'MODELYARD_TRUSTED_PROXIES="{site.alpha.address},{site.beta.address}"' in settings
    async with Streams(site) as streams:
        assert {(one.address, one.edge) for one in streams.all} == {
            (site.staying, "alpha"),
            (site.preferring, "beta"),
        }
        before = site.metric(site.alpha, "haproxy_backend_retry_warnings_total")
        loop = asyncio.get_running_loop()
        # longer than it takes to kill the proxy: some of them wait for it then
        with ThreadPoolExecutor(12) as clients:
            plain = [loop.run_in_executor(clients, ask, site, site.staying, 25) for _ in range(12)]
            await until(
                lambda: in_flight(site, site.beta) > STREAMS // 2, lambda: "no plain request has come"
            )
            site.beta.run("systemctl", "kill", "--signal=KILL", "modelyard-proxy.service")
            answered = await asyncio.gather(*plain)
        lost, kept = await streams.exactly_these_are_lost(lambda one: one.proxy == "beta")
    assert {edge.partition("/")[0] for edge in answered} == {"alpha"}
    assert site.metric(site.alpha, "haproxy_backend_retry_warnings_total") > before
    print(f"proxy of beta killed: {lost} streams lost, {kept} went on, 12 plain requests answered")


def in_flight(site: Site, proxy: Host) -> int:
    """Requests that both edge hosts have with a proxy."""
    total = 0.0
    for host in (site.alpha, site.beta):
        text = host.run("curl", "--silent", "--fail", "http://127.0.0.1:8405/metrics")
        wanted = f'haproxy_server_current_sessions{{proxy="proxies",server="{proxy.name}"}}'
        total += sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(wanted))
    return int(total)


async def until_held(site: Site, wanted: dict[str, str]) -> float:
    """Wait until these hosts answer at these addresses; the seconds that it took."""
    began = time.monotonic()
    while {address: await site.by(address) for address in wanted} != wanted:
        assert time.monotonic() < began + PATIENCE_S, {address: await site.by(address) for address in wanted}
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def until_ready(site: Site, host: Host) -> None:
    """Wait until an edge host has both proxies as ready."""
    wanted = [
        f'haproxy_server_status{{proxy="proxies",server="{name}",state="UP"}} 1'
        for name in (site.alpha.name, site.beta.name)
    ]

    def ready() -> bool:
        metrics = host.run("curl", "--silent", "http://127.0.0.1:8405/metrics")
        return all(line in metrics for line in wanted)

    await until(ready, lambda: "a proxy has not come back")


def answers_at(site: Site, address: str, edge: str) -> float:
    """When this edge host answered at an address first, by TLS, as seconds since 1970; asked again and again."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            # only the connection is hurried: handshakes take their time on a busy machine
            with socket.create_connection((address, 443), timeout=0.2) as plain:
                plain.settimeout(10)
                with site.trust.wrap_socket(plain, server_hostname=address) as secure:
                    secure.sendall(
                        f"GET /live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
                    )
                    if f"x-modelyard-edge: {edge}/" in secure.recv(65536).decode().lower():
                        return time.time()
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"{edge} does not answer at {address}")


async def test_a_host_that_dies_gives_its_address_away_and_loses_what_it_carried(site: Site) -> None:
    for host in (site.alpha, site.beta):
        await until_ready(site, host)
    async with Streams(site) as streams:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(8) as clients:
            plain = [loop.run_in_executor(clients, ask, site, site.staying, 25) for _ in range(8)]
            await until(
                lambda: in_flight(site, site.alpha) + in_flight(site, site.beta) >= STREAMS + 8,
                lambda: "plain requests have not come",
            )
            looking = loop.run_in_executor(None, answers_at, site, site.staying, "beta")
            killed = time.time()
            await loop.run_in_executor(None, docker, "kill", site.alpha.container)
            gone = time.time()
            moved = await looking
            answered = await asyncio.gather(*plain)
        lost, kept = await streams.exactly_these_are_lost(lambda one: "alpha" in (one.edge, one.proxy))
    assert {*answered} == {"beta/beta"}
    print(
        f"alpha killed: beta took {site.staying} {taken_at(site.beta) - killed:.2f} s after the order, and it answered "
        f"after {moved - killed:.2f} s (docker was done after {gone - killed:.2f} s); {lost} streams lost, {kept} went on"
    )


def taken_at(host: Host) -> float:
    """When keepalived says that it took an address last, as seconds since 1970."""
    unit = "--unit=modelyard-edge-address.service"
    said = host.run("journalctl", unit, "--no-pager", "--output=short-unix").splitlines()
    return max(float(line.split()[0]) for line in said if "Entering MASTER STATE" in line)


async def test_an_address_stays_where_it_is_when_its_first_host_returns(site: Site) -> None:
    docker("start", site.alpha.container)
    # the second address shows by its absence that alpha is back and has looked around: it would have it only without beta
    end = time.monotonic() + PATIENCE_S
    while "Entering BACKUP STATE" not in backup_log(site.alpha):
        assert time.monotonic() < end, backup_log(site.alpha)
        await asyncio.sleep(0.2)
    assert await site.by(site.staying) == "beta"
    # HAProxy of beta is stopped: its address goes to the host that has come back
    site.beta.run("systemctl", "stop", "modelyard-edge.service")
    took = await until_held(site, {site.staying: "alpha", site.preferring: "alpha"})
    print(f"HAProxy of beta stopped: both addresses answered after {took:.2f} s")


def backup_log(host: Host) -> str:
    try:
        return host.run(
            *("journalctl", "--boot", "--unit=modelyard-edge-address.service", "--no-pager", "--output=cat")
        )
    except Exception as error:  # it is starting
        return str(error)


def of_the_edge(report: dict[str, Any]) -> dict[tuple[str, str], str]:
    """What a report says of the edge: what it is about, and how bad."""
    return {
        (one["host"], one.get("code") or f"{one['subject']} {one['field']}"): one["severity"]
        for one in report["findings"]
        if one.get("kind") == "edge" or str(one.get("code")).startswith(("edge", "proxy-port"))
    }


async def test_what_is_wrong_with_the_edge_is_seen_and_mended(site: Site) -> None:
    """Goes on from the test before: HAProxy of beta is stopped, alpha has both addresses."""
    current = "/etc/modelyard-edge/haproxy/current"
    site.beta.run("sed", "-i", "s/ maxconn 8000/ maxconn 80/", f"{current}/haproxy.cfg")
    site.beta.run("chmod", "0644", f"{current}/certificates/main.pem")
    key = site.beta.run("readlink", "-f", f"{current}/certificates/main.pem").strip()

    await until_ready(site, site.alpha)
    status = site.play("status")
    alpha, beta = status["edge"]
    assert (alpha["state"], alpha["holds"]) == ("up", [site.staying, site.preferring])
    assert (alpha["certificate"], alpha["days_left"], alpha["proxies_up"]) == (
        "edge.example",
        0,
        ["alpha", "beta"],
    )
    assert (beta["state"], beta["address_service"], beta["holds"]) == ("down", "up", [])
    assert [(one["state"], one["holders"]) for one in status["edge_addresses"]] == [("up", ["alpha"])] * 2
    assert status["overall"] == "down"

    planted = {
        ("beta", "modelyard-edge.service state"): "drift",
        ("beta", "haproxy haproxy.cfg"): "drift",
        ("beta", f"{key} mode"): "drift",
    }
    assert of_the_edge(site.play("drift")) == planted
    ends = dict.fromkeys((("alpha", "edge_certificate_ends"), ("beta", "edge_certificate_ends")), "warning")
    wrong = {
        ("beta", "edge_down"): "critical",
        ("beta", "edge_key_open"): "critical",
        ("beta", "edge_differs"): "warning",
    }
    assert of_the_edge(site.play("doctor", "-e", "generate=false")) == ends | wrong
    # this machine is no edge host, and nothing keeps it from asking the proxies
    past = dict.fromkeys((("alpha", "proxy-port-reachable"), ("beta", "proxy-port-reachable")), "finding")
    report = site.play("security")
    assert of_the_edge(report) == past
    assert (key, "secret-file-open") in {(one["subject"], one["code"]) for one in report["findings"]}

    # rules on the machine that runs the tests are not wanted
    site.play("hardening", "--limit", "alpha,beta")
    site.play("edge")
    assert of_the_edge(site.play("drift")) == {}
    assert of_the_edge(site.play("security")) == {}
    await until_held(site, {site.staying: "alpha", site.preferring: "beta"})
    # each asks the other's proxy, and nobody else gets there
    for host in (site.alpha, site.beta):
        await until_ready(site, host)
        with pytest.raises(TimeoutError):
            socket.create_connection((host.address, PROXY_PORT), timeout=2).close()
    loop = asyncio.get_running_loop()
    assert (await loop.run_in_executor(None, ask, site, site.staying, 5)).startswith("alpha/")
