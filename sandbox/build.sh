#!/usr/bin/env bash
# Builds the wasm guests from their sources into sandbox/dist, with their checksums and the digest of the sources.
#
#   sandbox/build.sh            build
#   sandbox/build.sh --digest   print the digest of the sources, build nothing
#
# Needs rustup's target (`rustup target add wasm32-unknown-unknown`). Where it is not installed and the machine is a Debian with
# root, it takes Debian's `rustc-web` instead, unpacked into target/guest/ and not installed.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C
target=wasm32-unknown-unknown
work=$PWD/target/guest
dist=sandbox/dist

# One line a file but for tests, then the profile, then the versions of the crates that the guest is built from and made with.
digest() {
  find sandbox/engine sandbox/wit sandbox/assemble sandbox/build.sh -type f ! -name tests.rs -print0 | sort -z | xargs -0 sha256sum
  sed -n '/^\[profile\.\(release\|guest\)\]/,/^$/p' Cargo.toml
  tree=(cargo tree --quiet --locked --edges normal,build --prefix none --format '{p} {f}')
  { "${tree[@]}" --package rhaiway-engine --target $target && "${tree[@]}" --package rhaiway-assemble; } |
    sed 's/ (\/[^)]*)//; s/ (\*)//' | sort -u
}

if [ "${1:-}" = --digest ]; then
  digest
  exit
fi

# Debian's compiler and the standard library's sources of the same version; its own rustup target does not exist.
debian_toolchain() {
  root=$work/rustc-web
  if [ ! -x "$root/usr/bin/rustc" ]; then
    apt-get update -qq
    version=$(apt-cache policy rustc-web | awk '/Candidate/{print $2}')
    release=$(cut -d. -f1,2 <<<"$version")
    llvm=$(apt-cache depends "libstd-rust-web-$release" | awk '/Depends: libllvm/{print $2}')
    apt-get install -y -qq --no-install-recommends "$llvm" >/dev/null
    rm -rf "$work/debs" "$root.new"
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
  build_std=(-Zbuild-std=std,panic_abort)
}

flags=("--remap-path-prefix=$PWD=/rhaiway" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" -Cstrip=symbols)
build_std=()
mkdir -p "$work" "$dist"
digest >"$work/sources"
(
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
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
  cargo rustc --locked --package rhaiway-engine --lib --crate-type cdylib --profile guest --target $target --target-dir "$work/target" "${build_std[@]}"
)
# As the tests build it, so that wasmtime is not built twice.
cargo run --locked --quiet --package rhaiway-assemble -- \
  "$work/target/$target/guest/rhaiway_engine.wasm" "$work/engine.wasm"
cp "$work/engine.wasm" "$dist/engine.wasm"
cp "$work/sources" "$dist/engine.sources"
(cd "$dist" && sha256sum -- *.wasm >SHA256SUMS)
ls -l "$dist"
