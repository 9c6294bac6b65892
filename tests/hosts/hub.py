"""A hub of models that test hosts can reach."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = Path(__file__).parents[1] / "tools" / "weights_server.py"


@contextmanager
def hub(directory: Path, address: str) -> Iterator[str]:
    """Serve ``directory``/OWNER/NAME as the hub's models at `address`; gives the URL. Gone at the end."""
    command = [sys.executable, str(SERVER), str(directory), "/dev/stdout", "--listen", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://{address}:{process.stdout.readline().strip()}"
        finally:
            process.kill()
