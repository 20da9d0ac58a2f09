#!/usr/bin/env bash
# Usage: scripts/bench-ru.sh [--csv FILE] [--size BYTES] [--batches N] [--documents N]
# Counts what a captured document costs in each layout of the history (keyed as `provision` does, and as existing containers may
# be), with own and with shared keys: requests, bytes, and what the local account charges. From the records that were
# written it calculates what the service charges under each index policy. --csv FILE begins the file anew.
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
# The client library takes a backtrace for every operation otherwise.
export RUST_BACKTRACE=0
# It counts and takes no times, so the quick build will do.
exec cargo bench --quiet --profile dev --bench handler -- "${arguments[@]}"
