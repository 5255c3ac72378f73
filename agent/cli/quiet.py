"""Keep what libraries say off stderr, which is ours."""

from __future__ import annotations

import logging
import os
import sys
import warnings


def quieten() -> None:
    """Keep the logs and warnings of libraries off stderr, unless ``TENUTO_DEBUG`` is set."""
    if os.environ.get("TENUTO_DEBUG", "") in ("", "0") and not sys.warnoptions:
        logging.basicConfig(handlers=[logging.NullHandler()])
        warnings.simplefilter("ignore")
