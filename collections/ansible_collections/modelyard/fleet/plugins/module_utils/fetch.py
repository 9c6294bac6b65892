"""Download one file over HTTP into a partial file that a later run goes on with."""

from __future__ import annotations

import errno
import http.client
import json
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.files import human
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import BLOCK, WeightsError

ATTEMPTS = 5


def check_url(url: str) -> None:
    """Refuse what is not http or https; a ``file:`` URL would read any file of the host."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise WeightsError(f"{url}: only http and https URLs can be downloaded")


def without_userinfo(url: str) -> str:
    """The URL for a message: no user name, no password, no query."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def require_space(directory: Path, needed: int, reserve: int, what: str) -> None:
    """Fail with the numbers when ``needed`` bytes plus the ``reserve`` do not fit at ``directory``."""
    place = directory
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + reserve:
        raise WeightsError(
            f"{what} needs {human(needed)} at {directory} and {human(reserve)} must stay free, but only "
            f"{human(free)} are free: {human(needed + reserve - free)} are missing. Make room, choose another "
            "weights directory, or lower model_weights_reserve_bytes"
        )


def content_length(url: str, timeout_s: float) -> int | None:
    """Size of a remote file in bytes as its server says; None when it does not."""
    check_url(url)
    request = urllib.request.Request(url, method="HEAD", headers={"Accept-Encoding": "identity"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            length = response.headers.get("Content-Length")
            return int(length) if length is not None else None
    except (OSError, http.client.HTTPException, ValueError):
        return None


def get_json(url: str, token: str | None, timeout_s: float) -> tuple[Any, str | None]:
    """A JSON document, and the URL of its next page if it has one. Raises ``WeightsError``."""
    check_url(url)
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310
    if token:
        # not sent on to where a redirect leads
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            document = json.load(response)
            link = response.headers.get("Link", "")
    except urllib.error.HTTPError as error:
        hints = {
            401: "it may be private or gated: give a token file (model_weights_hub_token_file)",
            403: "the token has no right to it",
            404: "no such model or revision there, or it is private and no token file was given",
            429: "too many requests: try again later",
        }
        hint = hints.get(error.code, "see the server's log")
        raise WeightsError(f"{without_userinfo(url)} answered {error.code}: {hint}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WeightsError(f"{without_userinfo(url)} cannot be reached: {error}") from error
    following = link.split(";")[0].strip(" <>") if 'rel="next"' in link else None
    return document, following


def _receive(
    url: str, partial: Path, timeout_s: float, reserve: int, expect: Callable[[int], None], token: str | None
) -> None:
    """One attempt: append what is missing, or start again when the server does not know ranges."""
    have = partial.stat().st_size if partial.exists() else 0
    # identity: a range of compressed bytes would be a range of something else
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310
    if token:
        # not sent on to where a redirect leads
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise WeightsError(f"{without_userinfo(url)} answered with another range than asked for")
        length = response.headers.get("Content-Length")
        if length is not None:
            expect(int(length) + (have if resumed else 0))
            require_space(
                partial.parent, int(length) - (0 if resumed else have), reserve, without_userinfo(url)
            )
        received = 0
        with partial.open("ab" if resumed else "wb") as handle:
            while block := response.read(BLOCK):
                handle.write(block)
                received += len(block)
        if length is not None and received != int(length):
            raise http.client.IncompleteRead(b"", int(length) - received)


def download(
    url: str,
    partial: Path,
    timeout_s: float,
    reserve: int,
    sleep: Callable[[float], None] = time.sleep,
    expect: Callable[[int], None] = lambda total: None,
    token: str | None = None,
) -> None:
    """Bring ``partial`` to the whole file, going on where an earlier attempt stopped.

    A dropped connection is tried again, ``ATTEMPTS`` times without progress. The caller checks the hash. ``expect`` is
    told how many bytes the whole file has, where the server says so. Raises ``WeightsError``, ``OSError`` for a full disk.
    """
    check_url(url)
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _receive(url, partial, timeout_s, reserve, expect, token)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:
                return  # nothing is missing, or the file is another one: the hash tells
            if error.code < 500 and error.code not in (408, 429):
                raise WeightsError(f"{without_userinfo(url)} answered {error.code} {error.reason}") from error
            reason: Exception = error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # trying again fills no disk less
            reason = error
        after = partial.stat().st_size if partial.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= ATTEMPTS:
            raise WeightsError(
                f"{without_userinfo(url)}: {reason}. {human(after)} are kept; the next run goes on from there"
            ) from reason
        sleep(min(2.0**failures, 30.0))


def brought(target: Path, bring: Callable[[], None], fault: Callable[[], str]) -> str:
    """Bring a file, and once more from the start where an earlier run had begun it and it ends wrong: the beginning may be
    another file's.

    ``bring`` goes on with what is there, ``fault`` says what is wrong with the whole, empty when nothing is. Gives that;
    nothing of a wrong file is kept.
    """
    resumed = target.exists()
    while True:
        bring()
        wrong = fault()
        if not wrong:
            return ""
        target.unlink(missing_ok=True)
        if not resumed:
            return wrong
        resumed = False
