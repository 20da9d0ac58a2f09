#!/usr/bin/env bash
# Proof that a version can be replaced by the next one and back, in the middle of its work. Two programs take turns: an
# older one and this one.
#
# Usage: scripts/upgrade.sh [--rev REV] [--older PATH] [--binary PATH] [--lives N] [--seed N] [--phases N]
#   --rev REV       commit of the older program, which is built in a temporary worktree [default: HEAD~100]
#   --older PATH    use this program as the older one
#   --binary PATH   the newer program [default: a debug build of this checkout]
#   --lives N       random histories to live through [default: 6]
#   --seed N        seed of the first life [default: 1]
#   --phases N      times that the programs take turns in a life [default: 6]
# In a life, either of the two captures what a Python client writes, from the other's checkpoint, into the history and an
# archive. One plans a restore, the same or the newer one applies it, and either takes it back; a restore that is killed
# is taken back by the other. In the end, both must tell what the client logged, for every moment between its writes.
# Then the recorded batches of the trigger are delivered to one and again to the other: no record is doubled or changed.
# Installs the test peers first (scripts/install-test-peers.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
rev=HEAD~100 older='' binary='' lives=6 seed=1 phases=6
usage='usage: scripts/upgrade.sh [--rev REV] [--older PATH] [--binary PATH] [--lives N] [--seed N] [--phases N]'
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --rev | --older | --binary | --lives | --seed | --phases)
      [[ -n ${2:-} ]] || { echo "$usage" >&2; exit 2; }
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    *) echo "$usage" >&2; exit 2 ;;
  esac
done
export RUST_BACKTRACE=0
scripts/install-test-peers.sh >&2
if [[ -z $binary ]]; then
  cargo build --quiet --bin cosmos-rewind
  binary=target/debug/cosmos-rewind
fi
folder=$(mktemp -d)
trap 'git worktree remove --force "$folder/older" 2>/dev/null || true; rm -rf "$folder"' EXIT
if [[ -z $older ]]; then
  git worktree add --quiet --detach "$folder/older" "$rev"
  # A folder of its own: the build of another commit would be taken for this one's.
  CARGO_TARGET_DIR=$PWD/target/upgrade cargo build --quiet --manifest-path "$folder/older/Cargo.toml" --bin cosmos-rewind
  older=target/upgrade/debug/cosmos-rewind
fi
target/test-peers/venv/bin/python scripts/upgrade.py "$(realpath "$older")" "$(realpath "$binary")" "$lives" "$seed" "$phases"
