"""Fixtures of this room, and more to read when a test fails."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.e2e.site import Site
from tests.hosts.fixtures import lab, parts, plain_host, start_hosts

__all__ = ["lab", "parts", "plain_host", "start_hosts"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the state of the site to the report of a failed test."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(site, Site):
        report.sections.append(("the site", site.describe()))
    return report
