#!/usr/bin/env bash
# Usage: scripts/bench-ru.sh [--csv FILE] [--size BYTES] [--batches N] [--documents N]
# Measures the cost of a captured document for each layout of the history (keyed as by `provision`, and as in older
# containers), with separate and with shared keys: requests, bytes, and the local account's charge. From the written
# records it calculates the service's charge under each index policy. --csv FILE overwrites the file.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=(--ru --batches 10)
while [ $# -gt 0 ]; do
  case $1:${2:-} in
    --csv:?*)
      mkdir -p "$(dirname "$2")"
      rm -f "$2"
      arguments+=(--csv "$(realpath "$2")")
      ;;
    --batches:[1-9]*) arguments[2]=$2 ;;
    --size:[1-9]* | --documents:[1-9]*) arguments+=("$1" "$2") ;;
    *) sed -n '2s/^# //p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
# Without this, the client library captures a backtrace for every operation.
export RUST_BACKTRACE=0
# It only counts and measures no times, so the quick build is enough.
exec cargo bench --quiet --profile dev --bench handler -- "${arguments[@]}"
