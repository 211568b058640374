#!/usr/bin/env bash
# From five photos of a teapot to pictures of it in places where it never was, with the built-in base. Called by `make demo`
# with the folder of the binaries. Runs as often as you like: the run and the pictures of an earlier time are replaced.
set -euo pipefail
binaries=$(realpath "${1:?usage: scripts/demo.sh FOLDER}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PERSONALIZE_CONFIG PERSONALIZE_BASE # those of your own are for your own runs

readonly photos=assets/toybox/concepts/teapot run=runs/demo pictures=out/demo
readonly places=('on the beach' 'in the city' 'in the forest' 'on a wooden floor')

say() { printf '\ndemo: %s\n' "$*"; }

say "learning <my-teapot> from the five photos in $photos"
"$binaries/personalize" train --photos "$photos" --concept '<my-teapot>' --class teapot --method ti \
  --steps 400 --seed 1 --output "$run" --force >/dev/null

say "drawing it in four places that no photo shows"
prompts=()
for place in "${places[@]}"; do prompts+=(--prompt "a photo of a <my-teapot> $place"); done
mapfile -t drawn < <("$binaries/personalize" generate --concept "$run/my-teapot.safetensors" "${prompts[@]}" \
  --seed 7 --steps 25 --guidance 4 --force --output "$pictures")

board=()
for photo in "$photos"/*.png; do board+=("$photo=photo"); done
for i in "${!drawn[@]}"; do board+=("${drawn[i]}=my teapot ${places[i]}"); done
"$binaries/toybox" board --columns 5 "$pictures/sheet.png" "${board[@]}" >/dev/null

say "done in $SECONDS seconds
  the concept    $run/my-teapot.safetensors
  the pictures   $pictures
  all at once    $pictures/sheet.png (photos above, pictures below)"
