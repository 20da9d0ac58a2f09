#!/usr/bin/env bash
# Usage: scripts/davidson.sh [PATH-OF-BINARY]
# The walk-through (docs/start/walk-through.md) on its own account: every command of the original demo in order, with
# its output. Leaves no files behind. Without an argument, the release binary is built first.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then
  bin=$(realpath "$1")
else
  cargo build --release --quiet
  bin=$PWD/target/release/cosmos-rewind
fi
dir=$(mktemp -d)
cd "$dir"
"$bin" local --port 0 --mode all-versions >local.out 2>local.err &
local_pid=$!
trap 'kill $local_pid 2>/dev/null || true; wait $local_pid 2>/dev/null || true; rm -rf "$dir"' EXIT
until [ -s local.out ]; do sleep 0.1; kill -0 $local_pid; done
CosmosDB__accountEndpoint=$(sed -n '1s/.*"endpoint":"\([^"]*\)".*/\1/p' local.out)
export CosmosDB__accountEndpoint
cosmos-rewind() { "$bin" "$@"; }

run() { # prints a command as it would be typed, and what it says
  local shown=""
  for word in "$@"; do
    case $word in *[\ \'=]*) [[ $word == *" "* ]] && word="\"$word\"" ;; esac
    shown="$shown $word"
  done
  printf '\n$%s\n' "$shown"
  "$@" 2>&1
}

# Waits until the trigger has delivered the writes.
captured() { until [ "$(cosmos-rewind query --in changes --count "SELECT c.id FROM c WHERE IS_DEFINED(c._change)" 2>/dev/null | grep -oE '[0-9,]+' | tr -d , | head -n 1)" -ge "$1" ]; do sleep 0.2; done; }

run cosmos-rewind provision
run cosmos-rewind truncate source --max 6000 --yes
run cosmos-rewind truncate changes --max 6000 --yes
run cosmos-rewind populate --count 5000 --seed 35
captured 5000
run cosmos-rewind history --where "c.city_name = @city" --param city=Davidson --columns city_name,seq
run cosmos-rewind query "SELECT c.id, c.city_name, c.seq, c.timestamp, c.epoch, c._ts FROM c WHERE c.city_name = 'Davidson'"
run cosmos-rewind history --id 28036 --pk 28036
sleep 2
at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
sleep 2
# A writer misspells the town.
cosmos-rewind query --format jsonl "SELECT * FROM c WHERE c.city_name = 'Davidson'" 2>/dev/null |
  sed 's/"city_name":"Davidson"/"city_name":"Davidsen"/; s/"seq":\([0-9]*\)/"seq":1\1/' >damaged.jsonl
cosmos-rewind load --mode upsert --no-trailer damaged.jsonl >/dev/null 2>&1
captured 5002
run cosmos-rewind diff --where "c.city_name = 'Davidson'" --from "$at"
run cosmos-rewind restore --where "c.city_name = @city" --param city=Davidson --at "$at" --dry-run
run cosmos-rewind restore --where "c.city_name = @city" --param city=Davidson --at "$at" --yes | tee restored
run cosmos-rewind query "SELECT c.id, c.city_name, c.seq, c.restored_at FROM c WHERE c.city_name = 'Davidson'"
run cosmos-rewind undo "$(sed -n 's/^undo *cosmos-rewind undo \([^ ]*\).*/\1/p' restored)" --yes
run cosmos-rewind restore --id 28035 --pk 28035 --id 28036 --pk 28036 --at "$(date -u -d "$at" +%s)" --yes
run cosmos-rewind backup --where "c.city_name = @city" --param city=Davidson --out davidson.jsonl
run head -c 300 davidson.jsonl
run cosmos-rewind truncate source --max 6000 --yes
run cosmos-rewind load davidson.jsonl
run cosmos-rewind query "SELECT c.id, c.city_name, c.seq, c.restored_at FROM c"
