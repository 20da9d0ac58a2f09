#!/usr/bin/env bash
# Installs the third-party programs that some tests and benchmarks use: the Python and JavaScript SDKs of Cosmos DB,
# Azurite (a blob store), and SecantusDB (a MongoDB server, GPL: only run as a separate process, never linked or
# shipped) with pymongo. They go to target/test-peers. Running it again does nothing.
#
# Usage: scripts/install-test-peers.sh [--force]
#   --force   install again, even if this version is installed
# Needs python3, and node 20 or newer with npm. If python3 has no venv module, it is installed with apt-get (as root).
set -euo pipefail

case "${1:-}" in
  "" | --force) ;;
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  *) echo "usage: $0 [--force]" >&2; exit 2 ;;
esac

cd "$(dirname "$0")/.."
peers=target/test-peers
mkdir -p "$peers"

# The requested versions. They are stored with the installation, so that a change of versions installs again.
wanted=$(cat tests/sdk/requirements.txt tests/sdk/package.json)
if [[ "${1:-}" != --force && -f $peers/installed && "$(cat "$peers/installed")" == "$wanted" ]]; then
  echo "test peers: up to date in $peers"
  exit 0
fi
rm -f "$peers/installed"

for program in python3 node npm; do
  command -v "$program" >/dev/null || { echo "error: $program is not installed" >&2; exit 1; }
done

echo "test peers: Python SDK"
rm -rf "$peers/venv"
if ! python3 -m venv "$peers/venv" 2>/dev/null; then
  # Debian and Ubuntu ship venv (and the pip it brings) as a separate package.
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
  rm -rf "$peers/venv"
  python3 -m venv "$peers/venv"
fi
"$peers/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/sdk/requirements.txt

echo "test peers: JavaScript SDK and Azurite"
mkdir -p "$peers/node"
cp tests/sdk/package.json "$peers/node/package.json"
npm install --prefix "$peers/node" --omit=dev --no-package-lock --no-audit --no-fund --loglevel=error

# Checks that each program starts.
"$peers/venv/bin/python" -c 'import azure.cosmos; print("azure-cosmos", azure.cosmos.__version__)'
"$peers/venv/bin/python" -c 'import pymongo; print("pymongo", pymongo.version)'
"$peers/venv/bin/python" -m secantus --help >/dev/null
echo "SecantusDB $(sed -n 's/^SecantusDB==//p' tests/sdk/requirements.txt)"
(cd "$peers/node" && node -e 'console.log("@azure/cosmos", require("@azure/cosmos/package.json").version)')
echo "azurite $(node "$peers/node/node_modules/azurite/dist/src/blob/main.js" --version 2>/dev/null | tail -1)"
printf '%s\n' "$wanted" >"$peers/installed"
