//! Tools that attempt to see the environment, to use resources up, and to end in unusual ways.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::Tool;

pub(crate) const TOOLS: &[Tool] = &[
    ("echo", |arguments| Ok(arguments.text("text")?.into())),
    ("env", |arguments| Ok(std::env::var(arguments.text("name")?)?)),
    ("variables", |_| {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into()));
        Ok(Value::Object(variables.collect::<Map<_, _>>()).to_string())
    }),
    ("arguments", |_| Ok(json!(std::env::args().collect::<Vec<_>>()).to_string())),
    ("folder", |_| Ok(std::env::current_dir()?.to_string_lossy().into())),
    ("allocate", |arguments| {
        let megabytes = arguments.number("mb")?;
        allocate(megabytes);
        Ok(format!("{megabytes} MB allocated"))
    }),
    ("spin", |_| spin()),
    // Asks the client for signs of life meanwhile.
    ("spin_and_ask", |_| {
        let mut next = Instant::now();
        for number in 0.. {
            writeln!(io::stdout(), "{}", json!({"jsonrpc": "2.0", "id": number, "method": "ping"}))?;
            next += Duration::from_millis(50);
            while Instant::now() < next {}
        }
        Ok("never".into())
    }),
    ("recurse", |_| Ok(recurse(0).to_string())),
    ("flood", |arguments| {
        flood(&mut io::stdout(), arguments.number("mb")?)?;
        Ok("flooded".into())
    }),
    ("flood_errors", |arguments| {
        flood(&mut io::stderr(), arguments.number("mb")?)?;
        Ok("flooded".into())
    }),
    ("sleep", |arguments| {
        std::thread::sleep(Duration::from_millis(arguments.number("ms")?));
        Ok("slept".into())
    }),
    ("hang", |_| hang()),
    ("exit", |arguments| std::process::exit(arguments.number("code")?)),
    ("panic", |_| panic("as it was told to")),
];

/// Allocates so many megabytes, touches every page of them, and keeps them.
pub(crate) fn allocate(megabytes: usize) {
    for _ in 0..megabytes {
        let block = vec![1_u8; 1 << 20];
        std::mem::forget(black_box(block));
    }
}

/// Computes for ever.
pub(crate) fn spin() -> ! {
    loop {
        black_box(());
    }
}

/// Waits for ever, without computing.
pub(crate) fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

/// Calls itself until the stack is used up; every level keeps something, so that it can't become a loop.
pub(crate) fn recurse(depth: u64) -> u64 {
    let kept = black_box([depth; 16]);
    if kept[0] == u64::MAX {
        return 0;
    }
    recurse(kept[1] + 1).wrapping_add(black_box(kept)[2])
}

/// Writes so many megabytes of lines that are no JSON.
pub(crate) fn flood(out: &mut impl Write, megabytes: u32) -> io::Result<()> {
    let line = format!("{}\n", "flood ".repeat(170));
    let lines = (u64::from(megabytes) * 1_000_000).div_ceil(line.len() as u64);
    (0..lines).try_for_each(|_| out.write_all(line.as_bytes()))?;
    out.flush()
}

#[expect(clippy::panic, reason = "it is what is to be attempted")]
pub(crate) fn panic(when: &str) -> ! {
    panic!("the probe panics {when}")
}
