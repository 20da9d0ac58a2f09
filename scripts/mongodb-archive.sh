#!/usr/bin/env bash
# Usage: scripts/mongodb-archive.sh [--mongodb URL]
# An archive of a MongoDB collection from its first document on (docs/mongodb/archive.md): a follower waits for a
# collection that does not exist yet, and writes each version into its own blob. It is killed (SIGKILL) during writes
# and restarted, and the blob store is unavailable for some seconds. At the end there is exactly one blob for each write
# that pymongo logged. Then a document is damaged and restored from the archive, and the restore is undone. Needs a
# built cosmos-rewind (COSMOS_REWIND names another one than target/release or target/debug) and
# scripts/install-test-peers.sh.
#   --mongodb URL   your own server instead of the test server; uses its database rewind_archive, which must not exist
set -euo pipefail
script=$(realpath "$0")
source "$(dirname "$script")/mongodb.bash"
setup "$@"
blob_store
account
"${people[@]}" container "$store/archive"
"${people[@]}" absent || failed "the database rewind_archive exists already"
trap '"${people[@]}" drop 2>/dev/null || true; finish' EXIT

of=(--database rewind_archive --collection orders)
follow=(follow "${of[@]}" --from beginning --name archive --checkpoint-file archive.json --sink "blob:$store/archive/orders")
start() { # not in a subshell: the pid must be the program's own
  "$program" "${follow[@]}" --poll 100 2>>follow.log &
  follower=$!
  pids+=("$follower")
}
written() { wc -l <writes.jsonl; }
until_written() { until [[ $(written) -ge $1 ]]; do sleep 0.05; kill -0 "$writer" || failed "the writer ended"; done; }

show "${follow[@]}" "&"
start
await follow.log 'start of every range saved'
"${people[@]}" absent || failed "the follower made the collection"
echo "waits      the collection does not exist yet"

: >writes.jsonl
"${people[@]}" write writes.jsonl 600 &
writer=$!
pids+=("$writer")
until_written 200
kill -9 "$follower"
wait "$follower" 2>/dev/null || true
archived=$("${people[@]}" count "$store/archive")
echo "killed     kill -9 after write $(written), with $archived blobs"
until_written 300
start
echo "resumed    at write $(written)"
until_written 400
kill "$store_pid"
wait "$store_pid" 2>/dev/null || true
echo "no store   the blob store was stopped at write $(written)"
until_written 500
blob_store
echo "store      available again at write $(written)"
wait "$writer"
echo "written    600 writes: $(sed -E 's/.*"op": "([a-z]+)".*/\1/' writes.jsonl | sort | uniq -c | awk '{ printf "%s%s %s", n++ ? ", " : "", $1, $2 }')"
for _ in $(seq 300); do
  [[ $("${people[@]}" count "$store/archive") -lt 600 ]] || break
  sleep 0.2
done
"${people[@]}" check writes.jsonl "$store/archive"

# Times are in seconds.
sleep 1.2
good=$(date -u +%Y-%m-%dT%H:%M:%SZ)
sleep 1.2
echo; echo "A document is damaged:"
id=$("${people[@]}" pick writes.jsonl)
"${people[@]}" show "$id" | tee before
"${people[@]}" damage "$id"
"${people[@]}" show "$id" | tee damaged
for _ in $(seq 300); do
  [[ $("${people[@]}" count "$store/archive") -lt 601 ]] || break
  sleep 0.1
done

echo; echo "Restored from the archive; the account stores the overwritten version and the journal:"
containers=(--changes orders-changes --leases orders-leases)
run provision "${of[@]}" "${containers[@]}"
run restore "${of[@]}" "${containers[@]}" --from-archive "blob:$store/archive/orders" --id "$id" --pk "$id" --at "$good" \
  --no-stamp --yes | tee restored
"${people[@]}" show "$id" | tee after
cmp -s before after || failed "the document is not what it was"
echo "proof      pymongo reads the original bytes"

echo; echo "And undone:"
run undo "${of[@]}" "${containers[@]}" "$(sed -n 's/^undo *cosmos-rewind undo \([^ ]*\).*/\1/p' restored)" --yes
"${people[@]}" show "$id" | tee undone
cmp -s damaged undone || failed "the document is not what it was before the restore"
