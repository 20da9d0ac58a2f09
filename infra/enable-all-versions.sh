#!/usr/bin/env bash
# Switches on the all-versions-and-deletes change feed of the account, when the mode asks for it. The service refuses
# this while an account is created, so the template cannot. A provisioning puts the account again, without the feature:
# azd runs this after each one. Whoever deploys in another way must do the same.
# Not run where this was written: there was no Azure.
#
# Usage: infra/enable-all-versions.sh
# Reads REWIND_MODE, AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and REWIND_COSMOS_ACCOUNT, as azd sets them.
# Needs the Azure CLI, signed in (az login). The service can take half an hour to switch it on.
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

# The property exists in preview versions of the API only, from 2025-05-01-preview on.
url="https://management.azure.com/subscriptions/$AZURE_SUBSCRIPTION_ID/resourceGroups/$AZURE_RESOURCE_GROUP/providers/Microsoft.DocumentDB/databaseAccounts/$REWIND_COSMOS_ACCOUNT?api-version=2025-11-01-preview"
read_account() { az rest --method get --url "$url" --query "$1" --output tsv; }
# The account takes no other change while one is under way.
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
