"""Build the wheel: pure Python, or with the compiled CPU path for x86-64 Linux.

    python scripts/build_wheel.py [--native] [--out dist]

Needs hatchling; ``--native`` needs g++ and objdump too. Prints the wheel's path.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from hatchling.build import build_wheel

from kernels.native.build import BuildError, build

ROOT = Path(__file__).resolve().parents[1]
NEWEST_GLIBC = (2, 28)
"""The promise of the wheel's tag."""


def main() -> int:
    """Build it; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--native", action="store_true", help="with the compiled CPU path")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder it goes to")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="tenuto-wheel-") as folder:
        if args.native:
            try:
                require_old_glibc(build(Path(folder)))
            except (BuildError, RuntimeError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            os.environ["NATIVE_LIBRARIES"] = folder
        print(out / build_wheel(str(out)))
    return 0


def require_old_glibc(libraries: list[Path]) -> None:
    """Check that ``libraries`` need no newer glibc than the tag says; raises ``RuntimeError``."""
    for file in libraries:
        told = subprocess.run(
            ["objdump", "-T", str(file)], capture_output=True, text=True, check=True
        )
        found = re.findall(r"GLIBC_(\d+)\.(\d+)", told.stdout)
        newest = max((int(major), int(minor)) for major, minor in found)
        if newest > NEWEST_GLIBC:
            needed = ".".join(map(str, newest))
            raise RuntimeError(f"{file.name} needs glibc {needed}; build it on an older system")


if __name__ == "__main__":
    sys.exit(main())
