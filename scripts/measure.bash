# What the benchmarks share; sourced by them, with the repository as working directory.
#
#   local_account DIR ARGUMENT...   starts the embedded account with its trigger; ends it when the script ends
#   measured LABEL COUNT ARG...     runs the program once and prints a row of `header`: seconds, COUNT a second, CPU seconds and peak
#                                   memory of the process, and what it said about request units; its output is in DIR/out and DIR/err
# Both need $bin, the program, and $dir, a folder for what is written.

# The client library takes a backtrace for every operation otherwise.
export RUST_BACKTRACE=0

release_binary() {
  cargo build --release --quiet
  bin=$PWD/target/release/cosmos-rewind
}

local_account() {
  "$bin" local --port 0 "$@" >"$dir/local.out" 2>"$dir/local.err" &
  local_pid=$!
  trap 'kill $local_pid 2>/dev/null || true; wait $local_pid 2>/dev/null || true' EXIT
  until [ -s "$dir/local.out" ]; do sleep 0.1; kill -0 $local_pid; done
  CosmosDB__accountEndpoint=$(sed -E 's/.*"endpoint":"([^"]*)".*/\1/;1q' "$dir/local.out")
  export CosmosDB__accountEndpoint
}

# One document of about 1 KB a line, in keys of ten documents each.
kilobytes() { # how many
  awk -v n="$1" 'BEGIN { pad = sprintf("%900s", ""); gsub(/ /, "x", pad)
    for (i = 0; i < n; i++) printf "{\"id\":\"doc-%07d\",\"pk\":\"key-%06d\",\"n\":%d,\"text\":\"%s\"}\n", i, i / 10, i, pad }'
}

# Waits until the history has so many items.
captured() { # how many
  local count=0
  until [ "$count" = "$1" ]; do
    sleep 2
    kill -0 $local_pid
    count=$("$bin" query --in changes --count "SELECT c.id FROM c" 2>/dev/null | grep -oE '[0-9,]+' | tr -d , | head -n 1)
  done
}

header() { # what is counted
  echo "| step | seconds | $1/s | CPU s of the command | peak RSS MB | request units |"
  echo "|---|---|---|---|---|---|"
}

measured() {
  local label=$1 count=$2; shift 2
  local from to peak=0 now ticks=0 stat
  from=$(date +%s.%N)
  "$bin" "$@" >"$dir/out" 2>"$dir/err" &
  local pid=$!
  while kill -0 $pid 2>/dev/null; do
    now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2>/dev/null || true)
    [ -n "$now" ] && peak=$now
    # CPU time so far, user and system, in hundredths of a second.
    stat=$(sed 's/.*) //' /proc/$pid/stat 2>/dev/null | awk '{ print $12 + $13 }' || true)
    [ -n "$stat" ] && ticks=$stat
    sleep 0.02
  done
  wait $pid || { echo "$label: exit code $?"; tail -n 5 "$dir/err"; }
  to=$(date +%s.%N)
  awk -v l="$label" -v c="$count" -v a="$from" -v b="$to" -v p="$peak" -v t="$ticks" \
    'BEGIN { printf "| %s | %.1f | %.0f | %.1f | %.0f |", l, b - a, c / (b - a), t / 100, p / 1024 }'
  printf ' %s |\n' "$({ grep -ohE 'about [0-9]+ RU|applied .* expected|[0-9.,]+ RU, [0-9.]+ s|^ru .*' "$dir/err" "$dir/out" || true; } | tr -s ' ' | paste -sd ';' | sed 's/;/; /g')"
}
