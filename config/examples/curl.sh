#!/bin/sh
# The calls of a till, one curl each. Stops at the first that fails.
#   ./curl.sh [http://127.0.0.1:7360]
# On the LAN: add --cacert FILE and -H "Authorization: Bearer TOKEN" to each, or --cert and --key of the till (see till.sh).
set -eu
cd "$(dirname "$0")"
url=${1:-http://127.0.0.1:7360}

curl -sS --fail-with-body -H 'Content-Type: application/json' --data-binary @count.json "$url/v1/stock-movements"; echo
curl -sS --fail-with-body -H 'Content-Type: application/json' --data-binary @sale.json "$url/v1/transactions"; echo
curl -sS --fail-with-body -H 'Content-Type: application/json' --data-binary @return.json "$url/v1/transactions"; echo
curl -sS --fail-with-body -H 'Content-Type: application/json' --data-binary @fulfillment.json "$url/v1/fulfillment-updates"; echo
curl -sS --fail-with-body "$url/v1/receipts/3/2026-11-23/1187"; echo
curl -sS --fail-with-body "$url/v1/stock/85123A"; echo
