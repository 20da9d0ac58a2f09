#!/usr/bin/env bash
# Usage: scripts/bench-mongodb.sh [--changes N] [--sinks LIST] [--binary PATH]
# Measures a follower of a MongoDB change stream, and a typical pymongo loop over the same stream
# (benches/peers/python/mongodb_watch.py): N (100,000) changes of 1 KB, each to its own document, for each sink of LIST
# (stdout,file,blob). Both save the stream position before the changes, and then run one after the other from there
# until they have caught up; the server's oplog keeps all changes. Prints changes/s, CPU microseconds per change (of the
# reading process alone, /proc/PID/stat, without the server) and peak memory, and the loop's multiples of these. Two
# loops write blobs: over a bare connection, and with the storage SDK. Server and blob store are the test peers
# (scripts/install-test-peers.sh runs first). Builds the release binary unless --binary names one.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD changes=100000 sinks=stdout,file,blob
. scripts/measure.bash
flags "changes=number sinks=text binary=file" "$@"
for sink in ${sinks//,/ }; do
  case $sink in stdout | file | blob) ;; *) echo "error: --sinks $sink: write stdout,file,blob or some of them" >&2; exit 2 ;; esac
done
scripts/install-test-peers.sh >&2
python=$root/target/test-peers/venv/bin/python
peer=("$python" "$root/benches/peers/python/mongodb_watch.py")
program

dir=$(mktemp -d)
cd "$dir"
trap 'end_processes; rm -rf "$dir"' EXIT

: >server.err
# The server trims its oplog on every thousandth write; it must keep everything that both have to read.
"$python" -m secantus --host 127.0.0.1 --port 0 --storage-path "$dir/data" --oplog-max-entries $((changes * 2 + 10000)) \
  >/dev/null 2>server.err &
pids+=($!)
until grep -q 'listening on' server.err; do sleep 0.1; kill -0 "${pids[0]}"; done
uri="mongodb://$(sed -n 's/.*listening on //p' server.err)/?directConnection=true"

blob=''
if [[ ,$sinks, == *,blob,* ]]; then
  blob_store
  for who in ours loop sdk; do "${peer[@]}" container "$blob/$who"; done
fi

# The location of a sink.
place() { # whose, sink
  case $2 in
    stdout) echo stdout ;;
    file) echo "file:$dir/$1.jsonl" ;;
    blob | blob-sdk) echo "$2:$blob/$1" ;;
  esac
}
ours() { # sink
  exec "$bin" follow --source "$uri" --database bench --collection documents --from now --until-caught-up --poll 10 \
    --name "bench-$1" --checkpoint-file "$dir/$1.checkpoint" --sink "$(place ours "$1")"
}
loop() { exec "${peer[@]}" read "$uri" "$dir/$1.token" "$(place loop "$1")"; } # sink
sdk() { exec "${peer[@]}" read "$uri" "$dir/$1-sdk.token" "$(place sdk "$1-sdk")"; } # sink

for sink in ${sinks//,/ }; do
  (ours "$sink") >/dev/null 2>follow.err || { cat follow.err >&2; exit 1; }
  "${peer[@]}" begin "$uri" "$dir/$sink.token"
  cp "$dir/$sink.token" "$dir/$sink-sdk.token"
done
"${peer[@]}" write "$uri" "$changes"

hz=$(getconf CLK_TCK)
measure() { # whose, sink; leaves its figures in `figures`
  local from to ticks peak status
  from=$(date +%s.%N)
  ("$1" "$2") >/dev/null 2>read.err &
  local pid=$!
  pids+=($pid)
  watch_process "$pid"
  [ "$status" = 0 ] || { echo "error: $1 of $2 exited with code $status" >&2; tail -n 5 read.err >&2; exit 1; }
  to=$(date +%s.%N)
  grep -qE "(^|[^0-9])$changes changes? read" <(tr -d , <read.err) || { echo "error: $1 of $2 did not read $changes changes" >&2; tail -n 3 read.err >&2; exit 1; }
  figures=$(awk -v n="$changes" -v a="$from" -v b="$to" -v c="$ticks" -v t="$hz" -v p="$peak" \
    'BEGIN { printf "%.1f %.0f %.1f %.1f", b - a, n / (b - a), c * 1e6 / t / n, p / 1024 }')
}

echo "| sink | reader | seconds | changes/s | CPU us a change | peak RSS MB |"
echo "|---|---|---|---|---|---|"
compare() { # the other reader, its name, sink
  measure "$1" "$3"
  echo "| $3 | $2 | ${figures// / | } |"
  awk -v s="$3" -v n="$2" -v m="$mine" -v f="$figures" 'BEGIN { split(m, a, " "); split(f, b, " ")
    printf "| %s | %s : cosmos-rewind | %.1f | %.2f | %.1f | %.1f |\n", s, n, b[1] / a[1], b[2] / a[2], b[3] / a[3], b[4] / a[4] }'
}
for sink in ${sinks//,/ }; do
  measure ours "$sink"
  mine=$figures
  echo "| $sink | cosmos-rewind | ${mine// / | } |"
  compare loop pymongo "$sink"
  [ "$sink" != blob ] || compare sdk "pymongo and the storage SDK" "$sink"
done
