"""What the tests need beyond Python: Debian packages, only those that are missing, none of them started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from config.errors import KezekError
from config.labs import native, packages
from tests import postgres

# A program that shows that the package is there.
PROGRAMS = {"chromium": "chromium", "prometheus": "prometheus"}
# Chromium draws Kazakh letters and the tenge sign only with a font that has them.
FONTS = Path("/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf")
CLUSTER_CONF = Path("/etc/postgresql-common/createcluster.conf")


def missing() -> list[str]:
    """The packages that are not there."""
    names = [*packages.missing(PROGRAMS), *native.missing_packages()]
    if not FONTS.exists():
        names.append("fonts-noto-core")
    if postgres.binaries() is None:
        names.append("postgresql-15")
    return names


def _without_main_cluster() -> None:
    """Debian makes a database cluster of its own at installation unless told before."""
    packages.install(["postgresql-common"])
    prefix = packages.root_prefix()
    if prefix is not None and CLUSTER_CONF.exists():
        edit = r"s/^#\?create_main_cluster *=.*/create_main_cluster = false/"
        subprocess.run([*prefix, "sed", "-i", edit, str(CLUSTER_CONF)], check=True)


def main() -> int:
    """Install; 1 when a person has to."""
    names = missing()
    if not names:
        return 0
    print(f"Installing for the tests: {' '.join(names)}", flush=True)
    try:
        if "postgresql-15" in names:
            _without_main_cluster()
        packages.install(names)
    except KezekError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
