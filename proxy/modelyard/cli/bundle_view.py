"""What ``modelyard bundle`` shows: parts with their sizes, and faults."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.bundle.collect import digest_of
from modelyard.bundle.manifest import Manifest
from modelyard.bundle.sources import Source
from modelyard.bundle.verify import Fault
from modelyard.cli.tables import NOTHING, cell

_MOST_FAULTS = 200


def human(size: int | None) -> str:
    """Bytes as people read them: ``13.4 GiB``; a dash where nobody knows."""
    if size is None:
        return NOTHING
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def as_data(
    manifest: Manifest,
    digest: str,
    *,
    directory: Path,
    fresh: Collection[str] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """A bundle for programs. ``fresh``: paths of the parts that came in this run."""
    parts = []
    for part in manifest.parts:
        files = manifest.files_of(part)
        entry = {"kind": part.kind, "name": part.name, "path": part.path, "files": len(files),
                 "bytes": sum(file.size for file in files), **dict(part.details)}  # fmt: skip
        parts.append(entry if fresh is None else entry | {"new": part.path in fresh})
    return {
        "directory": str(directory),
        "manifest_sha256": digest,
        "created": manifest.created,
        "without": list(manifest.without),
        "bytes": manifest.size,
        "files": len(manifest.files),
        "parts": parts,
        **({"notes": list(notes)} if fresh is not None else {}),
    }


def render_parts(console: Console, manifest: Manifest, fresh: Collection[str]) -> None:
    """A table of what is in a bundle, with sizes and their sum."""
    table = _table("kind", "what", "where", "files", "size", "")
    for part in manifest.parts:
        files = manifest.files_of(part)
        table.add_row(
            cell(part.kind),
            cell(part.name),
            cell(part.path),
            str(len(files)),
            human(sum(file.size for file in files)),
            Text("new", style="green") if part.path in fresh else Text(""),
        )
    table.add_section()
    table.add_row("all", "", "", str(len(manifest.files)), human(manifest.size), "")
    console.print(table)


def listed(sources: Sequence[Source], earlier: Manifest | None) -> list[dict[str, Any]]:
    """What would be collected: each source with its size where that can be known, and whether it is there already.

    What is there is taken at its word here; a run reads it in full.
    """
    rows = []
    for source in sources:
        part = next((one for one in earlier.parts if one.path == source.path), None) if earlier else None
        size: int | None
        if earlier is not None and part is not None and part.wish == digest_of(source.wish):
            size, there = sum(file.size for file in earlier.files_of(part)), True
        else:
            size, there = source.expected(), False
        rows.append(
            {
                "kind": source.kind,
                "name": source.name,
                "path": source.path,
                "bytes": size,
                "there": there,
            }
        )
    return rows


def render_list(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of what would be collected."""
    table = _table("kind", "what", "where", "about", "")
    for row in rows:
        state = Text("is there", style="dim") if row["there"] else Text("to collect", style="green")
        table.add_row(cell(row["kind"]), cell(row["name"]), cell(row["path"]), human(row["bytes"]), state)
    console.print(table)


def render_faults(console: Console, directory: Path, faults: Sequence[Fault]) -> None:
    """Each file that is not as it should be."""
    many = f"{len(faults)} files are" if len(faults) > 1 else "1 file is"
    console.print(Text(f"{directory}: {many} not as the manifest says:", style="bold red"), soft_wrap=True)
    for fault in faults[:_MOST_FAULTS]:
        console.print(
            Text("  ").append(fault.kind, style="red").append(f"  {fault.path} {fault.text}"), soft_wrap=True
        )
    if len(faults) > _MOST_FAULTS:
        console.print(f"  ... and {len(faults) - _MOST_FAULTS} more (--json has all)")
    console.print(
        "Copy the bundle again, or run `modelyard bundle create` where there is a network; nothing of it may be used.",
        soft_wrap=True,
    )


def _table(*titles: str) -> Table:
    table = Table(title="Bundle", title_justify="left", title_style="bold")
    for title in titles:
        table.add_column(
            title,
            overflow="fold",
            no_wrap=title in ("kind", "size", "about", ""),
            justify="right" if title in ("files", "size", "about") else "left",
        )
    return table
