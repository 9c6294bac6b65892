"""Run a program that only reads."""

from __future__ import annotations

import os
import subprocess


def run(argv: list[str], timeout: int) -> tuple[int | None, str, str]:
    """Exit status, output, error output. The status is None when the program does not exist or takes too
    long; the error output then says which.
    """
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=env,
        )
    except FileNotFoundError:
        return None, "", "not found"
    except PermissionError:
        return None, "", "may not be executed by this user"
    except subprocess.TimeoutExpired:
        return None, "", f"did not answer within {timeout} s"
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip()
