from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from multidict import CIMultiDict

from modelyard.errors import ConfigError
from modelyard.gateway.admin_key import AdminKey, read_admin_key, weakness
from modelyard.gateway.headers import client_of, is_trusted, request_id, to_client, to_upstream


def test_hop_by_hop_headers_stay_on_their_hop() -> None:
    client = CIMultiDict(
        [
            ("Connection", "close, X-One"),
            ("connection", "x-two"),
            ("X-One", "1"),
            ("x-Two", "2"),
            ("TE", "trailers"),
        ]
    )
    client.extend([("Upgrade", "h2c"), ("Keep-Alive", "5"), ("X-Modelyard-Replica", "lie"), ("X-Multi", "a")])
    client.add("X-Multi", "b")
    sent = to_upstream(client, "id", trusted=False)
    assert {name.lower() for name in sent} == {"accept-encoding", "content-type", "x-multi", "x-request-id"}
    assert sent.getall("x-multi") == ["a", "b"]


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "X-API-KEY",
        "Anthropic-Api-Key",
        "X-Goog-ApiKey",
        "X-Auth-Token",
        "Cookie2",
        "Token",
        "X-Amz-Security-Token",
        "CF-Access-Client-Secret",
        "Proxy-Authorization",
        "X-Hub-Signature-256",
    ],
)
def test_no_credential_reaches_an_engine_whatever_it_is_called(name: str) -> None:
    assert name not in to_upstream(CIMultiDict({name: "x"}), "id", trusted=True)


def test_headers_that_only_sound_alike_pass() -> None:
    for name in ("X-Session-Id", "OpenAI-Organization", "X-Max-Tokens-Shown", "Traceparent"):
        assert name in to_upstream(CIMultiDict({name: "x"}), "id", trusted=False)


def test_an_engines_header_that_cannot_be_written_is_left_out() -> None:
    engine = CIMultiDict({"X-Bad": "a\x01b", "X-Line": "a\r\nX-C: d", "X-Good": "a\tcaf\u00e9"})
    assert dict(to_client(engine)) == {"X-Good": "a\tcaf\u00e9"}


def test_what_an_engine_says_of_itself_stays_behind() -> None:
    engine = CIMultiDict(
        {
            "Server": "uvicorn",
            "Set-Cookie": "a=b",
            "Location": "http://10.0.0.1/",
            "Access-Control-Allow-Origin": "*",
            "x-modelyard-attempts": "9",
            "Transfer-Encoding": "chunked",
            "Content-Type": "text/event-stream",
            "x-generated-tokens": "7",
            "Content-Length": "12",
        }
    )
    assert dict(to_client(engine)) == {
        "Content-Type": "text/event-stream",
        "x-generated-tokens": "7",
        "Content-Length": "12",
    }


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "http://h/{id}", "a\nb", "é"])
def test_a_harmful_request_id_is_replaced(bad: str) -> None:
    made = request_id(CIMultiDict({"X-Request-Id": bad}))
    assert made != bad
    assert len(made) == 32


def test_a_harmless_request_id_is_kept() -> None:
    assert request_id(CIMultiDict({"X-Request-Id": "job-7:retry.1"})) == "job-7:retry.1"


def test_trust() -> None:
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
    assert is_trusted("10.1.1.1", networks)
    assert is_trusted("fd00::1%eth0", networks)
    assert not is_trusted("11.1.1.1", networks)
    assert not is_trusted(None, networks)
    assert not is_trusted("unix", networks)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "shorter than"),
        ("short", "shorter than"),
        ("a" * 40, "easy to guess"),
        ("changemechangemechangeme", "easy to guess"),
        ("modelyard-admin-password-secret", "easy to guess"),
        ("two words that are long enough", "without spaces"),
    ],
)
def test_weak_keys_are_refused(tmp_path: Path, key: str, why: str) -> None:
    path = tmp_path / "key"
    path.write_text(key)
    with pytest.raises(ConfigError, match=why) as caught:
        read_admin_key(path)
    assert len(key) < 6 or key not in caught.value.message.replace(str(path), "")


def test_a_good_key() -> None:
    good = "3f9c1b7ae0d24c6fb58e7710"
    assert weakness(good) is None
    key = AdminKey(good)
    assert key.accepts(f"Bearer {good}")
    assert key.accepts(f"bearer {good}")
    for wrong in ("", "Bearer", f"Basic {good}", f"Bearer {good}x", "Bearer \udcff"):
        assert not key.accepts(wrong)


def test_a_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_admin_key(tmp_path / "none")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # nobody's word counts but that of our own proxies
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        (None, ["198.51.100.1"], ""),
        ("10.1.1.1", [], "10.1.1.1"),
        ("10.1.1.1", ["198.51.100.1"], "198.51.100.1"),
        # what stands before it is what that client said
        ("10.1.1.1", ["192.0.2.66, 198.51.100.1"], "198.51.100.1"),
        ("10.1.1.1", ["192.0.2.66", "198.51.100.1, 10.1.1.2"], "198.51.100.1"),
        ("10.1.1.1", ["10.1.1.3, 10.1.1.2"], "10.1.1.3"),
        ("10.1.1.1", ["192.0.2.66, unknown"], "10.1.1.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
    ],
)
def test_the_client_is_who_the_nearest_of_our_proxies_says(
    peer: str | None, forwarded: list[str], client: str
) -> None:
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    assert client_of(peer, forwarded, networks) == client
