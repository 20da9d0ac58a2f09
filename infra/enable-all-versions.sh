#!/usr/bin/env bash
# Enables the account's all-versions-and-deletes change feed if the mode requires it. The service refuses this while it
# creates an account, so the template cannot do it. Each provisioning rewrites the account without the feature, so azd
# runs this script after each one. Other deployments must do the same.
# Never run against Azure so far, because none was available.
#
# Usage: infra/enable-all-versions.sh
# Reads REWIND_MODE, AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and REWIND_COSMOS_ACCOUNT, as azd sets them.
# Needs the Azure CLI, signed in (az login). Enabling the feature can take half an hour.
set -euo pipefail

case "${1:-}" in
  "") ;;
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  *) echo "usage: $0" >&2; exit 2 ;;
esac

mode=${REWIND_MODE:-latest}
if [[ $mode != all-versions ]]; then
  echo "change feed mode $mode: nothing to switch on"
  exit 0
fi
for name in AZURE_SUBSCRIPTION_ID AZURE_RESOURCE_GROUP REWIND_COSMOS_ACCOUNT; do
  [[ -n ${!name:-} ]] || { printf 'error: %s is not set\n  fix: run it through azd, or export it\n' "$name" >&2; exit 2; }
done
command -v az >/dev/null || { printf 'error: the Azure CLI is not installed\n  fix: https://aka.ms/azure-cli, or switch the feature on in the portal (Features)\n' >&2; exit 1; }

# The property exists only in preview versions of the API, since 2025-05-01-preview.
url="https://management.azure.com/subscriptions/$AZURE_SUBSCRIPTION_ID/resourceGroups/$AZURE_RESOURCE_GROUP/providers/Microsoft.DocumentDB/databaseAccounts/$REWIND_COSMOS_ACCOUNT?api-version=2025-11-01-preview"
read_account() { az rest --method get --url "$url" --query "$1" --output tsv; }
# The account accepts no other change while one is in progress.
settled() {
  for _ in $(seq 60); do
    [[ $(read_account properties.provisioningState) == Succeeded ]] && return 0
    sleep 30
  done
  printf 'error: the account is still being changed after half an hour\n  fix: look at its Activity log, then run this again\n' >&2
  exit 1
}
settled
if [[ $(read_account properties.enableAllVersionsAndDeletesChangeFeed) == true ]]; then
  echo "all-versions change feed: on already"
  exit 0
fi
az rest --method patch --url "$url" --body '{"properties":{"enableAllVersionsAndDeletesChangeFeed":true}}' --output none
settled
if [[ $(read_account properties.enableAllVersionsAndDeletesChangeFeed) == true ]]; then
  echo "all-versions change feed: switched on"
  exit 0
fi
printf 'error: the account is settled and the all-versions change feed is off\n  fix: look at the account'\''s Features page, then run this again\n' >&2
exit 1
