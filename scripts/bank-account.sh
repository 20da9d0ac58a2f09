#!/usr/bin/env bash
# Usage: scripts/bank-account.sh
# A bank account on the local Cosmos DB: one follower captures every booking, another reports every overdraft. Then the
# history shows the earlier balance, and the account is restored. Needs a built cosmos-rewind (COSMOS_REWIND names
# another one than target/release or target/debug). Everything is in memory and gone at the end.
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

# Waits until a line of a file contains a text.
await() {
  for _ in $(seq 200); do grep -q -- "$2" "$1" 2>/dev/null && return; sleep 0.1; done
  echo "error: timed out waiting for $2 in $1" >&2
  exit 1
}
show() { echo; echo "\$ cosmos-rewind $*"; }

"$program" local --port 0 --no-trigger >ready.json 2>local.log &
pids+=($!)
await ready.json endpoint
endpoint=$(sed -E 's/.*"endpoint":"([^"]*)".*/\1/' ready.json)
export CosmosDB__accountEndpoint=$endpoint

show "follow --mode all-versions &"
"$program" follow --mode all-versions --poll 100 2>follow.log &
pids+=($!)
show "follow --mode all-versions --name overdrafts --filter 'doc.balance < 0 && previous.balance >= 0' --sink stdout --pretty &"
"$program" follow --mode all-versions --poll 100 --name overdrafts --sink stdout --pretty \
  --filter 'op == "replace" && doc.balance < 0 && previous.balance >= 0' >overdrafts.txt 2>overdrafts.log &
pids+=($!)
await follow.log "start of every range saved"
await overdrafts.log "start of every range saved"

book() { # balance text
  echo "{\"id\":\"acct-1\",\"pk\":\"acct-1\",\"owner\":\"Ada\",\"balance\":$1,\"booking\":\"$2\"}" |
    "$program" populate --file - >/dev/null 2>&1
  echo "booked     $2: the balance is $1"
}
echo
book 100.00 "opened with 100"
book 250.00 "salary 150"
sleep 1.2
before=$(date -u +%Y-%m-%dT%H:%M:%SZ)
sleep 1.2
book -20.50 "rent 270.50"
book -95.50 "a mistake: 75"
book 4.50 "paid in 100"
await overdrafts.txt balance
sleep 1

echo; echo "the other follower reported the overdraft and nothing else:"
cat overdrafts.txt
show "history --id acct-1 --pk acct-1 --changes-of /balance"
"$program" history --id acct-1 --pk acct-1 --changes-of /balance
show "show --id acct-1 --pk acct-1 --at $before"
"$program" show --id acct-1 --pk acct-1 --at "$before"
show "restore --id acct-1 --pk acct-1 --at $before --only /balance --yes"
"$program" restore --id acct-1 --pk acct-1 --at "$before" --only /balance --yes
show "query \"SELECT c.id, c.balance, c.booking FROM c\""
"$program" query "SELECT c.id, c.balance, c.booking FROM c"
