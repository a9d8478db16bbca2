#!/usr/bin/env bash
# Builds the wasm guests from their sources into sandbox/dist, each with the digest of its sources, and the checksums of all.
#
#   sandbox/build.sh [NAME…]         build these guests, or all
#   sandbox/build.sh --changed       build those whose digest is not the one in sandbox/dist
#   sandbox/build.sh --digest NAME   print the digest of a guest's sources, build nothing
#
# Needs rustup's targets (`rustup target add wasm32-unknown-unknown wasm32-wasip1`). Where they are not installed and the machine
# is a Debian with root, it takes Debian's `rustc-web` instead, unpacked into target/guest/ and not installed, and `wasi-libc`.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C
guests=(engine demo notes probe-p1 probe-p2 units)
bare=wasm32-unknown-unknown
wasi=wasm32-wasip1
work=$PWD/target/guest
dist=sandbox/dist

# Of each guest: its package and Cargo's options, its target, its folders, and the kind of component it is made into, if it is one.
describe() {
  kind= wit=
  case $1 in
  engine) package=(rhaiway-engine) target=$bare folders=(engine wit) kind=engine ;;
  demo) package=(rhaiway-demo-server) target=$wasi folders=(servers/demo servers/stdio) ;;
  notes) package=(rhaiway-notes-server) target=$wasi folders=(servers/notes servers/stdio) ;;
  probe-p1) package=(rhaiway-probe-server) target=$wasi folders=(servers/probe) ;;
  probe-p2) package=(rhaiway-probe-server --features sockets) target=$wasi folders=(servers/probe) kind=command ;;
  units) package=(rhaiway-units) target=$bare folders=(servers/units) kind=typed wit=sandbox/servers/units/wit ;;
  *)
    echo "build.sh: there is no guest '$1', only ${guests[*]}" >&2
    exit 1
    ;;
  esac
}

# One line a file but for tests, then the profile, then the versions of the crates that the guest is built from and made with.
digest() {
  describe "$1"
  tree=(cargo tree --quiet --locked --edges normal,build --prefix none --format '{p} {f}')
  find "${folders[@]/#/sandbox/}" ${kind:+sandbox/assemble} sandbox/build.sh -type f ! -name tests.rs ! -path '*/tests/*' -print0 |
    sort -z | xargs -0 sha256sum
  sed -n '/^\[profile\.\(release\|guest\)\]/,/^$/p' Cargo.toml
  { "${tree[@]}" --package "${package[@]}" --target $target && { [ -z "$kind" ] || "${tree[@]}" --package rhaiway-assemble; }; } |
    sed 's/ (\/[^)]*)//; s/ (\*)//' | sort -u
}

# Debian's compiler and the standard library's sources of the same version; its own rustup target does not exist.
debian_toolchain() {
  root=$work/rustc-web
  if [ ! -x "$root/usr/bin/rustc" ] || [ ! -d /usr/lib/wasm32-wasi ]; then
    apt-get update -qq
    version=$(apt-cache policy rustc-web | awk '/Candidate/{print $2}')
    release=$(cut -d. -f1,2 <<<"$version")
    llvm=$(apt-cache depends "libstd-rust-web-$release" | awk '/Depends: libllvm/{print $2}')
    apt-get install -y -qq --no-install-recommends "$llvm" wasi-libc >/dev/null
    rm -rf "$work/debs" "$root.new" "$root"
    mkdir -p "$work/debs"
    (cd "$work/debs" && apt-get -o APT::Sandbox::User=root download -qq \
      "rustc-web=$version" "libstd-rust-web-$release=$version" "libstd-rust-web-dev=$version" "rust-web-src=$version")
    for package in "$work"/debs/*.deb; do dpkg -x "$package" "$root.new"; done
    rm -rf "$work/debs"
    mv "$root.new" "$root"
  fi
  linker=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | awk '/^host/{print $2}')/bin/rust-lld
  export RUSTC=$root/usr/bin/rustc RUSTC_BOOTSTRAP=1 LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu
  flags+=("-Clinker=$linker" "--remap-path-prefix=$root=/rustc-web")
  # crt1.o and not crt1-command.o, with which the linker has every export construct what is global anew. The functions that this
  # C library has not are those that would wait for threads, which can't be started.
  library=/usr/lib/wasm32-wasi
  wasi_flags=(-Clink-self-contained=no "-Clink-arg=$library/crt1.o" "-Lnative=$library" -Clink-arg=--unresolved-symbols=ignore-all)
  build_std=(-Zbuild-std=std,panic_abort)
}

# Compiles a guest to $work/NAME.wasm; in a shell of its own, as the environment is only for this.
compile() {
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
  flags=("--remap-path-prefix=$PWD=/rhaiway" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" -Cstrip=symbols)
  wasi_flags=()
  build_std=()
  if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      debian_toolchain
    else
      echo "build.sh: the target is missing: rustup target add $target" >&2
      exit 1
    fi
  fi
  # ahash takes random numbers while it is built, unless it is given one.
  export CONST_RANDOM_SEED=rhaiway CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="${flags[*]}"
  export CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="${flags[*]} ${wasi_flags[*]}"
  if [ $target = $bare ]; then made=(--lib --crate-type cdylib) file=${package[0]//-/_}; else made=(--bin "${package[0]}") file=${package[0]}; fi
  cargo rustc --locked --package "${package[@]}" "${made[@]}" --profile guest --target $target --target-dir "$work/target" "${build_std[@]}"
  cp "$work/target/$target/guest/$file.wasm" "$work/$1.wasm"
}

build() {
  echo "build.sh: $1"
  mkdir -p "$work" "$dist"
  digest "$1" >"$work/$1.sources"
  (compile "$1")
  if [ -n "$kind" ]; then
    mv "$work/$1.wasm" "$work/$1.core.wasm"
    # As the tests build it, so that wasmtime is not built twice.
    cargo run --locked --quiet --package rhaiway-assemble -- $kind "$work/$1.core.wasm" "$work/$1.wasm" $wit
  fi
  install -m 644 "$work/$1.wasm" "$work/$1.sources" "$dist/"
}

case ${1:-} in
--digest)
  digest "${2:?the name of a guest}"
  exit
  ;;
--changed)
  chosen=()
  for name in "${guests[@]}"; do
    [ -f "$dist/$name.wasm" ] && [ "$(digest "$name")" = "$(cat "$dist/$name.sources" 2>/dev/null)" ] || chosen+=("$name")
  done
  ;;
*) chosen=("$@") && [ $# -gt 0 ] || chosen=("${guests[@]}") ;;
esac
for name in "${chosen[@]}"; do build "$name"; done
(cd "$dist" && sha256sum -- *.wasm >SHA256SUMS)
ls -l "$dist"
