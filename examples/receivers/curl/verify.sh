#!/bin/sh
# Verifies one webhook by hand, with openssl: what you have to sign is "{webhook-id}.{webhook-timestamp}.{body}".
#
#   MEMHOOK_SECRET=whsec_… ./verify.sh webhook-id webhook-timestamp webhook-signature < body
set -eu
key=$(printf '%s' "${MEMHOOK_SECRET#whsec_}" | base64 -d | od -An -tx1 | tr -d ' \n')
expected=$({ printf '%s.%s.' "$1" "$2"; cat; } | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64)
for signature in $3; do
    if [ "$signature" = "v1,$expected" ]; then
        echo verified
        exit 0
    fi
done
echo "no signature matches" >&2
exit 1
