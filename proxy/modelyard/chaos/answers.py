"""What a well-behaved engine says, as bytes. Every answer repeats its prompt, so that a client can tell
whether it got its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

LAST_CHUNK = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
JSON_TYPE = "Content-Type: application/json"
EVENT_STREAM = "Content-Type: text/event-stream"
CHUNKED = "Transfer-Encoding: chunked"


def head(status: int, *lines: str) -> bytes:
    """The head of an answer: ``status`` and header lines as they are to be sent."""
    return "\r\n".join((f"HTTP/1.1 {status} Chaos", *lines, "", "")).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def completion(prompt: str) -> bytes:
    """A plain chat completion that repeats ``prompt``."""
    answer = {
        "id": "chaos",
        "object": "chat.completion",
        "created": 0,
        "model": "chaos",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": prompt}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    return json.dumps(answer).encode()


def plain(prompt: str, *lines: str) -> bytes:
    """A whole plain answer, head and body; ``lines`` are further header lines."""
    body = completion(prompt)
    return head(200, JSON_TYPE, f"Content-Length: {len(body)}", *lines) + body


def events(prompt: str, count: int = 4) -> list[bytes]:
    """A stream's events: ``count`` that repeat ``prompt``, then ``[DONE]``."""
    return [*(_event(prompt, number) for number in range(count)), DONE]


def stream(parts: Sequence[bytes], *lines: str) -> bytes:
    """A whole streamed answer, head and chunks; ``lines`` are further header lines."""
    return head(200, EVENT_STREAM, CHUNKED, *lines) + b"".join(map(chunk, parts)) + LAST_CHUNK


def refusal(status: int, *lines: str) -> bytes:
    """A whole error answer such as an OpenAI-compatible engine gives."""
    body = json.dumps(
        {"error": {"message": f"chaos says {status}", "type": "chaos", "code": status}}
    ).encode()
    return head(status, JSON_TYPE, f"Content-Length: {len(body)}", *lines) + body


def tgi_error() -> bytes:
    """An error as TGI's router sends it inside a stream whose status is 200."""
    return b'data:{"error":"Model is overloaded","error_type":"overloaded"}\n\n'


def _event(prompt: str, number: int) -> bytes:
    delta = {"role": "assistant", "content": f"{prompt} {number} "}
    body = {
        "id": "chaos",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "chaos",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"
