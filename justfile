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
