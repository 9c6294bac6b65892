from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.errors import ConfigError
from modelyard.settings import Settings, load_settings, read_environment, settings_table


def test_defaults_are_safe() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.allowed_origins == ()
    assert settings.admin_key_file is None
    assert settings.probe_timeout_s >= 10


def test_a_flag_beats_the_environment_which_beats_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1111\nHOST=0.0.0.0\nALLOWED_ORIGINS=http://a:1, https://b/\n")
    environment = read_environment({"PORT": "2222"}, tmp_path)
    assert load_settings(environment).port == 2222
    settings = load_settings(environment, {"port": 3333, "host": None})
    assert settings.port == 3333
    assert settings.host == "0.0.0.0"
    assert settings.allowed_origins == ("http://a:1", "https://b")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("HTTPS://Chat.Example.org/", "https://chat.example.org"),
        ("https://chat.example.org:443", "https://chat.example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("*", "*"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(given: str, read: str) -> None:
    assert load_settings({"ALLOWED_ORIGINS": given}).allowed_origins == (read,)


@pytest.mark.parametrize(
    "bad",
    [
        "https://*.example.org",
        "https://u@x",
        "https://x:99999",
        "https://x y",
        "https://x#f",
        "https://x/a",
        "null",
    ],
)
def test_what_no_browser_sends_is_no_origin(bad: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"ALLOWED_ORIGINS": bad})
    assert "is no web origin" in caught.value.problems[0]


def test_dotenv_as_editors_of_other_systems_write_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(
        b'\xef\xbb\xbfTGI_GPT2_ENDPOINT=http://h:1\r\nexport PORT="1" # ours\r\n\r\n'
    )
    assert read_environment({}, tmp_path) == {"TGI_GPT2_ENDPOINT": "http://h:1", "PORT": "1"}


def test_a_line_of_dotenv_that_is_none_is_told_without_its_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1\nTGI GPT2 hunter2=http://h\n")
    with pytest.raises(ConfigError, match="1 of its lines cannot be read") as caught:
        read_environment({}, tmp_path)
    assert caught.value.problems == ("line 2",)


def test_every_bad_value_is_told_at_once() -> None:
    environment = {
        "PORT": "http",
        "ALLOWED_ORIGINS": "chat.example.org",
        "MODELYARD_TRUSTED_PROXIES": "ten",
        "MODELYARD_PROBE_TIMEOUT_S": "2",
        "MODELYARD_LOG_LEVEL": "loud",
        "MODELYARD_ACCESS_LOG": "maybe",
        "MODELYARD_REGISTRI": "x",
        "MODELYARD_REGISTRY_POLL_S": "nan",
    }
    with pytest.raises(ConfigError) as caught:
        load_settings(environment, {"max_attempts": 0})
    text = "\n".join(caught.value.problems)
    for piece in (
        "PORT=http: must be a whole number",
        "is no web origin such as",
        "'ten' is no network",
        "MODELYARD_PROBE_TIMEOUT_S=2: must be at least 10",
        "MODELYARD_LOG_LEVEL=loud: must be one of debug",
        "MODELYARD_ACCESS_LOG=maybe: must be true or false",
        "MODELYARD_REGISTRI is unknown, did you mean 'MODELYARD_REGISTRY'?",
        "--max-attempts=0: must be at least 1",
        "MODELYARD_REGISTRY_POLL_S=nan: must be a finite number",
    ):
        assert piece in text
    assert len(caught.value.problems) == 9


def test_names_in_the_table_are_unique() -> None:
    table = settings_table()
    assert len({row.env for row in table}) == len({row.flag for row in table}) == len(table)
    assert all(row.help.endswith(".") for row in table)


def test_variables_of_others_with_the_same_prefix_are_left_alone() -> None:
    environment = {
        "MODELYARD_HOME": "/srv",
        "MODELYARD_INVENTORY": "inventories/x",
        "MODELYARD_TEST_CACHE": "/c",
    }
    assert load_settings(environment) == load_settings({})


def test_a_collector_is_named_by_its_base_url() -> None:
    for good in ("http://127.0.0.1:4318", "https://otel.example.org/base/", "http://[::1]:4318"):
        assert load_settings({"MODELYARD_OTEL_ENDPOINT": good}).otel_endpoint == good
    for bad in (
        "127.0.0.1:4318",
        "grpc://x:4317",
        "http://",
        "http://x:99999",
        "http://u:s3cret@x",
        "http://x/?s3cret",
    ):
        with pytest.raises(ConfigError) as caught:
            load_settings({}, {"otel_endpoint": bad})
        (problem,) = caught.value.problems
        assert problem.startswith("--otel-endpoint: must be a URL ")
        assert "s3cret" not in problem
