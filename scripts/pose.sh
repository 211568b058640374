#!/usr/bin/env bash
# The built-in pose weights and their table in docs/methods/fpdm.md, from a fresh state: people, both stages, what finds
# joints, drawings of people who were not learnt, scores. What is there already is used again; a stopped run goes on.
#
#   scripts/pose.sh [all | train | table] [FOLDER] [PAIRS OF THE TABLE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

what=${1:-all} work=${2:-runs/pose} count=${3:-128}
bin=${CARGO_TARGET_DIR:-target}/release
people=$work/people

stage() { # NAME FILE COMMAND...: trains where the folder has no finished run, and goes on where one was stopped
  local folder=$work/$1 file=$2
  shift 2
  if [[ -f $folder/done ]]; then return; fi
  local resume=()
  if [[ -f $folder/state.safetensors ]]; then resume=(--resume); fi
  "$bin/personalize" pose "$@" --preset toybox --data "$people" --frame pixels --output "$folder" "${resume[@]}"
  test -f "$folder/$file"
  touch "$folder/done"
}

if [[ ! -f $people/test_pairs_data.json ]]; then
  "$bin/toybox" people --pairs 8000 --test 256 --place studio --seed 6 "$people"
fi

if [[ $what == all || $what == train ]]; then
  stage fusion fusion.safetensors train-fusion
  stage generator pose.safetensors train-generator --fusion "$work/fusion/fusion.safetensors"
  if [[ ! -f $work/joints.safetensors ]]; then "$bin/toybox" joints --people "$people" "$work/joints.safetensors"; fi
fi

if [[ $what == all || $what == table ]]; then
  # Trained here, or else the built-in ones.
  weights=() joints=()
  if [[ -f $work/generator/pose.safetensors ]]; then weights=(--weights "$work/generator/pose.safetensors"); fi
  if [[ -f $work/joints.safetensors ]]; then joints=(--joints "$work/joints.safetensors"); fi
  drawn=$work/drawn
  "$bin/toybox" redraw --people "$people" --count "$count" "${weights[@]}" "$drawn"
  "$bin/personalize" pose evaluate --truth "$drawn/truth" --source "$drawn/source" --masks "$drawn/masks" \
    --backgrounds "$drawn/backgrounds" --poses "$drawn/poses" --frame pixels "${joints[@]}" --drawn "$drawn/model" \
    --beside no-fusion="$drawn/without-fusion" --beside skeletons-swapped="$drawn/skeletons-swapped" \
    --beside source-swapped="$drawn/source-swapped" --beside fusion-swapped="$drawn/fusion-swapped" \
    --beside codec="$drawn/codec" --output "$work/scores.json"
  "$bin/toybox" clothes --genes "$drawn/genes" "$drawn"/{truth,codec,model,without-fusion,source-swapped,fusion-swapped,source}
fi
