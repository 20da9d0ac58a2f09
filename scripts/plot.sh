#!/usr/bin/env bash
# Usage: scripts/plot.sh [--tables]
# Makes the plots (docs/performance/*.svg) and the tables of docs/performance/*.md from the raw results next to the
# plots, which scripts/bench-capture.sh --csv, scripts/bench-curves.sh and scripts/bench-ru.sh write. --tables makes
# only the tables and needs only python3; otherwise matplotlib is installed into target/plot
# (scripts/plot-requirements.txt).
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
  --tables) exec python3 scripts/plot.py --tables ;;
  "") ;;
  *) sed -n '2s/^# //p' "$0" >&2; exit 2 ;;
esac
venv=target/plot
if [[ ! -f $venv/installed || "$(cat "$venv/installed")" != "$(cat scripts/plot-requirements.txt)" ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r scripts/plot-requirements.txt
  cp scripts/plot-requirements.txt "$venv/installed"
fi
exec "$venv/bin/python" scripts/plot.py
