#!/usr/bin/env bash
# Usage: scripts/mongodb-bank.sh [--mongodb URL]
# A bank on MongoDB (docs/mongodb/bank.md): four listeners, each with its own filter, name and file, report accounts
# opened in the red, deposits, closed accounts, and replaced ones. A fifth listener counts every operation. It is killed
# (SIGKILL) for some seconds after every five updates, while writes continue. At the end its count must be complete and
# free of duplicates, and the sum of its events must equal the collection as pymongo reads it. Needs no Cosmos DB
# account, but a built cosmos-rewind (COSMOS_REWIND names another one than target/release or target/debug) and
# scripts/install-test-peers.sh.
#   --mongodb URL   your own server instead of the test server; uses its database rewind_bank, which must not exist
set -euo pipefail
script=$(realpath "$0")
source "$(dirname "$script")/mongodb.bash"
setup "$@"
"${people[@]}" absent || failed "the database rewind_bank exists already"
trap '"${people[@]}" drop 2>/dev/null || true; finish' EXIT
"${people[@]}" make

listeners=()
listen() { # name, filter; not in a subshell: the pid must be the program's own
  local follow=(follow --database rewind_bank --collection accounts --name "$1")
  [[ -z ${2:-} ]] || follow+=(--filter "$2")
  follow+=(--checkpoint-file "$1.json" --sink "file:$1.jsonl")
  [[ -f $1.json ]] || show "${follow[@]}" "&"
  "$program" "${follow[@]}" --poll 100 2>>"$1.log" &
  pid=$!
  pids+=("$pid")
}
for listener in 'red:op == "create" && doc.balance < 0' \
  'deposits:op == "update" && changed("/balance") && doc.balance > previous.balance' \
  'closed:op == "delete"' 'replaced:op == "replace"' 'counter:'; do
  listen "${listener%%:*}" "${listener#*:}"
  listeners+=("$pid")
done
counter=$pid
unset 'listeners[-1]'
for name in red deposits closed replaced counter; do await "$name.log" 'start of every range saved'; done

count() { wc -l <counter.jsonl; }
written() { wc -l <writes.jsonl; }
counted() { # until the counter has what was written
  for _ in $(seq 150); do [[ $(count) -lt $(written) ]] || return 0; sleep 0.1; done
  failed "$(written) operations, and the counter is at $(count): $(tail -n 3 counter.log)"
}

echo
: >writes.jsonl
for round in 1 2 3 4 5 6; do
  "${people[@]}" write writes.jsonl "$round" 5
  counted
  # An idle follower saves its checkpoint within a second. Events between that and a kill are written again.
  sleep 1.2
  kill -9 "$counter"
  wait "$counter" 2>/dev/null || true
  at=$(count)
  "${people[@]}" write writes.jsonl "1$round" 2
  sleep 2
  [[ $(count) == "$at" ]] || failed "the count changed while no counter ran"
  missed=$(($(written) - at))
  listen counter
  counter=$pid
  counted
  echo "killed     at $at; resumed after $missed more operations, from $((at + 1)) to $(count)"
done
for name in red deposits closed replaced; do
  for _ in $(seq 50); do [[ $(wc -l <"$name.jsonl") -lt $("${people[@]}" due writes.jsonl "$name") ]] || break; sleep 0.2; done
done
listeners+=("$counter")
kill "${listeners[@]}"
for pid in "${listeners[@]}"; do wait "$pid" || failed "a listener did not end well"; done

echo; echo "the first two events of each listener:"
for name in red deposits closed replaced; do "${people[@]}" tell "$name"; done
echo
"${people[@]}" check writes.jsonl
