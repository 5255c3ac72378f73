#!/bin/bash
# The first argument names the tests' files, with commas between them.
test "$SUMS_BASE" = 1 && test "$SUMS_MODE" = "strict mode" || { echo "no environment" >&2; exit 9; }
IFS=',' read -r -a files <<< "$1"
python -m pytest -v -p no:cacheprovider "${files[@]}"
