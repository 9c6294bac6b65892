"""`modelyard chat` against a running engine: once, through pipes, and at a terminal."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from aiohttp import web

ECHO = [
    sys.executable,
    "-m",
    "modelyard",
    "echo",
    "--port",
    "0",
    "--json",
    "--model",
    "demo",
    "--instance",
    "r1",
]


def metric(url: str, name: str) -> float:
    with urllib.request.urlopen(url + "/metrics") as response:
        text = response.read().decode()
    found = re.search(rf"^modelyard_echo_{name} (\S+)$", text, re.MULTILINE)
    assert found
    return float(found.group(1))


def until(url: str, name: str, wanted: float) -> None:
    """Wait until a metric has a value."""
    for _ in range(1000):
        if metric(url, name) == wanted:
            return
        time.sleep(0.02)
    pytest.fail(f"{name} never became {wanted}")


def start(*options: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([*ECHO, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    process, address = start("--token-rate", "50")
    with process:
        yield address
        process.kill()


def test_the_answer_is_on_standard_output_and_its_timing_beside_it(modelyard, url: str) -> None:
    done = modelyard("chat", "demo", "Once upon a time", "--url", url)
    assert (done.returncode, done.stdout) == (0, "Once upon a time\n")
    assert re.fullmatch(r"TTFT \d+ ms · \d+\.\d tokens/s · 4 tokens · replica r1\n", done.stderr)


def test_through_the_proxy_the_replica_is_named(modelyard, url: str, tmp_path: Path) -> None:
    endpoint = {"id": "here.demo.0", "url": url, "engine": "echo"}
    registry = tmp_path / "endpoints.yml"
    registry.write_text(
        json.dumps({"version": 1, "models": {"demo": {"endpoints": [endpoint]}}}), encoding="utf-8"
    )
    command = [
        sys.executable,
        "-m",
        "modelyard",
        "serve",
        "--registry",
        str(registry),
        "--port",
        "0",
        "--json",
    ]
    proxy = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path
    )
    with proxy:
        assert proxy.stdout is not None
        address = json.loads(proxy.stdout.readline())["url"]
        done = modelyard("chat", "demo", "Once upon a time", "--url", address, "--json")
        unknown = modelyard("chat", "dem", "hi", "--url", address)
        proxy.kill()
    answer = json.loads(done.stdout)
    assert (answer["text"], answer["replica"]) == ("Once upon a time", "here.demo.0")
    assert unknown.stderr == "Error: There is no model 'dem', did you mean 'demo'? Served here: demo.\n"


def test_a_pipe_is_a_prompt(modelyard, url: str) -> None:
    assert modelyard("chat", "demo", "--url", url, stdin="from a pipe\n").stdout == "from a pipe\n"


def test_json_is_one_object(modelyard, url: str) -> None:
    done = modelyard(
        "chat", "demo", "a b", "--url", url + "/", "--max-tokens", "5", "--system", "Be kind.", "--json"
    )
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (answer["text"], answer["finish_reason"], answer["replica"]) == ("a b a b a", "length", "r1")
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["usage"]["prompt_tokens"] > 5  # the system message was sent
    assert answer["ttft_s"] >= 0
    assert answer["tokens_per_s"] > 0


def test_an_unknown_model_lists_the_known_and_names_the_nearest(modelyard, url: str) -> None:
    done = modelyard("chat", "dem", "hi", "--url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: There is no model 'dem', did you mean 'demo'? Served here: demo.\n"
    assert (
        "Served here: demo"
        in json.loads(modelyard("chat", "zzz", "hi", "--url", url, "--json").stdout)["error"]
    )


def test_no_proxy_says_how_to_start_one(modelyard) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = modelyard("chat", "demo", "hi", "--url", f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: Nothing answers at http://127.0.0.1:{port} (Connection refused). Start the proxy with "
        "`make up` or `modelyard serve`, or name its address with --url.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", " "], ["demo"], ["demo", "hi", "--url", "localhost:8000"], ["demo", "hi", "--max-tokens", "0"],
        ["demo", "hi", "--temperature", "3"], [],
    ],
)  # fmt: skip
def test_wrong_calls(modelyard, arguments: list[str]) -> None:
    assert modelyard("chat", *arguments).returncode == 2


def test_ctrl_c_stops_the_generation_and_the_program() -> None:
    process, address = start("--delay", "3600")
    with process:
        command = [sys.executable, "-m", "modelyard", "chat", "demo", "hi", "--url", address]
        asking = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        with asking:
            try:
                until(address, "requests_running", 1)
                asking.send_signal(signal.SIGINT)
                _, err = asking.communicate(timeout=30)
            finally:
                asking.kill()
        assert (asking.returncode, err) == (130, "\nStopped.\n")
        until(address, "requests_cancelled_total", 1)
        process.kill()


@pytest.fixture
def terminal() -> Iterator[Callable[[str], pexpect.spawn]]:
    opened: list[pexpect.spawn] = []

    def open_terminal(address: str) -> pexpect.spawn:
        arguments = ["-m", "modelyard", "chat", "demo", "--url", address]
        child = pexpect.spawn(sys.executable, arguments, encoding="utf-8", timeout=30)
        opened.append(child)
        child.expect_exact("> ")
        return child

    yield open_terminal
    for child in opened:
        child.close(force=True)


def test_a_conversation_remembers_until_reset(terminal, url: str) -> None:
    child = terminal(url)
    tokens = []
    for line in ("one two", "one two", "/reset", "one two"):
        before = metric(url, "prompt_tokens_total")
        child.sendline(line)
        child.expect_exact("> ")
        tokens.append(metric(url, "prompt_tokens_total") - before)
    first, second, reset, again = tokens
    assert second > first == again  # the earlier exchange was sent along, and no longer after /reset
    assert reset == 0
    child.sendline("/what")
    child.expect_exact("There is no /what")
    child.sendline("/quit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal) -> None:
    process, address = start("--token-rate", "5")
    with process:
        child = terminal(address)
        child.sendline("many " * 200)
        child.expect(r"many\r?\n?.*many many")
        until(address, "requests_running", 1)
        child.sendintr()
        child.expect_exact("(stopped)")
        child.expect_exact("> ")
        until(address, "requests_cancelled_total", 1)
        child.sendintr()  # at the prompt it only begins a new line
        child.expect_exact("> ")
        child.sendline("once more")
        child.expect_exact("TTFT")
        child.expect_exact("> ")
        child.sendeof()
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0
        process.kill()


Script = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


@pytest.fixture
async def server() -> AsyncIterator[Callable[[Script], Awaitable[str]]]:
    """An address whose answers to a chat request are written by the test."""
    runners: list[web.AppRunner] = []

    async def serve(script: Script) -> str:
        async def chat(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "x-modelyard-replica": "p.m.0"}
            )
            await response.prepare(request)
            await script(request, response)
            return response

        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return site.name if ":0" not in site.name else f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield serve
    for runner in runners:
        await runner.cleanup()


def delta(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


async def test_control_characters_do_not_reach_the_terminal(modelyard, server) -> None:
    async def script(_: web.Request, response: web.StreamResponse) -> None:
        await response.write(delta("red \x1b[31m\x07\x9b1m é\n\tdone", "stop") + b"data: [DONE]\n\n")

    done = await asyncio.to_thread(modelyard, "chat", "m", "hi", "--url", await server(script))
    assert done.stdout == "red [31m1m é\n\tdone\n"
    assert "replica p.m.0" in done.stderr


async def test_events_may_be_cut_anywhere(modelyard, server) -> None:
    async def script(_: web.Request, response: web.StreamResponse) -> None:
        for byte in delta("é one ") + b": comment\n\n" + delta("two", "length") + b"data: [DONE]\n\n":
            await response.write(bytes([byte]))

    done = await asyncio.to_thread(modelyard, "chat", "m", "hi", "--url", await server(script))
    assert (done.returncode, done.stdout) == (0, "é one two\n")
    assert "finish length" in done.stderr


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (b"", "The answer broke off before its end. Ask again."),
        (b'data: {"error": {"message": "out of memory", "code": 500}}\n\n', "out of memory"),
        (None, "The answer broke off: the connection was lost. Ask again."),
    ],
)
async def test_an_answer_that_breaks_off_is_an_error(
    modelyard, server, end: bytes | None, message: str
) -> None:
    async def script(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(delta("half an"))
        if end is None:
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write(end)

    address = await server(script)
    done = await asyncio.to_thread(modelyard, "chat", "m", "hi", "--url", address)
    assert (done.returncode, done.stdout, done.stderr) == (1, "half an\n", f"Error: {message}\n")
    done = await asyncio.to_thread(modelyard, "chat", "m", "hi", "--url", address, "--json")
    assert json.loads(done.stdout) == {"error": message, "partial": "half an"}
