#!/usr/bin/env bash
# Makes sure that everything cargo needs is here: a Rust toolchain, a C++ compiler, and libtorch at
# .libtorch/torch, the path that .cargo/config.toml names. Runs as often as you like; does only what is missing.
#
# libtorch comes from, in this order: $LIBTORCH; .libtorch of an earlier run; the PyTorch of python3, linked;
# the pip wheel. It is always the one version that tch binds. Two sets of it exist: `cpu`, and `cuda` with NVIDIA's
# libraries, chosen by whether this machine has an NVIDIA driver. LIBTORCH_SET=cpu or =cuda overrules that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly torch=2.11.0 cudart=13.0.96 cupti=13.0.85 # what the torch wheel itself asks for
readonly rust=1.90
readonly home=.libtorch fresh=.libtorch.tmp old=.libtorch.old.tmp
readonly install_gb_cpu=3 install_gb_cuda=9 build_gb=2 # at the peak, the downloaded wheels included

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
at_least() { printf '%s\n%s\n' "$2" "$1" | sort -V -C; } # is version $1 at least $2?

# --- what must be here already ---------------------------------------------------------------------------------

check_platform() {
  local system; system="$(uname -s) $(uname -m)"
  case $system in
    "Linux x86_64") ;;
    "Linux aarch64") say "Linux on aarch64 has not been tried yet; carrying on" ;;
    *) fail "this is $system, but only Linux on x86_64 is supported (the Linux subsystem of Windows included)" ;;
  esac
  getconf GNU_LIBC_VERSION >/dev/null 2>&1 \
    || fail "this Linux has no glibc, which libtorch is built for: use a distribution with glibc 2.28 or newer"
}

check_tools() {
  has cargo || fail "cargo is missing: install Rust $rust or newer from rustup.rs, or put cargo on the PATH"
  local version; version=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
  [[ -n $version ]] || fail "'cargo --version' fails: repair the Rust installation ('rustup default stable')"
  at_least "$version" "$rust" || fail "cargo $version is too old: Rust $rust or newer is needed ('rustup update stable')"
  local tool
  for tool in cc "${CXX:-c++}"; do
    has "${tool%% *}" \
      || fail "no C++ compiler: '$tool' is missing; install g++ or clang (Debian, Ubuntu: 'apt-get install build-essential')"
  done
}

check_python() {
  has python3 || fail "python3 is missing: install Python 3.10 or newer, which fetches libtorch, or set LIBTORCH to the folder of a libtorch $torch"
  local version; version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || true
  at_least "${version:-0}" 3.10 \
    || fail "python3 is version ${version:-unknown}, but the wheels of torch $torch need 3.10 or newer: install one, or set LIBTORCH to the folder of a libtorch $torch"
  python3 -m pip --version >/dev/null 2>&1 \
    || fail "pip is missing for $(command -v python3): install it (Debian, Ubuntu: 'apt-get install python3-pip')"
}

check_disk() { # gigabytes, what for
  local free; free=$(df -Pk . | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)
  free=$((free / 1000 / 1000))
  ((free >= $1)) || fail "too little disk: $2 needs about $1 GB in $PWD, and $free GB are free"
}

# --- libtorch --------------------------------------------------------------------------------------------------

wanted_set() {
  case ${LIBTORCH_SET:-auto} in
    cpu | cuda) echo "$LIBTORCH_SET" ;;
    auto)
      if [[ -e /proc/driver/nvidia/version ]] || nvidia-smi -L >/dev/null 2>&1 \
        || PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; then echo cuda; else echo cpu; fi ;;
    *) fail "LIBTORCH_SET is '$LIBTORCH_SET': it must be cpu, cuda or auto" ;;
  esac
}

version_of() { # the version that a libtorch folder says it has; a wheel and a plain archive say it in different files
  if [[ -f $1/version.py ]]; then sed -n "s/^__version__ *= *['\"]\([^'\"+]*\).*/\1/p" "$1/version.py"
  elif [[ -f $1/build-version ]]; then sed 's/+.*//' "$1/build-version"; fi
}

fault_of() { # what makes a folder useless as libtorch; nothing where it is good
  local version
  if [[ ! -d $1 ]]; then echo "is not a folder"
  elif [[ ! -f $1/lib/libtorch_cpu.so ]]; then echo "has no lib/libtorch_cpu.so"
  elif [[ ! -d $1/include/ATen ]]; then echo "has no include/ATen"
  else
    version=$(version_of "$1")
    [[ $version == "$torch" ]] || echo "holds libtorch ${version:-of an unknown version}, not $torch"
  fi
}

loads() { # can the set $2 of the libtorch at $1 be loaded, with all that it needs?
  local lib="$PWD/$1/lib" cuda=
  if [[ $2 == cuda ]]; then cuda=$lib/libtorch_cuda.so; fi
  python3 -c 'import ctypes, sys
for path in filter(None, sys.argv[1:]): ctypes.CDLL(path, ctypes.RTLD_GLOBAL)' "$lib/libtorch_cpu.so" "$cuda" 2>&1
}

begin() {
  rm -rf "$fresh" "$old"
  mkdir "$fresh" 2>/dev/null || fail "cannot write in $PWD: libtorch is put there, so it must be yours to write in"
}

