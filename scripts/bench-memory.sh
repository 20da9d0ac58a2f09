#!/usr/bin/env bash
# Usage: scripts/bench-memory.sh [--documents N] [--binary PATH]
# Measures the peak memory of the commands that read a lot, on the local account with its trigger: 2,500 documents of
# 100 KB, fifty to a partition key; 1,500 versions of 100 KB of one document, written as fast as possible; N documents
# of 1 KB (100,000). Prints a table for each, as in docs/performance.
set -euo pipefail
cd "$(dirname "$0")/.."
documents=100000
. scripts/measure.bash
flags "documents=number binary=file" "$@"
dir=$(mktemp -d)
program

# Writes documents of about 100 KB, one per line; all have the same id when the third argument names it.
large() { # how many, how many a key, id
  awk -v n="$1" -v k="$2" -v id="${3:-}" 'BEGIN {
    pad = "x"; while (length(pad) < 100000) pad = pad pad; pad = substr(pad, 1, 100000)
    for (i = 0; i < n; i++) print "{\"id\":\"" (id == "" ? "doc-" i : id) "\",\"pk\":\"key-" (id == "" ? int(i / k) : 0) "\",\"n\":" i ",\"text\":\"" pad "\"}" }'
}

# Stops the account of the previous part, so that each part starts with an empty one.
account() {
  end_account
  local_account --mode all-versions
}

# The commands that read many documents.
many() { # how many
  header documents
  measured "show --where" "$1" show --where "c.n >= 0"
  measured "diff --where" "$1" diff --where "c.n >= 0" --from now --to now
  measured "history --where" "$1" history --where "c.n >= 0" --format jsonl
  measured "history --where --changes-of" "$1" history --where "c.n >= 0" --changes-of /n --format jsonl
  measured "restore --where --dry-run" "$1" restore --where "c.n >= 0" --at now --dry-run
  measured "restore --all --dry-run" "$1" restore --all --at now --dry-run
}

echo "2,500 documents of 100 KB"
echo
account
large 2500 50 >"$dir/large.jsonl"
"$bin" populate --file "$dir/large.jsonl" --concurrency 8 >"$dir/out" 2>"$dir/err"
captured 2500
many 2500

echo
echo "1,500 versions of 100 KB of one document"
echo
account
large 1500 1500 one >"$dir/large.jsonl"
"$bin" populate --file "$dir/large.jsonl" --concurrency 1 >"$dir/out" 2>"$dir/err"
captured 1500
header versions
measured "show --id" 1500 show --id one
measured "diff --id" 1500 diff --id one --from "30s ago"
measured "history --id" 1500 history --id one
measured "history --id --changes-of" 1500 history --id one --changes-of /n
measured "restore --id --dry-run" 1500 restore --id one --pk key-0 --at now --dry-run

echo
echo "$documents documents of 1 KB"
echo
account
kilobytes "$documents" >"$dir/documents.jsonl"
"$bin" populate --file "$dir/documents.jsonl" --concurrency 64 >"$dir/out" 2>"$dir/err"
captured "$documents"
many "$documents"
rm -rf "$dir"
