"""Make sure the sandbox's base image exists: what `make image` runs.

Without a Docker engine it says so in one line and succeeds, unless TENUTO_REQUIRE_DOCKER is 1.
"""

from __future__ import annotations

import os
import sys

from sandboxes.errors import SandboxError
from sandboxes.images.base_image import ensure_base_image


def main() -> int:
    """Build the image if it is missing; return the exit code."""
    try:
        ensure_base_image(lambda line: print(f"image: {line}", flush=True))
    except SandboxError as error:
        print(f"image: {error}", file=sys.stderr)
        return int(os.environ.get("TENUTO_REQUIRE_DOCKER") == "1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
