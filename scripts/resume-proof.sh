#!/usr/bin/env bash
# Usage: scripts/resume-proof.sh [UPDATES]
# Proof that a follower resumes where it stopped: a counter in one document is incremented (20 times by default), and
# after every 5 updates the follower is killed (SIGKILL) for a few seconds while the updates continue. At the end, its
# output must be 1, 2, 3, ... without missing or duplicate numbers, and so must the history. Runs on the local Cosmos
# DB; needs a built cosmos-rewind (COSMOS_REWIND names another one than target/release or target/debug).
set -euo pipefail
updates=20
case "${1:-}" in
  "") ;;
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  *[!0-9]*) echo "usage: $0 [UPDATES]" >&2; exit 2 ;;
  *) updates=$1 ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
program=${COSMOS_REWIND:-$root/target/release/cosmos-rewind}
[[ -x $program ]] || program=$root/target/debug/cosmos-rewind
[[ -x $program ]] || { echo "error: no cosmos-rewind; run cargo build" >&2; exit 1; }
export RUST_BACKTRACE=0

work=$(mktemp -d)
cd "$work"
local_pid='' follower_pid=''
finish() {
  [[ -z $follower_pid ]] || kill -9 "$follower_pid" 2>/dev/null || true
  [[ -z $local_pid ]] || kill "$local_pid" 2>/dev/null || true
  wait 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT

# Waits until a command succeeds.
await() {
  for _ in $(seq 300); do "$@" 2>/dev/null && return; sleep 0.1; done
  echo "error: timed out waiting for: $*" >&2
  cat follow.log >&2
  exit 1
}

"$program" local --port 0 --no-trigger >ready.json 2>local.log &
local_pid=$!
await grep -q endpoint ready.json
CosmosDB__accountEndpoint=$(sed -E 's/.*"endpoint":"([^"]*)".*/\1/' ready.json)
export CosmosDB__accountEndpoint

: >printed.jsonl
follow=("$program" follow --mode all-versions --name counter --lease 2 --poll 100 --sink stdout --sink changes)
# Not in a function: the pid must be the program's own, or the kill would hit a wrapping shell.
printed() { sed -E 's/.*"doc":\{[^}]*"n":([0-9]+).*/\1/' printed.jsonl; }
has_printed() { [[ $(printed | tail -1) == "$1" ]]; }
count_to() { echo "{\"id\":\"counter\",\"pk\":\"counter\",\"n\":$1}" | "$program" populate --file - >/dev/null 2>&1; }

# The start of every range is saved, then the updates begin.
"${follow[@]}" --until-caught-up >>printed.jsonl 2>>follow.log
"${follow[@]}" >>printed.jsonl 2>>follow.log &
follower_pid=$!
kills=0
for n in $(seq "$updates"); do
  count_to "$n"
  if ((n % 5 == 3)) && [[ -n $follower_pid ]]; then
    await has_printed "$n"
    # An idle follower saves its checkpoint within a second. Events between that and a kill are printed again.
    sleep 1.2
    kill -9 "$follower_pid"
    wait "$follower_pid" 2>/dev/null || true
    follower_pid=''
    kills=$((kills + 1))
    echo "killed     at $n"
  elif ((n % 5 == 0)) && [[ -z $follower_pid ]]; then
    sleep 2
    "${follow[@]}" >>printed.jsonl 2>>follow.log &
    follower_pid=$!
    await has_printed "$n"
    echo "resumed    it has printed $(printed | tail -3 | tr '\n' ' ')"
  fi
done
if [[ -n $follower_pid ]]; then
  kill "$follower_pid"
  wait "$follower_pid" || true
  follower_pid=''
fi
"${follow[@]}" --until-caught-up >>printed.jsonl 2>>follow.log

seq "$updates" >wanted
if ! printed | diff wanted - >differences; then
  echo "FAILED     missing (<) or duplicated (>):" && cat differences
  exit 1
fi
captured=$("$program" query --in changes --pk counter --format jsonl "SELECT c.n FROM c" 2>/dev/null | sed -E 's/.*"n":([0-9]+).*/\1/' | sort -n)
if ! diff wanted - <<<"$captured" >differences; then
  echo "FAILED     the history, missing (<) or duplicated (>):" && cat differences
  exit 1
fi
echo "proved     killed $kills times, it printed 1 to $updates, each once and in order; the history has each once"
