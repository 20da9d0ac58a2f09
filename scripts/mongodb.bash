# Shared by the MongoDB scripts, which source it with $script, their own path, and with their arguments.
#
#   setup ARGUMENT...   parses --help and --mongodb URL, finds the program and the peers, changes to a temporary folder, and starts
#                       the test server unless a URL was given; exports MONGODB_URI. All processes of $pids end with the script.
#   account             starts the embedded account for history and leases; exports CosmosDB__accountEndpoint
#   await FILE TEXT     waits until a line of a file contains a text
#   show WORD...        prints a command as it would be typed
#   run WORD...         prints and runs a command
#   failed TEXT         ends the script with a failure

export RUST_BACKTRACE=0 PYTHONDONTWRITEBYTECODE=1
pids=()

failed() {
  echo "FAILED     $*" >&2
  exit 1
}

finish() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}

await() {
  for _ in $(seq 300); do grep -q -- "$2" "$1" 2>/dev/null && return; sleep 0.1; done
  echo "error: timed out waiting for $2 in $1" >&2
  tail -n 5 -- *.log >&2 || true
  exit 1
}

show() {
  local shown="" word
  for word in "$@"; do
    word=${word//${store:-no store}/\$STORE}
    case $word in *[\ \'\<\"]*) word="'$word'" ;; esac
    shown="$shown $word"
  done
  printf '\n$ cosmos-rewind%s\n' "$shown"
}

run() {
  show "$@"
  "$program" "$@" 2>&1
}

setup() {
  local uri=''
  case ${1:-}:${2:-} in
    :) ;;
    -h:* | --help:*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$script"; exit 0 ;;
    --mongodb:mongodb://* | --mongodb:mongodb+srv://*) uri=$2 ;;
    *) echo "usage: $script [--mongodb URL]" >&2; exit 2 ;;
  esac
  local root peers
  root=$(cd "$(dirname "$script")/.." && pwd)
  program=${COSMOS_REWIND:-$root/target/release/cosmos-rewind}
  [[ -x $program ]] || program=$root/target/debug/cosmos-rewind
  [[ -x $program ]] || { echo "error: no cosmos-rewind; run cargo build" >&2; exit 1; }
  peers=$root/target/test-peers
  if [[ ! -f $peers/installed || ! -x $peers/venv/bin/secantusd-py ]]; then
    echo "error: pymongo, the MongoDB test server or the blob store is not installed; run scripts/install-test-peers.sh" >&2
    exit 1
  fi
  people=("$peers/venv/bin/python" "${script%.sh}.py")
  azurite=$peers/node/node_modules/azurite/dist/src/blob/main.js
  work=$(mktemp -d)
  cd "$work"
  trap finish EXIT
  # Ctrl-C stops the started processes as well.
  trap 'exit 130' INT TERM
  if [[ -z $uri ]]; then
    "$peers/venv/bin/secantusd-py" --host 127.0.0.1 --port 0 --storage-path "$work/data" --oplog-max-entries 1000000 \
      >/dev/null 2>server.log &
    pids+=($!)
    await server.log 'listening on'
    uri="mongodb://$(sed -n 's/.*listening on //p' server.log)/?directConnection=true"
  fi
  export MONGODB_URI=$uri
}

account() {
  "$program" local --port 0 --no-trigger >ready.json 2>local.log &
  pids+=($!)
  await ready.json endpoint
  CosmosDB__accountEndpoint=$(sed -E 's/.*"endpoint":"([^"]*)".*/\1/' ready.json)
  export CosmosDB__accountEndpoint
}

# Azurite with its blobs in a folder: on a free port the first time, and on the same port after a restart. Sets $store
# and $store_pid.
blob_store() {
  local port=${store_port:-0}
  : >store.log
  node "$azurite" --blobPort "$port" --location "$work/blobs" --skipApiVersionCheck --disableTelemetry --silent \
    >store.log 2>&1 &
  store_pid=$!
  pids+=("$store_pid")
  await store.log 'successfully listens on'
  store=$(sed -n -E 's/.*listens on +([^ ]+).*/\1/p' store.log | head -n 1)
  store_port=${store##*:}
  store=$store/devstoreaccount1
}
