#!/usr/bin/env bash
# Fuzzes a target for some seconds, on the stable toolchain: what `cargo fuzz` does, but without a sanitizer.
#
#   fuzz/run.sh TARGET SECONDS [OPTION…]    TARGET is `source` or `json`, OPTIONs are libFuzzer's
#   fuzz/run.sh TARGET 0 FILE               runs one input again
#
# Inputs that a target has grown stay in fuzz/corpus, those that it failed on in fuzz/artifacts. Needs a C++ compiler.
set -euo pipefail
cd "$(dirname "$0")"
target=$1
seconds=$2
shift 2

corpus=corpus/$target
mkdir -p "$corpus" "artifacts/$target"
case $target in
source)
  # Hostile scripts take seconds each where only their operations are bounded.
  find ../scripts -name '*.rhai' -not -path '*/hostile/*' -not -path '*/limits/*' | while read -r script; do
    name=${script#../scripts/}
    cp "$script" "$corpus/${name//\//_}"
  done
  ;;
json)
  number=0
  for seed in 'null' '{"a": [1, -2.5e3, "b\n\ud83d\ude00", true, null]}' '[12345678901234567890123, -9223372036854775808]' '{"s": "9\"9"}'; do
    printf '%s' "$seed" >"$corpus/seed_$((number += 1))"
  done
  ;;
esac

flags=(--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
# With `--target`, build scripts and macros go without the flags.
host=$(rustc -vV | awk '/^host/{print $2}')
run=(cargo run --quiet --release --locked --target "$host" --bin "$target" --)

export RUSTFLAGS="${flags[*]}"
if [ "$seconds" = 0 ]; then
  exec "${run[@]}" "$@"
fi
# In a process of its own (`-fork`), as an input that runs out of memory is no fault: the sandbox bounds that.
"${run[@]}" "$corpus" -fork=1 -ignore_ooms=1 -ignore_timeouts=0 -timeout=10 -rss_limit_mb=4096 -max_len=4096 \
  -max_total_time="$seconds" -dict="$target.dict" -artifact_prefix="artifacts/$target/" "$@"