# The new folder is finished before it takes the name that cargo looks at, so no half of it is ever seen there.
put_in_place() { # the folder, its set
  echo "$2" > "$1/set"
  if [[ -e $home || -L $home ]]; then mv "$home" "$old"; fi
  mv "$1" "$home"
  rm -rf "$fresh" "$old"
  # A torch-sys that was built with the CUDA library beside it goes on linking to it: have it look again.
  if [[ ! -e $home/torch/lib/libtorch_cuda.so ]]; then
    rm -rf "${CARGO_TARGET_DIR:-target}"/*/{build,.fingerprint}/torch-sys*
  fi
}

link_python() { # links the PyTorch of python3 where it is the right one; false where it is not
  local dir fault
  has python3 || return 1
  dir=$(python3 -c 'import importlib.util
spec = importlib.util.find_spec("torch")
print(next(iter(spec.submodule_search_locations or []), "") if spec else "")' 2>/dev/null) || return 1
  [[ -n $dir ]] || return 1
  fault=$(fault_of "$dir")
  if [[ -n $fault ]]; then say "passing over the PyTorch of python3: $dir $fault"; return 1; fi
  begin
  mkdir "$fresh/root"
  # libtorch finds NVIDIA's libraries relative to its own folder, and the system resolves the link before the '..'.
  ln -s "$dir" "$fresh/root/torch"
  if ! loads "$fresh/root/torch" "$1" >/dev/null; then
    say "passing over the PyTorch of python3: the $1 libraries in $dir do not load"
    rm -rf "$fresh"; return 1
  fi
  put_in_place "$fresh/root" "$1"
  say "linked libtorch $torch ($1) from $dir"
}

why_pip_failed() { # one sentence from the complaints that pip wrote to a file
  if grep -qi 'no space left' "$1"; then
    echo "the disk ran full while libtorch was installed: make room in $PWD and try again"
  elif grep -qiE 'connection|name resolution|unreachable|timed out|ProxyError|SSLError' "$1"; then
    echo "no network: pip cannot reach its package index for libtorch; check the connection or pip's proxy and index settings, or set LIBTORCH to the folder of a libtorch $torch"
  else
    echo "pip could not install libtorch: $(grep -i '^error' "$1" | tail -n 1 || true) (to see all of it: python3 -m pip download --no-deps torch==$torch)"
  fi
}

pip= # the process id of a running installation
abandon() {
  if [[ -n $pip ]]; then kill "$pip" 2>/dev/null || true; wait "$pip" 2>/dev/null || true; fi
  rm -rf "$fresh"
}

install_wheel() { # the set
  check_python
  local size packages trouble
  if [[ $1 == cuda ]]; then
    check_disk "$install_gb_cuda" "installing libtorch with CUDA and building"
    size="3 GB" packages=("torch==$torch")
  else
    check_disk "$install_gb_cpu" "installing libtorch and building"
    size="550 MB" packages=(--no-deps "torch==$torch" "nvidia-cuda-runtime==$cudart" "nvidia-cuda-cupti==$cupti")
  fi
  say "installing libtorch $torch, the $1 set, into $home (about $size to download, minutes)"
  begin
  mkdir "$fresh/wheels"
  # --target leaves the system's and the user's packages alone, so the variables that would forbid or divert it are off.
  # pip unpacks under TMPDIR first: on this file system, where the room was checked and where it is cleared away.
  TMPDIR="$PWD/$fresh/wheels" PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0 \
    python3 -m pip install --target "$fresh/root" --no-compile --only-binary=:all: --no-input \
    --disable-pip-version-check "${packages[@]}" >&2 2>"$fresh/trouble" </dev/null &
  pip=$!
  if ! wait "$pip"; then pip=; fail "$(why_pip_failed "$fresh/trouble")"; fi
  pip=
  rm -rf "$fresh/root/torch/bin" "$fresh/root/triton" # test programs, and a compiler for Python's use: 0.7 GB
  if [[ $1 == cpu ]]; then # half of the wheel is CUDA kernels, which do not load without NVIDIA's libraries
    (cd "$fresh/root/torch/lib" && rm -f libtorch_cuda*.so libc10_cuda.so libtorch_nvshmem.so libcaffe2_nvrtc.so \
      libtorch_python.so)
  fi
  trouble=$(fault_of "$fresh/root/torch")
  [[ -z $trouble ]] || fail "the installed wheel $trouble: report this"
  trouble=$(loads "$fresh/root/torch" "$1") \
    || fail "the installed libtorch does not load: $(tail -n 1 <<<"$trouble")"
  put_in_place "$fresh/root" "$1"
  say "libtorch $torch ($1) is in $home"
}

provide_libtorch() {
  local fault want have
  if [[ -n ${LIBTORCH:-} ]]; then
    [[ $LIBTORCH == /* ]] || fail "LIBTORCH is '$LIBTORCH', a relative path: give the absolute one, or unset it"
    fault=$(fault_of "$LIBTORCH")
    [[ -z $fault ]] || fail "LIBTORCH is set, but $LIBTORCH $fault: correct it, or unset it to have libtorch installed here"
    say "libtorch $torch of LIBTORCH, $LIBTORCH"
    return
  fi
  want=$(wanted_set)
  if [[ -z $(fault_of "$home/torch") ]]; then
    have=$(cat "$home/set" 2>/dev/null || echo cpu)
    if [[ $have == cuda || $want == cpu ]]; then say "libtorch $torch ($have) is ready"; return; fi
    say "the libtorch here is the cpu set, and an NVIDIA driver asks for cuda (LIBTORCH_SET=cpu keeps it)"
  fi
  link_python "$want" || install_wheel "$want"
}

exec 9<scripts/setup.sh # two runs at a time would take the folder from each other
if has flock; then flock 9; fi
trap abandon EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
check_platform
check_tools
if [[ ! -d ${CARGO_TARGET_DIR:-target} ]]; then check_disk "$build_gb" "building"; fi
provide_libtorch
