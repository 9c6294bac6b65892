#!/usr/bin/env bash
# Make sure that a Docker engine answers. Starts one where there is none and this user is root, and says
# what to do otherwise. An engine that this script starts goes on running: `engine.sh stop` ends it.
set -euo pipefail

state=${MODELYARD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/modelyard-tests}
pidfile=$state/dockerd.pid
log=$state/dockerd.log

answers() { docker version >/dev/null 2>&1; }

is_ours() { [[ -s $pidfile ]] && grep -qs dockerd "/proc/$(<"$pidfile")/cmdline"; }

start() {
  if answers; then return 0; fi
  if ! command -v dockerd >/dev/null; then
    echo "There is no Docker engine. Install one (Debian: apt-get install docker.io) and retry." >&2
    return 1
  fi
  if [[ $(id -u) -ne 0 ]]; then
    echo "No Docker engine answers, and only root can start one. Run: sudo systemctl start docker" >&2
    echo "If one is running, this user may lack the right to use it: sudo usermod -aG docker $(id -un)" >&2
    return 1
  fi
  if [[ -d /run/systemd/system ]] && systemctl start docker 2>/dev/null && answers; then return 0; fi
  mkdir -p "$state"
  echo "Starting a Docker engine (log: $log)" >&2
  # its own pid file stays where it always is: that is what keeps two engines off one store
  setsid nohup dockerd >"$log" 2>&1 </dev/null &
  local pid=$!
  for _ in $(seq 120); do
    if ! kill -0 "$pid" 2>/dev/null; then break; fi
    if answers; then
      echo "$pid" >"$pidfile"
      return 0
    fi
    sleep 0.5
  done
  echo "The Docker engine does not come up. The end of $log:" >&2
  tail -n 20 "$log" >&2
  return 1
}

stop() {
  if ! is_ours; then return 0; fi
  local pid
  pid=$(<"$pidfile")
  kill "$pid"
  for _ in $(seq 120); do
    if ! kill -0 "$pid" 2>/dev/null; then
      rm -f "$pidfile"
      return 0
    fi
    sleep 0.5
  done
  echo "The Docker engine (process $pid) does not stop; its log is $log" >&2
  return 1
}

case ${1:-start} in
  start) start ;;
  stop) stop ;;
  *)
    echo "usage: engine.sh [start|stop]" >&2
    exit 2
    ;;
esac
