#!/usr/bin/env bash
# Usage: scripts/bench-capture.sh [--load] [--peers] [--package FILE.zip] [--csv FILE] [--steady] [--batches N] [--warm-up N] [--documents N] [--size BYTES] [--leases N] [--ranges N] [--latency-ms N] [--rounds N] [--scenario shared|own|own-bulk|dates] [--handler PATH]
# Measures the whole handler under a simulated Functions host, against an endpoint that answers every write at once:
# documents/s, CPU microseconds per document (of the handler's process alone), peak memory, ms from spawn to ready. For
# comparison, it also measures a program that only forwards the same bytes, with --peers handlers in Node and Python
# with the official SDKs (benches/peers; scripts/install-test-peers.sh runs first), and with --package the program in a
# package of scripts/package.sh. --csv FILE overwrites the file and writes every round to it.
# A key for each document is measured twice: own uses single writes (REWIND_BULK=off), own-bulk uses requests with
# writes of many keys (REWIND_BULK=auto). Both bulk methods of the Node SDK are measured in the latter; the Python SDK
# has none. --ranges is the number of partition key ranges of the history, --latency-ms is the duration of a write.
# --steady measures 100,000 documents after 10,000, in batches of 100.
# --load measures the command `load` instead, with single and with packed writes.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --peers)
      scripts/install-test-peers.sh >&2
      node="env TEST_PEERS_NODE=$PWD/target/test-peers/node NODE_ENV=production"
      arguments+=(--peer "node=$node node $PWD/benches/peers/node/handler.mjs")
      arguments+=(--peer "node-bulk@own-bulk=$node NODE_BULK=older node $PWD/benches/peers/node/handler.mjs")
      arguments+=(--peer "python@shared,own,dates=$PWD/target/test-peers/venv/bin/python $PWD/benches/peers/python/handler.py")
      ;;
    --package | --csv | --handler) [ -n "${2:-}" ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; } ;;&
    --package)
      package=$(mktemp -d)
      trap 'rm -rf "$package"' EXIT
      python3 -m zipfile -e "$2" "$package"
      chmod +x "$package/cosmos-rewind"
      arguments+=(--peer "package=$package/cosmos-rewind serve")
      shift
      ;;
    --steady) arguments+=(--batches 1000 --warm-up 100) ;;
    --handler)
      arguments+=(--handler "$(realpath "$2")")
      shift
      ;;
    --csv)
      mkdir -p "$(dirname "$2")"
      rm -f "$2"
      arguments+=(--csv "$(realpath "$2")")
      shift
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
# Without this, the client library captures a backtrace for every operation.
export RUST_BACKTRACE=0
cargo bench --quiet --bench handler -- "${arguments[@]}"
