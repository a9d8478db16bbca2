//! What the targets have in common: a place to run scripts where memory and stack end as they do in the sandbox, and a host that
//! answers at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use rhaiway_engine::{Fault, Host, Refusal, Ticket, ToolCall};

/// Servers that a script can name.
pub const SERVERS: [&str; 4] = ["github", "jira", "files", "_3d"];

/// Memory and stack of the engine. The sandbox bounds both, the engine itself neither; nested data needs much native stack.
const MEMORY: usize = 512 << 20;
const STACK: usize = 1 << 30;
/// With which libFuzzer says that memory ran out; when it runs in another process (`-fork=1`), it goes on.
const OUT_OF_MEMORY: i32 = 71;

struct Bounded(AtomicUsize);

#[global_allocator]
static ALLOCATOR: Bounded = Bounded(AtomicUsize::new(0));

unsafe extern "C" {
    fn _exit(code: i32) -> !;
}

fn out_of_memory() -> ! {
    eprintln!("out of memory, which only the sandbox bounds");
    unsafe { _exit(OUT_OF_MEMORY) }
}

impl Bounded {
    fn take(&self, size: usize) {
        if self.0.fetch_add(size, Ordering::Relaxed).saturating_add(size) > MEMORY {
            self.0.store(0, Ordering::Relaxed); // the message needs some
            out_of_memory();
        }
    }
}

unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.take(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.0.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.take(size);
        self.0.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Does the work on a thread with much stack; one for all inputs.
pub struct Worker {
    inputs: SyncSender<Vec<u8>>,
    done: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Worker {
    /// # Panics
    /// If no thread can be started.
    #[must_use]
    pub fn start(work: fn(&[u8])) -> Self {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Asked for more memory than there are addresses.
            if panic.payload_as_str() == Some("capacity overflow") {
                out_of_memory();
            }
            hook(panic);
        }));
        let (inputs, receiver) = sync_channel::<Vec<u8>>(1);
        let (sender, done) = sync_channel(1);
        let work = move || {
            for input in receiver {
                work(&input);
                if sender.send(()).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap();
        Self { inputs, done: done.into() }
    }

    /// # Panics
    /// If the thread is gone.
    pub fn run(&self, input: &[u8]) {
        self.inputs.send(input.into()).unwrap();
        self.done.lock().unwrap().recv().unwrap();
    }
}

/// Answers everything at once; ends what goes on for too long.
pub struct Echo {
    /// The answer of `answer`.
    pub answer: String,
    /// The arguments of the last call.
    pub arguments: RefCell<String>,
    started: RefCell<Vec<(Ticket, Result<String, String>)>>,
    /// Effects so far, and how often it was asked to interrupt.
    effects: Cell<u32>,
    asked: Cell<u32>,
}

impl Echo {
    /// Calls and other effects that one script can have, and questions, one every 256 operations.
    const EFFECTS: u32 = 1000;
    const ASKED: u32 = 200;
    /// Calls that are under way at once.
    const IN_FLIGHT: usize = 4;

    #[must_use]
    pub fn new(answer: String) -> Rc<Self> {
        Rc::new(Self {
            answer,
            arguments: RefCell::default(),
            started: RefCell::default(),
            effects: Cell::new(0),
            asked: Cell::new(0),
        })
    }

    fn next(&self) -> Result<u32, Refusal> {
        self.effects.set(self.effects.get() + 1);
        if self.effects.get() > Self::EFFECTS { Err(Refusal::Stop) } else { Ok(self.effects.get()) }
    }

    fn started(&self, answer: Result<String, String>) -> Result<Ticket, Refusal> {
        let ticket = self.next()?;
        self.started.borrow_mut().push((ticket, answer));
        Ok(ticket)
    }
}

impl Host for Echo {
    fn call_tool(&self, call: ToolCall<'_>) -> Result<String, Refusal> {
        let ToolCall { server, tool, by_name, arguments, .. } = call;
        let count = self.next()?;
        serde_json::from_str::<serde_json::Map<_, _>>(arguments).expect("arguments are an object");
        assert!(SERVERS.contains(&server), "a server of another name: {server}");
        self.arguments.replace(arguments.into());
        let failure = |kind| format!(r#"{{"kind":"{kind}","server":"{server}","tool":"x","message":"it broke"}}"#);
        match tool {
            "answer" => Ok(self.answer.clone()),
            "boom" => Err(Refusal::Failed(failure("tool"))),
            // A passing failure, which `retry` tries again.
            "flaky" if count % 3 != 0 => Err(Refusal::Failed(failure("transport"))),
            _ => Ok(format!(r#"{{"by_name":{by_name},"count":{count},"arguments":{arguments}}}"#)),
        }
    }

    fn start_call(&self, call: ToolCall<'_>) -> Result<Option<Ticket>, Refusal> {
        if self.started.borrow().len() >= Self::IN_FLIGHT {
            return Ok(None);
        }
        let answer = match self.call_tool(call) {
            Ok(answer) => Ok(answer),
            Err(Refusal::Failed(failure)) => Err(failure),
            Err(Refusal::Stop) => return Err(Refusal::Stop),
        };
        self.started(answer).map(Some)
    }

    fn start_clock(&self, seconds: f64) -> Result<Ticket, Refusal> {
        assert!(seconds >= 0.0, "a clock of {seconds} s");
        self.started(Ok("null".into()))
    }

    fn wait_any(&self) -> Result<(Ticket, Result<String, String>), Refusal> {
        let count = self.next()? as usize;
        let mut started = self.started.borrow_mut();
        assert!(!started.is_empty(), "waits for nothing");
        // Not in the order in which they began.
        let place = count * 7 % started.len();
        Ok(started.remove(place))
    }

    fn cancel(&self, ticket: Ticket) {
        self.started.borrow_mut().retain(|(other, _)| *other != ticket);
    }

    fn search_tools(&self, query: &str, detail_level: &str) -> Result<String, String> {
        self.next().map_err(|_| "enough".to_string())?;
        if !matches!(detail_level, "names" | "descriptions" | "full") {
            return Err(format!("there is no detail level `{detail_level}`"));
        }
        Ok(serde_json::json!({"meta": {}, "results": [{"name": query}]}).to_string())
    }

    fn now(&self) -> i64 {
        1_795_348_800_000_000 + i64::from(self.effects.get())
    }

    fn random(&self) -> u64 {
        u64::from(self.effects.get()).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn log(&self, _: &str) {}

    fn interrupted(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.asked.get() > Self::ASKED
    }
}

/// Runs the script: JSON, or its fault.
///
/// # Errors
/// The fault.
///
/// # Panics
/// If what comes back is nothing that may come back.
#[allow(clippy::result_large_err, reason = "as the engine gives it")]
pub fn run(host: &Rc<Echo>, source: &str) -> Result<String, Fault> {
    let ended = rhaiway_engine::run(host.clone(), source, SERVERS.map(String::from).to_vec(), 100);
    match &ended {
        Ok(text) => assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "no JSON: {text}"),
        Err(fault) => {
            assert_ne!(fault.kind, "internal", "{fault:?}");
            // Rhai takes a carriage return in a comment for a line's end.
            let lines = source.split(['\n', '\r']).count();
            let line = fault.position.map_or(1, |place| place.line as usize);
            assert!((1..=lines).contains(&line), "at line {line} of {lines}: {fault:?}");
        }
    }
    ended
}
