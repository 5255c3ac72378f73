"""Read pytest's output into the list of tests."""

import json
import re
import sys
from pathlib import Path

LINE = re.compile(r"^(\S+::\S+) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)
found = LINE.findall(Path(sys.argv[1]).read_text("utf-8"))
tests = [{"name": name, "status": status} for name, status in found]
Path(sys.argv[3]).write_text(json.dumps({"tests": tests}), "utf-8")
