#!/usr/bin/env bash
# Usage: scripts/bench-restore.sh [--documents N] [--versions N] [--dir DIR]
# Measures the rewind commands on the local account: N documents (10,000) with --versions versions each on average (10,
# at least 2), captured by the handler as they are written; then plan, restore, a second restore, undo, and backups of
# the moment before the updates. Prints seconds, documents/s, CPU time and peak memory of the command, and request units
# (the emulator's model).
set -euo pipefail
cd "$(dirname "$0")/.."
documents=10000 versions=10 dir=$(mktemp -d)
. scripts/measure.bash
flags "documents=number versions=number dir=text" "$@"
release_binary
local_account --mode all-versions
cd "$dir"
kilobytes "$documents" >documents.jsonl

header documents
measured "write the documents" "$documents" populate --file documents.jsonl
sleep 2
at=$(date +%s)
sleep 2
"$bin" populate --file documents.jsonl --updates $((documents * (versions - 2))) --concurrency 64 >out 2>err
captured $((documents * versions))
measured "plan only" "$documents" restore --all --at "$at" --dry-run --format csv
measured "plan with half of the hash space" "$((documents / 2))" restore --all --at "$at" --feed-range 1/2 --dry-run --format csv
measured "backup as of then" "$documents" backup --all --at "$at" --out past.jsonl
measured "backup live" "$documents" backup --all --out live.jsonl
measured "restore" "$documents" restore --all --at "$at" --yes --max "$documents"
id=$(sed -n 's/^undo *cosmos-rewind undo \([^ ]*\).*/\1/p' err)
measured "restore again" "$documents" restore --all --at "$at" --yes --max "$documents"
measured "undo" "$documents" undo "$id" --yes --max "$documents"
# With a limit: request units used per second of run time.
measured "restore, --ru-limit 20000" "$documents" restore --all --at "$at" --yes --max "$documents" --ru-limit 20000
measured "load, everything replaced" "$documents" load documents.jsonl --no-trailer --mode upsert
