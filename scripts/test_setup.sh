#!/usr/bin/env bash
# Tests of setup.sh. Each runs a copy of it in an empty folder, on a PATH that holds basic tools and the stand-ins of
# python3, cargo, c++ and df written here, so nothing is downloaded and this machine's own set-up is not looked at.
# shellcheck disable=SC2016 # the stand-ins expand their own variables, when they run
set -uo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

stub() { # in place of what is there: to write through a link would change this machine's own tool
  rm -f "$bin/$1"
  printf '#!%s\n%s\n' "$(command -v bash)" "$2" > "$bin/$1"
  chmod +x "$bin/$1"
}

libtorch() { # a folder that looks like a libtorch of a version
  mkdir -p "$1/lib" "$1/include/ATen" "$1/bin"
  touch "$1/lib/libtorch_cpu.so" "$1/lib/libtorch_cuda.so"
  echo "__version__ = '$2+cu130'" > "$1/version.py"
}

# The stand-in of python3. pip installs a libtorch, writing half of it, running $PIP_DOES, then the rest.
# $PYTHON_TORCH is the folder of its own PyTorch; $NO_CUDA makes the CUDA library refuse to load.
python_stub='case "$*" in
  *sys.version_info*) echo "${PYTHON_VERSION:-3.11}" ;;
  *find_spec*) echo "${PYTHON_TORCH:-}" ;;
  *ctypes*) if [[ "$*" == *cuda* && -n ${NO_CUDA:-} ]]; then echo "OSError: libcudnn.so.9: missing" >&2; exit 1; fi ;;
  "-m pip --version") ;;
  "-m pip install"*)
    echo "$*" >> "$LOG"
    while [[ $1 != --target ]]; do shift; done
    mkdir -p "$2/torch/lib"
    eval "${PIP_DOES:-}" || exit 1
    cp -r "$WHEEL" "$2" ;;
  *) echo "python3 was asked for something new: $*" >&2; exit 99 ;;
esac'

begin() { # a fresh folder and PATH; what a machine has that can build everything but lacks libtorch
  root=$scratch/$1 bin=$scratch/$1.bin
  mkdir -p "$root/scripts" "$bin"
  cp "$repo/scripts/setup.sh" "$root/scripts/"
  local tool
  for tool in bash cat cp cut dirname flock getconf grep ln mkdir mv rm sed sleep sort tail tr uname; do
    ln -s "$(command -v "$tool")" "$bin/$tool"
  done
  stub cargo 'echo "cargo 1.90.0 (abc 2025-01-01)"'
  stub cc ''
  stub c++ ''
  stub df 'echo "Filesystem 1024-blocks Used Available Capacity Mounted on"; echo "/dev/x 99 9 ${FREE_KB:-90000000} 1% /"'
  stub python3 "$python_stub"
  libtorch "$scratch/wheel/torch" 2.11.0
}

setup() { # runs it with the given variables; leaves its answer in $code and $said
  said=$(env -i PATH="$bin" LOG="$root/pip.log" WHEEL="$scratch/wheel/torch" LIBTORCH_SET=cpu "$@" \
    "$root/scripts/setup.sh" 2>&1 </dev/null)
  code=$?
}

passed=0 failed=0
check() { # a sentence, then the command that must hold
  local sentence=$1; shift
  if "$@"; then passed=$((passed + 1)); return; fi
  failed=$((failed + 1))
  printf 'FAILED %s: %s\n  exit code %s, it said:\n%s\n' "$current" "$sentence" "$code" "$said" >&2
}
refused() { [[ $code -eq 1 && $(grep -c . <<<"$said") -eq 1 && $said == *"$1"* ]]; } # one line, with this in it
succeeded() { [[ $code -eq 0 ]]; }
mentions() { [[ $said == *"$1"* ]]; }
hides() { ! mentions "$1"; }
pip_runs() { [[ $(cat "$root/pip.log" 2>/dev/null | grep -c .) -eq $1 ]]; }
nothing_left() { [[ -z $(find "$root" -maxdepth 1 -name '.libtorch*') ]]; }
no_leftovers() { [[ -z $(find "$root" -maxdepth 1 -name '.libtorch.*') ]]; }
lacks() { [[ ! -e $root/$1 ]]; }
holds() { [[ -e $root/$1 ]]; }

