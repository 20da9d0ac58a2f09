#!/usr/bin/env bash
# Usage: scripts/bench-capture.sh [--peers] [--package FILE.zip] [--csv FILE] [--batches N] [--documents N] [--size BYTES] [--leases N] [--rounds N] [--scenario shared|own|dates] [--handler PATH]
# Measures the whole handler under a simulated Functions host against an endpoint that answers every write at once:
# documents/s, CPU microseconds per document (of the handler's process alone), peak memory, ms from spawn to ready. Beside it
# a program that only forwards the same bytes, and with --peers handlers in Node and Python with the official SDKs
# (benches/peers; scripts/install-test-peers.sh is run first), with --package the program in a package of scripts/package.sh. --csv FILE begins the file anew and writes every round there.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --peers)
      scripts/install-test-peers.sh >&2
      arguments+=(--peer "node=env TEST_PEERS_NODE=$PWD/target/test-peers/node NODE_ENV=production node $PWD/benches/peers/node/handler.mjs")
      arguments+=(--peer "python=$PWD/target/test-peers/venv/bin/python $PWD/benches/peers/python/handler.py")
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
# The client library takes a backtrace for every operation otherwise.
export RUST_BACKTRACE=0
cargo bench --quiet --bench handler -- "${arguments[@]}"
