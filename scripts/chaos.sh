#!/usr/bin/env bash
# Usage: scripts/chaos.sh [--changes N] [--minutes M] [--seed S] [--release]
# Four writers append unique numbers to lists (100,000 changes by default, or as many as fit into M minutes), while the
# handler, its host and a follower are killed at random, partitions split and merge, and a proxy in front of the account
# rejects, delays, cuts and truncates. At the end, every document's history must be exactly its appended numbers, in
# order. Uses the local Cosmos DB, on loopback only, with the debug build unless --release is given.
set -euo pipefail
wrong() { echo "usage: $0 [--changes N] [--minutes M] [--seed S] [--release]" >&2; exit 2; }
changes=100000 minutes=60 seed=1 profile=()
while (($#)); do
  case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --changes | --minutes | --seed) [[ ${2:-} =~ ^[0-9]+$ ]] || wrong; printf -v "${1#--}" %s "$2"; shift 2 ;;
    --release) profile=(--release); shift ;;
    *) wrong ;;
  esac
done
cd "$(dirname "$0")/.."
export RUST_BACKTRACE=0
COSMOS_REWIND_CHAOS_CHANGES=$changes COSMOS_REWIND_CHAOS_MINUTES=$minutes COSMOS_REWIND_SEED=$seed \
  cargo test --quiet ${profile[@]+"${profile[@]}"} --test main -- --ignored --nocapture simulation::chaos
