"""URLs of an S3-compatible store that carry their own signature for a while (AWS signature version 4 in the query).

A presigned URL is downloaded like any other, ranges included, and names no secret; messages leave its query out. Source of
the format: "Authenticating Requests: Using Query Parameters" of the S3 API reference.
"""

from __future__ import annotations

import configparser
import hashlib
import hmac
import urllib.parse
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import WeightsError

VALID_S = 86_400


@dataclass(frozen=True)
class Store:
    """A store: base URL, region, and the key with its secret; without a key everything is asked for anonymously."""

    endpoint: str
    region: str
    key_id: str = ""
    secret: str = ""
    token: str = ""


def read_credentials(path: Path) -> tuple[str, str, str]:
    """Key id, secret and session token out of a file like ``~/.aws/credentials``, profile ``default``."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        profile = parser["default"]
        return (
            profile["aws_access_key_id"],
            profile["aws_secret_access_key"],
            profile.get("aws_session_token", ""),
        )
    except (OSError, configparser.Error, KeyError) as error:
        # the parser's own text would show the line
        what = error.strerror if isinstance(error, OSError) else "it is no file of credentials"
        raise WeightsError(
            f"{path} cannot be used ({what}): it must have a section [default] with aws_access_key_id and "
            "aws_secret_access_key"
        ) from None


def split(address: str) -> tuple[str, str]:
    """Bucket and prefix of ``s3://bucket/prefix``."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "s3" or not parts.netloc:
        raise WeightsError(f"{address!r} is no s3://BUCKET/PREFIX")
    return parts.netloc, parts.path.strip("/")


def object_url(store: Store, bucket: str, key: str) -> str:
    """The plain URL of an object: the bucket is the first part of the path, as all stores understand it."""
    return f"{store.endpoint.rstrip('/')}/{bucket}/{urllib.parse.quote(key, safe='/~')}"


def presigned(store: Store, url: str, method: str, now: datetime, valid_s: int = VALID_S) -> str:
    """The URL with its signature; as it is when the store has no key. ``now`` is in UTC."""
    if not store.key_id:
        return url
    parts = urllib.parse.urlsplit(url)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{store.region}/s3/aws4_request"
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{store.key_id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(valid_s),
        "X-Amz-SignedHeaders": "host",
    }
    if store.token:
        query["X-Amz-Security-Token"] = store.token
    encoded = "&".join(f"{key}={urllib.parse.quote(value, safe='~')}" for key, value in sorted(query.items()))
    request = f"{method}\n{parts.path}\n{encoded}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{store.secret}".encode()
    for part in (stamp[:8], store.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return urllib.parse.urlunsplit(
        (parts.scheme, parts.netloc, parts.path, f"{encoded}&X-Amz-Signature={signature}", "")
    )
