# `just check` is what CI runs.

check: format lint deny docs test

format:
    cargo fmt --all --check

lint:
    cargo clippy --workspace --all-targets --locked -- --deny warnings

deny:
    cargo deny --locked check bans licenses sources

docs:
    RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked

test:
    cargo test --locked

# Rebuild the engine guest after a change in sandbox/engine or sandbox/wit.
guest:
    sandbox/build.sh

bench:
    cargo bench --locked

# Fuzz a target, `source` or `json`, for some seconds.
fuzz target="source" seconds="600":
    fuzz/run.sh {{target}} {{seconds}}

# After a change of the engine's interface, as CI does not build the fuzz targets.
fuzz-check:
    cargo clippy --manifest-path fuzz/Cargo.toml --all-targets --locked -- --deny warnings
