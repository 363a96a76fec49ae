#!/bin/sh
# Segment an image on a segrt server, with curl and jq:
#   ./client.sh http://localhost:8080 road.png result.jpg
set -eu
server=$1 picture=$2 output=$3
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

base64 <"$picture" | tr -d '\n' | jq -R '{image: ., visualize: true}' |
    curl -sS -H 'Content-Type: application/json' --data-binary @- -o "$answer" \
        "$server/semantic-segmentation"
if [ "$(jq .errorCode "$answer")" != 0 ]; then
    jq -r .errorMsg "$answer" >&2
    exit 1
fi

shares=$(jq -r '(.result.classes | map({key: "\(.id)", value: .name}) | from_entries) as $names
    | .result.labelMap | length as $all
    | reduce .[] as $id ([]; .[$id] += 1)
    | to_entries | map(select(.value)) | sort_by(-.value)[]
    | "\(100 * .value / $all) \($names["\(.key)"])"' "$answer")
jq -r '.result.size | "\(.[1]) x \(.[0])"' "$answer"
printf '%s\n' "$shares" | while read -r share name; do
    LC_ALL=C printf '%6.2f %%  %s\n' "$share" "$name"
done
jq -r .result.image "$answer" | base64 -d >"$output"
