#!/usr/bin/env bash
# From photos to new pictures, with what lies in the repository. Called by `make demo` with the path of the binary.
# Runs as often as you like: the run and the pictures of an earlier time are replaced.
set -euo pipefail
binary=$(realpath "${1:?usage: scripts/demo.sh BINARY}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PERSONALIZE_CONFIG # a configuration of your own is for your own runs

readonly base=.bases/demo photos=assets/demo/photos run=runs/demo pictures=out/demo

say() { printf '\ndemo: %s\n' "$*"; }

say "this uses a tiny base with RANDOM weights, so its pictures are noise textures: they show only that the whole path works"

if [[ ! -f $base/model_index.json ]]; then
  mkdir -p .bases
  rm -rf "$base" "$base.tmp"
  "$binary" random-base --like tests/fixtures/sd1 --output "$base.tmp" >/dev/null
  mv "$base.tmp" "$base" # never half a base under the name that is looked for
fi

say "learning <duck> from the four pictures in $photos"
"$binary" train --photos "$photos" --concept '<duck>' --class duck --base "$base" \
  --method ti --steps 60 --seed 1 --output "$run" --force >/dev/null

say "drawing it"
"$binary" generate --concept "$run/duck.safetensors" --base "$base" \
  --prompt 'a photo of <duck>' --prompt 'a photo of <duck> in the snow' \
  --prompt 'a painting of <duck>' --prompt '<duck> on a red table' \
  --seed 7 --steps 20 --grid --force --output "$pictures" >/dev/null

say "done in $SECONDS seconds
  the concept    $run/duck.safetensors
  the pictures   $pictures, all in one in $pictures/grid-7.png"