installs_the_cpu_set_and_then_does_nothing() {
  setup
  check "it succeeds" succeeded
  check "libtorch is there" holds .libtorch/torch/lib/libtorch_cpu.so
  check "what only CUDA needs is not" lacks .libtorch/torch/lib/libtorch_cuda.so
  check "pip was told the exact packages" grep -q -- '--no-deps torch==2.11.0 nvidia-cuda-runtime==13.0.96' "$root/pip.log"
  check "no temporary folder is left" no_leftovers
  setup
  check "the second run succeeds" succeeded
  check "the second run does not install" pip_runs 1
}
a_driver_appearing_later_brings_the_cuda_set() {
  setup
  setup LIBTORCH_SET=cuda
  check "it succeeds" succeeded
  check "it installs again" pip_runs 2
  check "with the dependencies" bash -c "! tail -n 1 '$root/pip.log' | grep -q -- --no-deps"
  check "the CUDA library stays" holds .libtorch/torch/lib/libtorch_cuda.so
  setup LIBTORCH_SET=cuda
  check "the third run does not install" pip_runs 2
}
a_driver_is_noticed() {
  stub nvidia-smi 'echo "GPU 0"'
  setup LIBTORCH_SET=auto
  check "the CUDA set is installed" grep -q cuda "$root/.libtorch/set"
}
links_the_pytorch_of_python3() {
  libtorch "$root/site/torch" 2.11.0
  setup PYTHON_TORCH="$root/site/torch"
  check "it succeeds" succeeded
  check "cargo's path leads to it" test "$root/.libtorch/torch/lib/libtorch_cpu.so" -ef "$root/site/torch/lib/libtorch_cpu.so"
  check "nothing is installed" pip_runs 0
  rm -r "$root/site"
  setup
  check "a link that leads nowhere is replaced" pip_runs 1
  check "and works" succeeded
}
losing_the_cuda_library_makes_torch_sys_look_again() {
  mkdir -p "$root/target/release/build/torch-sys-1/out" "$root/target/release/build/other-1"
  setup LIBTORCH_SET=cuda
  check "it is kept while the library is there" holds target/release/build/torch-sys-1
  rm -r "$root/.libtorch"
  setup
  check "it is built again without the library" lacks target/release/build/torch-sys-1
  check "nothing else is" holds target/release/build/other-1
}
passes_over_a_pytorch_of_another_version() {
  libtorch "$root/site/torch" 2.10.0
  setup PYTHON_TORCH="$root/site/torch"
  check "it says so" mentions "holds libtorch 2.10.0, not 2.11.0"
  check "it installs" pip_runs 1
}
passes_over_a_pytorch_without_cuda_where_there_is_a_driver() {
  libtorch "$root/site/torch" 2.11.0
  stub python3 "${python_stub/'*cuda*'/'*libtorch.tmp/root/torch/lib/libtorch_cuda*'}"
  setup PYTHON_TORCH="$root/site/torch" NO_CUDA=1 LIBTORCH_SET=cuda
  check "it says so" mentions "do not load"
  check "it installs" pip_runs 1
}
takes_a_libtorch_named_in_the_environment() {
  libtorch "$root/mine" 2.11.0
  rm "$bin/python3"
  setup LIBTORCH="$root/mine"
  check "it succeeds, without Python" succeeded
  check "nothing is put here" nothing_left
}
takes_a_plain_archive_named_in_the_environment() {
  libtorch "$root/mine" 0
  rm "$root/mine/version.py"
  echo 2.11.0+cpu > "$root/mine/build-version"
  setup LIBTORCH="$root/mine"
  check "it succeeds" succeeded
}
refuses_a_wrong_version_in_the_environment() {
  libtorch "$root/mine" 2.9.1
  setup LIBTORCH="$root/mine"
  check "it names both versions" refused "holds libtorch 2.9.1, not 2.11.0"
}
refuses_a_folder_that_is_no_libtorch() {
  setup LIBTORCH="$root/scripts"
  check "it names what is missing" refused "has no lib/libtorch_cpu.so"
  setup LIBTORCH=some/where
  check "it refuses a relative path" refused "relative path"
}
says_that_python3_is_missing() { rm "$bin/python3"; setup; check "one sentence" refused "python3 is missing"; }
says_that_python3_is_too_old() { setup PYTHON_VERSION=3.9; check "one sentence" refused "version 3.9"; }
says_that_pip_is_missing() {
  stub python3 "${python_stub/'"-m pip --version") ;;'/'"-m pip --version") exit 1 ;;'}"
  setup
  check "one sentence" refused "pip is missing"
}
says_that_the_compiler_is_missing() { rm "$bin/c++"; setup; check "one sentence" refused "no C++ compiler: 'c++'"; }
takes_the_compiler_of_cxx() { rm "$bin/c++"; stub clang++ ''; setup CXX=clang++; check "it succeeds" succeeded; }
says_that_the_linker_is_missing() { rm "$bin/cc"; setup; check "one sentence" refused "'cc' is missing"; }
says_that_cargo_is_missing() { rm "$bin/cargo"; setup; check "one sentence" refused "cargo is missing"; }
says_that_cargo_is_too_old() {
  stub cargo 'echo "cargo 1.89.0 (abc 2025-01-01)"'
  setup
  check "one sentence" refused "cargo 1.89.0 is too old"
}
takes_a_newer_cargo() { stub cargo 'echo "cargo 1.100.0-nightly (abc)"'; setup; check "it succeeds" succeeded; }
says_that_the_platform_is_not_supported() {
  rm "$bin/uname"
  stub uname 'if [[ $1 == -s ]]; then echo Darwin; else echo arm64; fi'
  setup
  check "one sentence" refused "this is Darwin arm64"
}
says_that_the_disk_is_too_small() {
  setup FREE_KB=1000000
  check "to build" refused "needs about 2 GB"
  setup FREE_KB=2500000
  check "to install" mentions "needs about 3 GB"
  check "with an error" test "$code" -eq 1
  setup FREE_KB=5000000 LIBTORCH_SET=cuda
  check "to install CUDA" mentions "needs about 9 GB"
  check "nothing is left" nothing_left
}
says_that_there_is_no_network() {
  setup PIP_DOES='echo "WARNING: Retrying after connection broken by NewConnectionError" >&2; false'
  check "with an error" test "$code" -eq 1
  check "it says so" mentions "no network"
  check "pip's own lines are not shown" hides Retrying
  check "nothing is left" nothing_left
}
says_that_the_disk_ran_full() {
  setup PIP_DOES='echo "ERROR: [Errno 28] No space left on device" >&2; false'
  check "it says so" mentions "the disk ran full"
  check "nothing is left" nothing_left
}
passes_on_what_else_pip_complains_of() {
  setup PIP_DOES='echo "ERROR: torch has an invalid wheel" >&2; false'
  check "it says so" mentions "torch has an invalid wheel"
}
a_failed_upgrade_keeps_what_was_there() {
  setup
  setup LIBTORCH_SET=cuda PIP_DOES='echo "ERROR: connection refused" >&2; false'
  check "it fails" test "$code" -eq 1
  check "it says how to go on without" mentions "LIBTORCH_SET=cpu keeps it"
  check "libtorch is still there" holds .libtorch/torch/lib/libtorch_cpu.so
  check "no temporary folder is left" no_leftovers
}
an_installed_set_that_does_not_load_is_not_put_in_place() {
  setup LIBTORCH_SET=cuda NO_CUDA=1
  check "it fails with the loader's words" mentions "does not load: OSError: libcudnn.so.9"
  check "nothing is left" nothing_left
}
an_interrupted_install_leaves_nothing() {
  local signal waited
  for signal in TERM HUP; do
    # Ignored from the start, as under nohup, it cannot be caught by any script.
    if [[ $(trap -p "$signal") == *"''"* ]]; then continue; fi
    env -i PATH="$bin" LOG="$root/pip.log" WHEEL="$scratch/wheel/torch" LIBTORCH_SET=cpu \
      PIP_DOES=": > '$root/started'; exec sleep 60" "$root/scripts/setup.sh" >/dev/null 2>&1 </dev/null &
    waited=0
    until [[ -e $root/started || $waited -ge 100 ]]; do sleep 0.1; waited=$((waited + 1)); done
    check "the installation had begun" holds started
    check "half of it was there" holds .libtorch.tmp/root/torch
    SECONDS=0
    kill "-$signal" $!
    wait $!
    code=$?
    check "it ends with an error" test "$code" -eq 143
    check "it does not wait for pip" test "$SECONDS" -lt 30
    check "nothing is left after $signal" nothing_left
    rm -f "$root/started"
  done
  setup
  check "the next run installs" succeeded
}
what_a_killed_install_left_is_cleared() {
  mkdir -p "$root/.libtorch.tmp/root/torch" "$root/.libtorch.old.tmp"
  setup
  check "it succeeds" succeeded
  check "no temporary folder is left" no_leftovers
}
refuses_an_unknown_set() { setup LIBTORCH_SET=rocm; check "one sentence" refused "must be cpu, cuda or auto"; }

code=0 said=
while read -r current; do
  case $current in stub | libtorch | begin | setup | check | refused | succeeded | mentions | hides | pip_runs | nothing_left | no_leftovers | lacks | holds) continue ;; esac
  begin "$current"
  "$current"
done < <(declare -F | cut -d ' ' -f 3)
# The words are those that test runners close with, for readers and machines that look for them.
echo "test_setup: $passed passed, $failed failed"
((failed == 0 && passed > 0))
