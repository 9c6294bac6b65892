"""Run a program that only reads."""

from __future__ import annotations

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus import command


def run(argv: list[str], timeout: int) -> tuple[int | None, str, str]:
    """Exit status, output, error output. The status is None when the program does not exist or takes too
    long, also one that hangs in a broken driver and cannot be ended; the error output then says which.
    """
    done = command.run(argv, timeout, argv[0])
    if done.state == command.ABSENT:
        return None, "", "not found"
    if done.state == command.HUNG:
        return None, "", f"did not answer within {timeout} s"
    if done.code is None:
        return None, "", done.reason
    return done.code, done.out, done.err.strip()
