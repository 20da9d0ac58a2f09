#!/usr/bin/env bash
# Usage: scripts/incident.sh
# An incident, step by step (docs/restore/incident.md), on its own account: users work, a deployment ruins prices, users
# continue to work. Then find the damage, look at the past, revert the deployment, prove that all other work is intact,
# and undo. Needs a built cosmos-rewind (COSMOS_REWIND names another one than target/release or target/debug).
# Everything is in memory and gone at the end.
set -euo pipefail
case "${1:-}" in
  "") ;;
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  *) echo "usage: $0" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
program=${COSMOS_REWIND:-$root/target/release/cosmos-rewind}
[[ -x $program ]] || program=$root/target/debug/cosmos-rewind
[[ -x $program ]] || { echo "error: no cosmos-rewind; run cargo build" >&2; exit 1; }
export RUST_BACKTRACE=0

work=$(mktemp -d)
cd "$work"
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap finish EXIT

await() { # file text: waits until a file has a line with a text
  for _ in $(seq 300); do grep -q -- "$2" "$1" 2>/dev/null && return; sleep 0.1; done
  echo "error: timed out waiting for $2 in $1" >&2
  exit 1
}
run() { # prints a command as it would be typed, and what it says; 3 means that something was left alone
  local shown="" word
  for word in "$@"; do
    case $word in *[\ \'\<\"]*) word="'$word'" ;; esac
    shown="$shown $word"
  done
  printf '\n$ cosmos-rewind%s\n' "$shown"
  "$program" "$@" 2>&1 || [[ $? -eq 3 ]]
}

"$program" local --port 0 --mode all-versions >ready.json 2>local.log &
pids+=($!)
await ready.json endpoint
endpoint=$(sed -E 's/.*"endpoint":"([^"]*)".*/\1/' ready.json)
export CosmosDB__accountEndpoint=$endpoint

# The contents of the shop, and its contents without the deployment.
declare -A price stock by honest
product() { printf '{"id":"%s","pk":"%s","price":%s,"stock":%s,"updatedBy":"%s"}\n' "$1" "$1" "$2" "$3" "$4"; }
changes=()
sell() { stock[$1]=$((stock[$1] - 1)); by[$1]=$2; changes+=("$1"); }
cost() { price[$1]=$2; by[$1]=$3; [[ $3 == job-42 ]] || honest[$1]=$2; changes+=("$1"); }
save() { # each document as whoever changed it last writes it
  for id in "${changes[@]}"; do product "$id" "${price[$id]}" "${stock[$id]}" "${by[$id]}"; done |
    "$program" populate --file - >/dev/null 2>&1
  changes=()
}
captured() { # until the trigger has delivered so many versions
  until [[ $("$program" query --in changes --count "SELECT c.id FROM c WHERE IS_DEFINED(c._change)" 2>/dev/null | grep -oE '[0-9,]+' | tr -d , | head -n 1) -ge $1 ]]; do sleep 0.2; done
}
products=(anvil bell cup desk engine fan globe harp ink jar kite lamp)
for id in "${products[@]}"; do stock[$id]=100; cost "$id" $((500 + ${#id} * 100)) ann; done; save
sleep 1.2
for id in anvil bell cup desk; do sell "$id" bob; done; save
sleep 1.2
good=$(date -u +%Y-%m-%dT%H:%M:%SZ)
sleep 1.2
echo "14:05      a deployment sets prices; nobody notices"
from=$(date -u +%Y-%m-%dT%H:%M:%SZ)
for id in cup desk engine fan globe harp; do cost "$id" -1 job-42; done; save
sleep 1.2
to=$(date -u +%Y-%m-%dT%H:%M:%SZ)
sleep 1.2
echo "14:06      the shop continues to sell, and ann corrects one price by hand"
for id in desk engine kite; do sell "$id" bob; done
cost harp 899 ann
save
captured 26

echo; echo "What happened, and when?"
run find --when 'doc.price < 0' --actor /updatedBy
echo; echo "What did it look like before? Any tool can tell, here the query command:"
"$program" at "$good" >past.json 2>past.log &
pids+=($!)
await past.json loaded
past=$(sed -nE '1s/.*"endpoint":"([^"]*)".*/\1/p' past.json)
printf '\n$ cosmos-rewind at %s &\n' "$good"
cat past.json
run query --endpoint "$past" "SELECT c.id, c.price FROM c WHERE c.price >= 900"
run query "SELECT c.id, c.price FROM c WHERE c.price >= 900"

echo; echo "The revert, without the work of others:"
revert=(revert --from "$from" --to "$to" --filter 'doc.updatedBy == "job-42"' --bookkeeping /updatedBy)
run "${revert[@]}" --dry-run
run "${revert[@]}" --yes | tee reverted | tail -n 4

proof() {
  for id in "${products[@]}"; do printf '{"id":"%s","price":%s,"stock":%s}\n' "$id" "${honest[$id]}" "${stock[$id]}"; done | sort >expected
  "$program" query --format jsonl "SELECT c.id, c.price, c.stock FROM c" 2>/dev/null | sort >found
  cmp -s expected found
}
echo
proof || { echo "error: the shop is not in the expected state" >&2; diff expected found >&2; exit 1; }
echo "proof      ${#products[@]} products: every price set by a user and every sale is intact, no price of the deployment is left"

echo; echo "And undone, because the revert was a recorded plan:"
undo_of() { sed -n 's/^undo *cosmos-rewind undo \([^ ]*\).*/\1/p' "$1"; }
run undo "$(undo_of reverted)" --yes | tee undone | tail -n 3
if proof; then echo "error: the undo had no effect" >&2; exit 1; fi
# A second revert would find that the undo was the last to write these fields.
run undo "$(undo_of undone)" --yes | tail -n 1 >/dev/null
proof || { echo "error: the undo of the undo is not the revert" >&2; diff expected found >&2; exit 1; }
echo "proof      the undo undone, and all is as after the revert"
