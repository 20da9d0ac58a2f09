#!/usr/bin/env bash
# Usage: scripts/bench-revert.sh [--documents N] [--past N] [--binary PATH]
# Measures `revert` and `at` on the local account with its trigger. N documents (10,000) of 1 KB get ten versions each:
# five honest writes, one bad write of a price, and four honest writes that keep the bad price; then the bad write is
# planned and reverted. For `at`, an account of the past with --past documents (100,000) of 1 KB: seconds until it
# listens, of a point read meanwhile, and until everything is loaded.
set -euo pipefail
cd "$(dirname "$0")/.."
documents=10000 past=100000
. scripts/measure.bash
flags "documents=number past=number binary=file" "$@"
dir=$(mktemp -d)
program
local_account --mode all-versions
cd "$dir"

# One round of writes: every writer increments a counter, and only the job sets a price.
round() { # number, price, who
  awk -v n="$documents" -v r="$1" -v price="$2" -v by="$3" 'BEGIN { pad = sprintf("%860s", ""); gsub(/ /, "x", pad)
    for (i = 0; i < n; i++) printf "{\"id\":\"doc-%07d\",\"pk\":\"key-%06d\",\"n\":%d,\"price\":%s,\"updatedBy\":\"%s\",\"text\":\"%s\"}\n", i, i / 10, r, (price == "" ? i % 100 + 1 : price), by, pad }' >round.jsonl
  "$bin" populate --file round.jsonl --concurrency 64 >out 2>err
}
for number in 1 2 3 4 5; do round $number "" shop; done
sleep 2
from=$(date +%s)
round 5 -1 job
to=$(date +%s)
sleep 2
for number in 6 7 8 9; do round $number -1 shop; done
captured $((documents * 10))

revert=(revert --from "$from" --to "$to" --filter 'doc.updatedBy == "job"' --bookkeeping /updatedBy)
header documents
measured "revert --dry-run" "$documents" "${revert[@]}" --dry-run --format csv
measured "revert" "$documents" "${revert[@]}" --yes --max "$documents"
id=$(sed -n 's/^undo *cosmos-rewind undo \([^ ]*\).*/\1/p' err)
bad() { "$bin" query --count "SELECT c.id FROM c WHERE c.price < 0 OR c.n != 9" 2>/dev/null | grep -oE '[0-9,]+'; }
[ "$(bad)" = 0 ] || { echo "error: the bad writes are not fully reverted, or an honest write is lost" >&2; exit 1; }
measured "undo" "$documents" undo "$id" --yes --max "$documents"

# The past as an account.
end_account
cd - >/dev/null
local_account --mode all-versions
cd "$dir"
kilobytes "$past" >documents.jsonl
"$bin" populate --file documents.jsonl --concurrency 64 >out 2>err
captured "$past"
sleep 2
started=$(date +%s.%N)
"$bin" at "$(($(date +%s) - 1))" >past.out 2>past.err &
at_pid=$!
pids+=("$at_pid")
until [ -s past.out ]; do sleep 0.01; kill -0 $at_pid; done
ready=$(date +%s.%N)
point_reads() { # what is printed of the reads; they are spread over all documents
  python3 - "$past" <<'READ'
import base64, email.utils, hashlib, hmac, json, statistics, sys, time, urllib.parse, urllib.request
count = int(sys.argv[1])
ready = json.loads(open("past.out").readline())
def read(i):
    link = f"dbs/{ready['database']}/colls/{ready['containers'][0]}/docs/doc-{i:07d}"
    date = email.utils.formatdate(usegmt=True)
    text = f"get\ndocs\n{link}\n{date.lower()}\n\n"
    signed = base64.b64encode(hmac.new(base64.b64decode(ready["key"]), text.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": "2020-07-15", "authorization": urllib.parse.quote(f"type=master&ver=1.0&sig={signed}", safe=""),
               "x-ms-documentdb-partitionkey": json.dumps([f"key-{i // 10:06d}"])}
    started = time.monotonic()
    with urllib.request.urlopen(urllib.request.Request(ready["endpoint"].rstrip("/") + "/" + link, headers=headers)) as answer:
        assert json.load(answer)["n"] == i
    return (time.monotonic() - started) * 1000
first = read(count - 1)
more = [read(i * (count // 21)) for i in range(20)]
print(f"the first {first:.0f} ms, the median of 20 more {statistics.median(more):.0f} ms")
READ
}
reads=$(point_reads)
grep -q loaded past.out && during="already loaded" || during="while it loads"
until grep -q loaded past.out; do sleep 0.05; kill -0 $at_pid; done
loaded=$(date +%s.%N)
peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$at_pid/status)
cpu=$(sed 's/.*) //' /proc/$at_pid/stat | awk '{ print ($12 + $13) / 100 }')
echo
awk -v n="$past" -v s="$started" -v r="$ready" -v l="$loaded" -v p="$peak" -v c="$cpu" -v reads="$reads" -v during="$during" \
  'BEGIN { printf "at, %d documents: listens after %.2f s; point reads %s: %s; loaded after %.1f s, CPU %.1f s, peak RSS %.0f MB\n", n, r - s, during, reads, l - s, c, p / 1024 }'
tail -n 1 past.err
