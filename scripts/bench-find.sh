#!/usr/bin/env bash
# Usage: scripts/bench-find.sh [--documents N] [--versions N] [--long N] [--binary PATH]
# Measures `find` on the local account: N documents (100,000) of 1 KB with --versions versions each (10), a second
# apart, in which the last version damaged every hundredth document; and one document with --long versions (100,000),
# damaged from its middle on. The records are written into the history in their captured form. Prints seconds,
# versions/s, CPU time and peak memory of the command, and request units (the emulator's model).
set -euo pipefail
cd "$(dirname "$0")/.."
documents=100000 versions=10 long=100000
. scripts/measure.bash
flags "documents=number versions=number long=number binary=file" "$@"
dir=$(mktemp -d)
program
local_account --mode all-versions --no-trigger
cd "$dir"
"$bin" provision >out 2>err
start=1700000000

# Writes one record per line: the versions of each document in order, or all versions of one document.
records() { # documents, versions, prefix, the version from which on the price is negative, of every so many documents
  awk -v n="$1" -v v="$2" -v prefix="$3" -v bad="$4" -v every="$5" -v start=$start 'BEGIN { pad = sprintf("%900s", ""); gsub(/ /, "x", pad)
    for (i = 0; i < n; i++) for (j = 0; j < v; j++) {
      id = sprintf("%s-%07d", prefix, i); pk = sprintf("key-%06d", i / 10)
      printf "{\"id\":\"%s~e%d\",\"pk\":\"%s\",\"_originalId\":\"%s\",\"price\":%d,\"updatedBy\":\"%s\",\"text\":\"%s\",", id, j, pk, id, (i % every == 0 && j >= bad) ? -1 : j + 1, (j >= bad) ? "batch" : "shop", pad
      printf "\"_change\":{\"v\":1,\"op\":\"%s\",\"ts\":%d,\"lsn\":%d,%s\"etag\":\"\\\"e%d-%d\\\"\",\"key\":[\"%s\"],\"fidelity\":\"exact\",\"via\":\"trigger\"}}\n", j ? "replace" : "create", start + j * 3600 + i % 3600, i * v + j + 1, j ? sprintf("\"prevLsn\":%d,", i * v + j) : "", i, j, pk
    } }'
}
written() { "$bin" populate --source changes --changes events --file "$1" --concurrency 256 >out 2>err || { cat err; exit 1; }; rm "$1"; }

kilobytes "$documents" >documents.jsonl
"$bin" populate --file documents.jsonl --concurrency 256 >out 2>err
records "$documents" "$versions" doc $((versions - 1)) 100 >records.jsonl
written records.jsonl
all=$((documents * versions))
header versions
measured "find, nothing" "$all" find --when 'doc.price < -5' --format jsonl
measured "find" "$all" find --when 'doc.price < 0' --actor /updatedBy --format jsonl
measured "find --sql" "$all" find --sql 'c.price < 0' --format jsonl
measured "find in the last hour" "$documents" find --when 'doc.price < 0' --from $((start + (versions - 1) * 3600)) --format jsonl
measured "find in ten seconds" "$((documents / 360))" find --when 'doc.price < 0' --from $((start + (versions - 1) * 3600 + 100)) --to $((start + (versions - 1) * 3600 + 109)) --format jsonl
measured "find --first" "$all" find --when 'doc.price < 0' --first --format jsonl

records 1 "$long" long $((long / 2)) 1 >records.jsonl
written records.jsonl
measured "find in one document" "$long" find --when 'doc.price < 0' --id long-0000000 --format jsonl
measured "the same, --flips-once" "$long" find --when 'doc.price < 0' --id long-0000000 --flips-once --format jsonl
