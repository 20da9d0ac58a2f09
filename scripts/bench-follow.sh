#!/usr/bin/env bash
# Usage: scripts/bench-follow.sh [--changes N] [--documents N] [--sinks LIST] [--binary PATH]
# Measures a follower on the local account: N (50,000) changes of 1 KB, each to its own document (or to --documents
# documents in turn), in all-versions mode, for each sink of LIST (stdout,changes,file,blob), from the same start until
# it has caught up. Prints changes/s, CPU microseconds per change (of the follower's process alone, /proc/PID/stat) and
# its peak memory. Builds the release binary unless --binary names one. The blob sink needs Azurite
# (scripts/install-test-peers.sh); without it that sink is skipped with a message.
set -euo pipefail
cd "$(dirname "$0")/.."
changes=50000 documents='' sinks=stdout,changes,file,blob
. scripts/measure.bash
flags "changes=number documents=number sinks=text binary=file" "$@"
for sink in ${sinks//,/ }; do
  case $sink in stdout | changes | file | blob) ;; *) echo "error: --sinks $sink: write stdout,changes,file,blob or some of them" >&2; exit 2 ;; esac
done
program

dir=$(mktemp -d)
cd "$dir"
trap 'end_processes; rm -rf "$dir"' EXIT

local_account --no-trigger

blob=''
if [[ ,$sinks, == *,blob,* ]]; then
  if [ -f "$azurite" ] && command -v node >/dev/null; then
    blob_store
    blob=$blob/bench
    # Azurite's default account; Microsoft publishes its key, so it is not a secret.
    BLOB=$blob node -e '
      const crypto = require("crypto"), http = require("http"), url = new URL(process.env.BLOB + "?restype=container");
      const key = Buffer.from("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==", "base64");
      const date = new Date().toUTCString(), headers = { "x-ms-date": date, "x-ms-version": "2021-12-02", "content-length": "0" };
      const text = "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:" + date + "\nx-ms-version:2021-12-02\n/devstoreaccount1" + url.pathname + "\nrestype:container";
      headers.authorization = "SharedKey devstoreaccount1:" + crypto.createHmac("sha256", key).update(text, "utf8").digest("base64");
      http.request(url, { method: "PUT", headers }, (answer) => {
        if (answer.statusCode !== 201) { console.error("error: Azurite answered " + answer.statusCode); process.exitCode = 1; }
        answer.resume();
      }).end();'
  else
    echo "SKIPPED: the blob sink: Azurite is not installed; run scripts/install-test-peers.sh" >&2
  fi
fi

# The start of every follower, then the documents: about 1 KB each, ten to a partition key.
follow() { "$bin" follow --mode all-versions --from now --until-caught-up --poll 10 --lease 2 "$@"; }
for sink in ${sinks//,/ }; do follow --name "bench-$sink" --sink stdout >/dev/null 2>follow.err || { cat follow.err >&2; exit 1; }; done
awk -v n="$changes" -v m="${documents:-$changes}" 'BEGIN { pad = sprintf("%900s", ""); gsub(/ /, "x", pad)
  for (i = 0; i < n; i++) printf "{\"id\":\"doc-%07d\",\"pk\":\"key-%06d\",\"n\":%d,\"text\":\"%s\"}\n", i % m, (i % m) / 10, i, pad }' >documents.jsonl
"$bin" populate --file documents.jsonl --concurrency 64 >populate.out 2>populate.err || { cat populate.err >&2; exit 1; }

hz=$(getconf CLK_TCK)
measure() { # sink, its argument
  local from to ticks peak status
  from=$(date +%s.%N)
  "$bin" follow --mode all-versions --from now --until-caught-up --poll 10 --lease 2 --name "bench-$1" --sink "$2" >/dev/null 2>follow.err &
  local pid=$!
  pids+=($pid)
  watch_process "$pid"
  [ "$status" = 0 ] || { echo "error: the follower with sink $1 exited with code $status" >&2; tail -n 5 follow.err >&2; exit 1; }
  to=$(date +%s.%N)
  grep -q ": $(printf "%'d" "$changes" | tr -d ,) changes\? read" <(tr -d , <follow.err) || { echo "error: $1 did not read $changes changes" >&2; tail -n 3 follow.err >&2; exit 1; }
  awk -v s="$1" -v n="$changes" -v a="$from" -v b="$to" -v c="$ticks" -v t="$hz" -v p="$peak" \
    'BEGIN { printf "| %s | %.1f | %.0f | %.1f | %.1f |\n", s, b - a, n / (b - a), c * 1e6 / t / n, p / 1024 }'
}

echo "| sink | seconds | changes/s | CPU us a change | peak RSS MB |"
echo "|---|---|---|---|---|"
for sink in ${sinks//,/ }; do
  case $sink in
    stdout | changes) measure "$sink" "$sink" ;;
    file) measure file "file:$dir/events.jsonl" ;;
    blob) [ -z "$blob" ] || measure blob "blob:$blob/all" ;;
  esac
done
