#!/usr/bin/env bash
# Usage: scripts/bench-upkeep.sh [--documents N] [--versions N] [--binary PATH]
# Measures the maintenance commands on the local account: N documents (10,000) with --versions versions each on average
# (10), captured by the handler as they are written; then backfill, verify at its depths, coverage, status, and prune: a
# dry run, the removal of half of the versions, and a second run. Prints seconds, versions/s, CPU time and peak memory
# of the command, and request units (the emulator's model).
set -euo pipefail
cd "$(dirname "$0")/.."
documents=10000 versions=10
. scripts/measure.bash
flags "documents=number versions=number binary=file" "$@"
dir=$(mktemp -d)
program
local_account --mode all-versions
cd "$dir"
kilobytes "$documents" >documents.jsonl
all=$((documents * versions))

"$bin" populate --file documents.jsonl --updates $((documents * (versions / 2 - 1))) --concurrency 64 >out 2>err
sleep 2
half=$(date +%s)
sleep 2
"$bin" populate --file documents.jsonl --updates $((documents * (versions - versions / 2 - 1))) --concurrency 64 >out 2>err
captured "$all"
header versions
measured "backfill, nothing is missing" "$all" backfill --all
measured "verify" "$all" verify
measured "verify --content" "$all" verify --content
measured "verify --deep 1000" "$all" verify --deep 1000
measured "coverage" "$all" coverage
measured "status" "$all" status
measured "status --count" "$all" status --count
# The same moment, whenever a command starts.
window() { echo "$(($(date +%s) - half))s"; }
measured "prune --dry-run" "$all" prune --older-than "$(window)" --dry-run
measured "prune" "$all" prune --older-than "$(window)" --yes --concurrency 32
removed=$(sed -n 's/^removed *\([0-9,]*\).*/\1/p' out | tr -d ,)
measured "prune again" "$((all - removed))" prune --older-than "$(window)" --yes
measured "verify what is left" "$((all - removed))" verify
echo "removed $removed of $all versions"
