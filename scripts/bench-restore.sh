#!/usr/bin/env bash
# Usage: scripts/bench-restore.sh [--documents N] [--versions N] [--dir DIR]
# Measures the rewind commands on the local account: N documents (10,000) with so many versions each (10, at least 2) on average,
# captured by the handler as they are written; then plan, restore, a second restore, undo and backups of the moment
# before the updates. Prints seconds, documents/s, CPU time and peak memory of the command, and request units (the emulator's model).
set -euo pipefail
cd "$(dirname "$0")/.."
documents=10000 versions=10 dir=$(mktemp -d)
while [ $# -gt 0 ]; do
  case $1 in
    --documents) documents=$2 ;;
    --versions) versions=$2 ;;
    --dir) dir=$2 ;;
    *) sed -n '2s/^# //p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
# The client library takes a backtrace for every operation otherwise.
export RUST_BACKTRACE=0
cargo build --release --quiet
bin=$PWD/target/release/cosmos-rewind

"$bin" local --port 0 --mode all-versions >"$dir/local.out" 2>"$dir/local.err" &
local_pid=$!
trap 'kill $local_pid 2>/dev/null || true; wait $local_pid 2>/dev/null || true' EXIT
until [ -s "$dir/local.out" ]; do sleep 0.1; kill -0 $local_pid; done
endpoint=$(head -n 1 "$dir/local.out" | sed 's/.*"endpoint":"\([^"]*\)".*/\1/')
export CosmosDB__accountEndpoint=$endpoint
cd "$dir"

# One document of about 1 KB a line, in keys of ten documents each.
awk -v n="$documents" 'BEGIN { pad = sprintf("%900s", ""); gsub(/ /, "x", pad)
  for (i = 0; i < n; i++) printf "{\"id\":\"doc-%07d\",\"pk\":\"key-%06d\",\"n\":%d,\"text\":\"%s\"}\n", i, i / 10, i, pad }' >documents.jsonl

run() { # label, documents, command...
  local label=$1 count=$2; shift 2
  local from to peak=0 now ticks=0 stat
  from=$(date +%s.%N)
  "$bin" "$@" >"$dir/out" 2>"$dir/err" &
  local pid=$!
  while kill -0 $pid 2>/dev/null; do
    now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2>/dev/null || true)
    [ -n "$now" ] && peak=$now
    # CPU time so far, user and system, in hundredths of a second.
    stat=$(sed 's/.*) //' /proc/$pid/stat 2>/dev/null | awk '{ print $12 + $13 }' || true)
    [ -n "$stat" ] && ticks=$stat
    sleep 0.02
  done
  wait $pid || { echo "$label: exit code $?"; tail -n 5 "$dir/err"; }
  to=$(date +%s.%N)
  awk -v l="$label" -v c="$count" -v a="$from" -v b="$to" -v p="$peak" -v t="$ticks" \
    'BEGIN { printf "| %s | %.1f | %.0f | %.1f | %.0f |", l, b - a, c / (b - a), t / 100, p / 1024 }'
  printf ' %s |\n' "$({ grep -ohE 'about [0-9]+ RU|applied .* expected|[0-9.]+ RU, [0-9.]+ s' "$dir/err" || true; } | tr -s ' ' | paste -sd ';' | sed 's/;/; /g')"
}

echo "| step | seconds | documents/s | CPU s of the command | peak RSS MB | request units |"
echo "|---|---|---|---|---|---|"
run "write the documents" "$documents" populate --file documents.jsonl
sleep 2
at=$(date +%s)
sleep 2
"$bin" populate --file documents.jsonl --updates $((documents * (versions - 2))) --concurrency 64 >out 2>err
captured() { "$bin" query --in changes --count "SELECT c.id FROM c" 2>/dev/null | grep -oE '[0-9,]+' | tr -d , | head -n 1; }
until [ "$(captured)" = $((documents * versions)) ]; do sleep 2; kill -0 $local_pid; done
run "plan only" "$documents" restore --all --at "$at" --dry-run --format csv
run "plan with half of the hash space" "$((documents / 2))" restore --all --at "$at" --feed-range 1/2 --dry-run --format csv
run "backup as of then" "$documents" backup --all --at "$at" --out past.jsonl
run "backup live" "$documents" backup --all --out live.jsonl
run "restore" "$documents" restore --all --at "$at" --yes --concurrency 32
id=$(sed -n 's/^undo *cosmos-rewind undo \([^ ]*\).*/\1/p' err)
run "restore again" "$documents" restore --all --at "$at" --yes
run "undo" "$documents" undo "$id" --yes --concurrency 32
# Held at a limit: request units used by the seconds it took.
run "restore, --ru-limit 20000" "$documents" restore --all --at "$at" --yes --concurrency 32 --ru-limit 20000
