#!/usr/bin/env bash
# Usage: scripts/bench-capture.sh [--batches N] [--documents N] [--size BYTES] [--leases N] [--rounds N] [--handler PATH]
# Measures the whole handler under a simulated Functions host against an endpoint that answers every write at once:
# documents/s, CPU microseconds per document (of the handler's process alone), peak memory, ms from spawn to ready.
set -euo pipefail
cd "$(dirname "$0")/.."
# The client library takes a backtrace for every operation otherwise.
export RUST_BACKTRACE=0
exec cargo bench --quiet --bench handler -- "$@"
