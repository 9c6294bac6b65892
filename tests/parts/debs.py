"""Package files of Debian that a bare machine lacks: for test hosts, which have no way out."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.parts import bare_image, machine
from tests.parts.docker import docker
from tests.parts.fingerprint import image_tag

PLACE = "/srv/packages"
"""Where they lie on a machine."""

# apt of a machine that has not started yet knows no time and no /tmp
_FETCH = """
set -e
timeout 60 bash -c 'until systemctl is-active --quiet multi-user.target; do sleep 0.2; done'
mkdir -p {place}/partial
apt-get -qq update
apt-get -qq install -y --no-install-recommends --download-only -o Dir::Cache::archives={place} {wanted}
rm -rf {place}/partial {place}/lock
cd {place}
for file in *.deb; do
  dpkg-deb --field "$file"
  size=$(stat -c %s "$file") hash=$(sha256sum <"$file")
  printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' "$file" "$size" "${{hash%% *}}"
done >Packages
"""


@dataclass(frozen=True)
class Debs:
    """The packages `wanted` with all that a bare machine lacks of what they need, and apt's list of them."""

    name: str
    wanted: tuple[str, ...]

    def directory(self) -> Path:
        """Where they lie here: another place for another image of bare machines."""
        version = image_tag(self.name, bare_image.tag(), _FETCH, *self.wanted).rpartition(":")[2]
        return machine.cache_directory() / f"{self.name}-{version}"

    def is_built(self) -> bool:
        """Whether they are there."""
        return self.directory().is_dir()

    def build(self) -> None:
        """Fetch them, in ten to twenty seconds; the bare machine's image must be there."""
        name = f"modelyard-parts-{uuid.uuid4().hex[:8]}"
        try:
            bare_image.start(name)
            script = _FETCH.format(place=PLACE, wanted=" ".join(self.wanted))
            docker("exec", name, "bash", "-c", script, timeout=180)
            target = self.directory()
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as place:
                docker("cp", f"{name}:{PLACE}", f"{place}/packages")
                # renamed last: what stands under the final name is whole
                shutil.move(f"{place}/packages", target)
        finally:
            docker("rm", "--force", "--volumes", name)
