"""nginx and HAProxy: the practical limit, one worker each. Access logs off, connections to the engines kept."""

from __future__ import annotations

import os

from tests.parts.debian import program

from .base import Peer, Place

_NGINX = """
daemon off; worker_processes 1; worker_rlimit_nofile 16384; {user}
pid {dir}/nginx.pid; error_log {dir}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  keepalive_requests 100000000; keepalive_timeout 600s;
  upstream engines {{ {servers} keepalive 2048; keepalive_requests 100000000; keepalive_timeout 600s; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""

_HAPROXY = """
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
  option http-no-delay
listen bench
  bind 127.0.0.1:{port} backlog 4096
  balance roundrobin
  option httpchk GET /health
  {servers}
"""


def _nginx(place: Place) -> list[str]:
    nginx = program("nginx")
    config = place.directory / "nginx.conf"
    config.write_text(
        _NGINX.format(
            dir=place.directory,
            port=place.port,
            servers=" ".join(f"server 127.0.0.1:{port};" for port in place.engines),
            # as root it would hand its work to another user, who may not enter our directory
            user="user root;" if os.geteuid() == 0 else "",
        )
    )
    return [
        *nginx.command,
        "-p",
        str(place.directory),
        "-e",
        str(place.directory / "error.log"),
        "-c",
        str(config),
    ]


def _haproxy(place: Place) -> list[str]:
    haproxy = program("haproxy")
    config = place.directory / "haproxy.cfg"
    servers = "\n  ".join(f"server e{port} 127.0.0.1:{port} check inter 5s" for port in place.engines)
    config.write_text(_HAPROXY.format(port=place.port, servers=servers))
    return [*haproxy.command, "-db", "-f", str(config)]


NGINX = Peer("nginx", "nginx, 1 worker", _nginx)
HAPROXY = Peer("haproxy", "HAProxy, 1 thread", _haproxy)
