#!/bin/sh
# Posts documents as a till must: the same bytes again until there is an answer that counts.
#   ./till.sh [http://127.0.0.1:7360]
# On the LAN: TOKEN_FILE=FILE CA_FILE=FILE ./till.sh https://box1.example:7360, where FILE has the token, or the certificates that sign the box's.
set -eu
cd "$(dirname "$0")"
url=${1:-http://127.0.0.1:7360}
# The token goes to curl in a file, so that no list of processes shows it.
config=$(mktemp)
[ -z "${CA_FILE:-}" ] || printf 'cacert = "%s"\n' "$CA_FILE" >>"$config"
[ -z "${TOKEN_FILE:-}" ] || printf 'header = "Authorization: Bearer %s"\n' "$(cat "$TOKEN_FILE")" >>"$config"
answer=$(mktemp)
head=$(mktemp)
trap 'rm -f "$answer" "$head" "$config"' EXIT

# post CALL FILE: 0 once it is recorded; 1 where sending it again cannot help.
post() {
  while :; do
    status=$(curl -K "$config" -sS --max-time 30 -o "$answer" -D "$head" -w '%{http_code}' -H 'Content-Type: application/json' \
      --data-binary "@$2" "$url$1") || status=000
    case $status in
      200 | 201) echo "$2: on the disk ($status)"; return 0 ;;
      409) echo "$2: on the disk beside another document of that name; a person looks" >&2; return 1 ;;
      # No answer says nothing about the document; these say that it was not appended.
      000 | 429 | 5??) sleep "$(wait_s)" ;;
      *) echo "$2: refused ($status): $(cat "$answer")" >&2; return 1 ;;
    esac
  done
}

# What Retry-After says, else a second.
wait_s() {
  said=$(tr -d '\r' <"$head" | sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9][0-9]*\)$/\1/p' | tail -n 1)
  echo "${said:-1}"
}

post /v1/stock-movements count.json
post /v1/transactions sale.json
post /v1/transactions return.json
post /v1/fulfillment-updates fulfillment.json
curl -K "$config" -sS --fail-with-body "$url/v1/receipts/3/2026-11-23/1187"; echo
curl -K "$config" -sS --fail-with-body "$url/v1/stock/85123A"; echo
