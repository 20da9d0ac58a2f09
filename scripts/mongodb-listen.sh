#!/usr/bin/env bash
# Usage: scripts/mongodb-listen.sh [--mongodb URL]
# Two listeners on a MongoDB collection (docs/mongodb/listen.md): one reports new and deleted documents, the other
# reports updates that changed the balance, with the previous balance. Both are stopped while writes continue, and both
# resume from their tokens. At the end each must have reported exactly the events in pymongo's log, with the documents
# before and after. Needs no Cosmos DB account, but a built cosmos-rewind (COSMOS_REWIND names another one than
# target/release or target/debug) and scripts/install-test-peers.sh.
#   --mongodb URL   your own server instead of the test server; uses its database rewind_listen, which must not exist
set -euo pipefail
script=$(realpath "$0")
source "$(dirname "$script")/mongodb.bash"
setup "$@"
"${people[@]}" absent || failed "the database rewind_listen exists already"
trap '"${people[@]}" drop 2>/dev/null || true; finish' EXIT
"${people[@]}" make

listen() { # name, filter; prints events for people, and keeps their JSON form in a file
  local follow=(follow --database rewind_listen --collection accounts --name "$1" --filter "$2" --pretty --sink stdout
    --sink "file:$1.jsonl" --checkpoint-file "$1.json")
  [[ -f $1.json ]] || show "${follow[@]}" "&"
  : >"$1.log"
  "$program" "${follow[@]}" --poll 100 >>"$1.txt" 2>>"$1.log" &
  pids+=($!)
  listeners+=($!)
}
both() {
  listeners=()
  listen doors 'op in ["create", "delete"]'
  listen balances 'op == "update" && changed("/balance")'
}
told() { # until both have told as much as the log has for them
  for _ in $(seq 100); do "${people[@]}" told writes.jsonl && return; sleep 0.2; done
  failed "not everything was told: $(cat -- *.log)"
}

both
await doors.log 'start of every range saved'
await balances.log 'start of every range saved'
: >writes.jsonl
"${people[@]}" write writes.jsonl first
told
echo; echo "new and deleted documents:"; cat doors.txt
echo; echo "balances, with the previous ones:"; cat balances.txt

kill -INT "${listeners[@]}"
for pid in "${listeners[@]}"; do wait "$pid" || failed "a listener did not end well"; done
echo; echo "stopped    $(tail -n 1 balances.log)"
echo "token      $(sed -n -E 's/.*"after\\":\\"([^\\]*).*/\1/p' balances.json | cut -c 1-60)..."
"${people[@]}" write writes.jsonl second
echo "meanwhile  $(grep -c second writes.jsonl) writes while no listener runs"
mv doors.txt doors-before.txt; mv balances.txt balances-before.txt
both
await doors.log 'going on from the checkpoint'
await balances.log 'going on from the checkpoint'
told
echo; echo "reported after the token:"; cat doors.txt balances.txt
echo; echo "the same as JSON, the last line of balances.jsonl:"; tail -n 1 balances.jsonl

kill -INT "${listeners[@]}"
for pid in "${listeners[@]}"; do wait "$pid" || failed "a listener did not end well"; done
echo
"${people[@]}" check writes.jsonl
