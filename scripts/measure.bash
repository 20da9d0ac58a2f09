# Shared by the benchmarks, which source it with the repository as working directory.
#
#   flags KINDS ARGUMENT...         parses flags with values into variables of their names, by KINDS; an invalid one ends the script
#   program                         sets $bin to the program of --binary, or builds the release binary
#   local_account ARGUMENT...       starts the embedded account with its trigger; stops it when the script ends
#   blob_store                      starts Azurite with in-memory blobs; sets $blob to its URL
#   measured LABEL COUNT ARG...     runs the program once and prints a row of `header`: seconds, COUNT per second, CPU seconds and peak
#                                   memory of the process, and its reported request units; its output is in DIR/out and DIR/err
#   watch_process PID               waits until a process ends, and reports its usage
# They need $dir, a folder for output. Every process of $pids ends with the script; a script with its own trap must call
# `end_processes` there.

# Without this, the client library captures a backtrace for every operation.
export RUST_BACKTRACE=0
pids=()

end_processes() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap end_processes EXIT

usage() {
  sed -n '2s/^# //p' "scripts/${0##*/}" >&2
  exit 2
}

flags() { # words such as documents=number, then the script's arguments
  local name value
  local -A kinds
  for name in $1; do kinds[${name%=*}]=${name#*=}; done
  shift
  while [ $# -gt 0 ]; do
    name=${1#--} value=${2:-}
    [[ $1 == --?* && -v kinds[$name] ]] || usage
    case ${kinds[$name]}:$value in
      number:[1-9]* | text:?*) ;;
      file:?*) value=$(realpath "$value") ;;
      *) usage ;;
    esac
    printf -v "$name" %s "$value"
    shift 2
  done
}

program() {
  bin=${binary:-}
  [ -n "$bin" ] || release_binary
  [ -x "$bin" ] || { echo "error: $bin is not a program" >&2; exit 1; }
}

release_binary() {
  cargo build --release --quiet
  bin=$PWD/target/release/cosmos-rewind
}

local_account() {
  "$bin" local --port 0 "$@" >"$dir/local.out" 2>"$dir/local.err" &
  local_pid=$!
  pids+=("$local_pid")
  until [ -s "$dir/local.out" ]; do sleep 0.1; kill -0 "$local_pid"; done
  CosmosDB__accountEndpoint=$(sed -E 's/.*"endpoint":"([^"]*)".*/\1/;1q' "$dir/local.out")
  export CosmosDB__accountEndpoint
}

# Stops the account before another one is started.
end_account() {
  [ -n "${local_pid:-}" ] || return 0
  kill "$local_pid" 2>/dev/null || true
  wait "$local_pid" 2>/dev/null || true
  rm -f "$dir/local.out" "$dir/local.err"
  unset CosmosDB__accountEndpoint
}

# The path of the tests' blob store, once scripts/install-test-peers.sh has run.
azurite=$PWD/target/test-peers/node/node_modules/azurite/dist/src/blob/main.js

blob_store() {
  : >"$dir/azurite.out"
  node "$azurite" --blobPort 0 --inMemoryPersistence --skipApiVersionCheck --disableTelemetry --silent >"$dir/azurite.out" 2>&1 &
  local pid=$!
  pids+=("$pid")
  until grep -q 'listens on' "$dir/azurite.out"; do sleep 0.1; kill -0 "$pid"; done
  blob=$(sed -n -E 's/.*listens on +([^ ]+).*/\1/p' "$dir/azurite.out" | head -n 1)/devstoreaccount1
}

# Writes documents of about 1 KB, one per line, ten to a partition key.
kilobytes() { # how many
  awk -v n="$1" 'BEGIN { pad = sprintf("%900s", ""); gsub(/ /, "x", pad)
    for (i = 0; i < n; i++) printf "{\"id\":\"doc-%07d\",\"pk\":\"key-%06d\",\"n\":%d,\"text\":\"%s\"}\n", i, i / 10, i, pad }'
}

# Waits until the history has this many versions. Beside them it may have notes, about a restore or the trigger.
captured() { # how many
  local count=0
  until [ "$count" = "$1" ]; do
    sleep 2
    kill -0 $local_pid
    count=$("$bin" query --in changes --count "SELECT c.id FROM c WHERE NOT IS_DEFINED(c._restore)" 2>/dev/null | grep -oE '[0-9,]+' | tr -d , | head -n 1)
  done
}

header() { # what is counted
  echo "| step | seconds | $1/s | CPU s of the command | peak RSS MB | request units |"
  echo "|---|---|---|---|---|---|"
}

# Waits until a process ends. Sets $ticks to its last observed CPU time in clock ticks (user and system), $peak to its
# peak memory in KB, and $status to its exit code.
watch_process() { # its id
  local stat line fields
  ticks=0 peak=0 status=0
  while kill -0 "$1" 2>/dev/null; do
    if { read -r stat <"/proc/$1/stat"; } 2>/dev/null; then
      # The name in brackets may contain anything; utime and stime are the 12th and 13th fields after it.
      read -r -a fields <<<"${stat##*) }"
      [ "${fields[0]}" = Z ] || ticks=$((fields[11] + fields[12]))
    fi
    while read -r line; do
      [[ $line == VmHWM:* ]] && { peak=${line//[^0-9]/}; break; }
    done 2>/dev/null <"/proc/$1/status" || true
    sleep 0.01
  done
  wait "$1" || status=$?
}

measured() {
  local label=$1 count=$2 from to ticks peak status; shift 2
  from=$(date +%s.%N)
  "$bin" "$@" >"$dir/out" 2>"$dir/err" &
  watch_process $!
  [ "$status" = 0 ] || { echo "$label: exit code $status"; tail -n 5 "$dir/err"; }
  to=$(date +%s.%N)
  awk -v l="$label" -v c="$count" -v a="$from" -v b="$to" -v p="$peak" -v t="$ticks" -v hz="$(getconf CLK_TCK)" \
    'BEGIN { printf "| %s | %.1f | %.0f | %.1f | %.0f |", l, b - a, c / (b - a), t / hz, p / 1024 }'
  printf ' %s |\n' "$({ grep -ohE 'about [0-9]+ RU|applied .* expected|[0-9.,]+ RU, [0-9.]+ s|^ru .*' "$dir/err" "$dir/out" || true; } | tr -s ' ' | paste -sd ';' | sed 's/;/; /g')"
}
