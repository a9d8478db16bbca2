//! `parallel` and its relatives, against a server that counts what it was asked.

use std::collections::BTreeMap;
use std::time::Duration;

use libtest_mimic::Trial;
use rhaiway::{Client, ExecuteOptions, Isolation, Limits, Outcome};
use serde_json::{Value, json};

use crate::fake_server;
use crate::support::{Ignored, builder, client, run, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("parallel::random_trees_do_what_they_would_one_after_the_other", random_trees),
        test("parallel::an_error_cancels_what_runs_and_starts_no_more", an_error_cancels),
        test("parallel::no_more_run_at_once_than_may", no_more_at_once),
        test("parallel::a_dropped_run_cancels_its_calls", a_dropped_run),
        test("parallel::timeouts_line_up", timeouts_line_up),
    ]
}

fn work() -> Value {
    json!({"fake": fake_server::entry("plain")})
}

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// A script as a tree.
enum Node {
    /// A call; one that fails throws.
    Call {
        id: usize,
        delay: u64,
        fail: bool,
    },
    /// One after the other, each call with the value before it.
    Sequence(Vec<Node>),
    Parallel {
        settled: bool,
        limit: Option<u64>,
        branches: Vec<Node>,
    },
    /// The same work for each of so many items.
    Map {
        items: usize,
        settled: bool,
        work: Box<Node>,
    },
    /// In a closure, one after the other.
    Loop {
        items: usize,
        work: Box<Node>,
    },
    /// `"caught"` where it throws.
    Catch(Box<Node>),
    Retry(u64, Box<Node>),
    Sleep(u64),
    Throw,
}

/// What a tree comes to: a value, or that it throws; and how often each call is made.
#[derive(Default)]
struct Expected {
    calls: BTreeMap<usize, usize>,
    /// Calls that may not be made, as a branch beside them fails.
    uncertain: bool,
}

impl Node {
    fn random(random: &mut Random, depth: usize, ids: &mut usize, fails: bool) -> Self {
        let mut node = |random: &mut Random, fails| Box::new(Self::random(random, depth - 1, ids, fails));
        match if depth == 0 { random.below(3) } else { 3 + random.below(10) } {
            0 if random.below(4) == 0 => Self::Sleep(random.below(3)),
            1 if fails && random.below(2) == 0 => Self::Throw,
            3..=5 => Self::Parallel {
                settled: random.below(3) == 0,
                limit: (random.below(2) == 0).then(|| 1 + random.below(4)),
                branches: (0..=random.below(4)).map(|_| *node(random, fails)).collect(),
            },
            6 => Self::Sequence((0..=random.below(3)).map(|_| *node(random, fails)).collect()),
            7 => Self::Map {
                items: usize::try_from(random.below(4)).unwrap(),
                settled: random.below(3) == 0,
                work: node(random, fails),
            },
            8 => Self::Loop { items: usize::try_from(random.below(3)).unwrap(), work: node(random, fails) },
            9 | 10 => Self::Catch(node(random, true)),
            11 => Self::Retry(1 + random.below(2), node(random, fails)),
            _ => {
                *ids += 1;
                Self::Call { id: *ids, delay: random.below(5), fail: fails && random.below(3) == 0 }
            }
        }
    }

    /// As an expression of a script.
    fn script(&self) -> String {
        let functions =
            |nodes: &[Self]| nodes.iter().map(|node| format!("|| {}", node.script())).collect::<Vec<_>>().join(", ");
        match self {
            Self::Call { id, delay, fail } => format!("fake.work(#{{id: {id}, delay: {delay}, fail: {fail}}}).id"),
            Self::Sequence(nodes) => {
                let steps =
                    nodes.iter().map(|node| format!("all.push({});", node.script())).collect::<Vec<_>>().concat();
                format!("{{ let all = []; {steps} all }}")
            }
            Self::Parallel { settled, limit, branches } => {
                let limit = limit.map(|limit| format!(", {limit}")).unwrap_or_default();
                let outcomes =
                    format!("parallel{}([{}]{limit})", if *settled { "_settled" } else { "" }, functions(branches));
                if *settled { format!("values({outcomes})") } else { outcomes }
            }
            Self::Map { items, settled: false, work } => format!("parallel_map(0..{items}, |x| {})", work.script()),
            Self::Map { items, settled: true, work } => {
                format!("values(parallel_map_settled(0..{items}, |x| {}))", work.script())
            }
            Self::Loop { items, work } => {
                format!("{:?}.map(|x| {})", (0..*items).collect::<Vec<_>>(), work.script())
            }
            Self::Catch(node) => format!("attempt(|| {})", node.script()),
            Self::Retry(times, node) => format!("retry({times}, || {})", node.script()),
            Self::Sleep(milliseconds) => format!("sleep(0.00{milliseconds})"),
            Self::Throw => "no(1)".into(),
        }
    }

    /// What it comes to when it is done one after the other; `Err` where it throws.
    fn expect(&self, expected: &mut Expected) -> Result<Value, ()> {
        /// All of it, even where a part before it has failed: that is how often a call can be made at most.
        fn all<'a>(nodes: impl Iterator<Item = &'a Node>, expected: &mut Expected) -> Vec<Result<Value, ()>> {
            nodes.map(|node| node.expect(expected)).collect()
        }
        let settle = |outcomes: Vec<Result<Value, ()>>, settled, expected: &mut Expected| {
            if settled {
                return Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(json!("failed"))).collect());
            }
            expected.uncertain |= outcomes.iter().any(Result::is_err);
            outcomes.into_iter().collect::<Result<Vec<_>, ()>>().map(Value::from)
        };
        match self {
            Self::Call { id, fail, .. } => {
                *expected.calls.entry(*id).or_default() += 1;
                if *fail { Err(()) } else { Ok(json!(id)) }
            }
            Self::Sequence(nodes) => {
                let mut values = Vec::new();
                for node in nodes {
                    values.push(node.expect(expected)?);
                }
                Ok(values.into())
            }
            Self::Parallel { settled, branches, .. } => {
                let outcomes = all(branches.iter(), expected);
                settle(outcomes, *settled, expected)
            }
            Self::Map { items, settled, work } => {
                let outcomes = all(std::iter::repeat_n(&**work, *items), expected);
                settle(outcomes, *settled, expected)
            }
            Self::Loop { items, work } => {
                let mut values = Vec::new();
                for _ in 0..*items {
                    values.push(work.expect(expected)?);
                }
                Ok(values.into())
            }
            Self::Catch(node) => Ok(node.expect(expected).unwrap_or(json!("caught"))),
            Self::Retry(times, node) => {
                let mut outcome = node.expect(expected);
                for _ in 1..*times {
                    if outcome.is_err() {
                        outcome = node.expect(expected);
                    }
                }
                outcome
            }
            Self::Sleep(_) => Ok(Value::Null),
            Self::Throw => Err(()),
        }
    }
}

const FUNCTIONS: &str = "
    fn no(x) { throw `no ${x}` }
    fn attempt(f) { try { return f.call(); } catch { } \"caught\" }
    fn values(outcomes) { outcomes.map(|outcome| if outcome.ok { outcome.value } else { \"failed\" }) }
";

async fn random_trees() -> Result<(), Ignored> {
    let (mut exact, mut nested) = (0, 0);
    for isolation in [Isolation::Sandbox, Isolation::InProcess] {
        let mut limits = Limits::default();
        limits.tool_calls = 100_000;
        let client = builder(work()).isolation(isolation).limits(limits).build().unwrap();
        let mut possible: BTreeMap<usize, usize> = BTreeMap::new();
        let mut total: BTreeMap<usize, usize> = BTreeMap::new();
        for seed in 1..=300 {
            let mut random = Random(seed * 0x9E37_79B9);
            // Other numbers for each tree: a call that was given up may come to the server a moment later.
            let mut ids = usize::try_from(seed).unwrap() * 1000;
            let first = ids;
            let tree = Node::random(&mut random, 5, &mut ids, seed % 2 == 0);
            let mut expected = Expected::default();
            let outcome = tree.expect(&mut expected);
            let script = format!("{FUNCTIONS} [{}, fake.worked().ids]", tree.script());
            let script = script.replace("[[", "[ [");
            let execution = run(&client, &script).await;
            let context = format!("seed {seed}, {isolation:?}: {script}");
            let ids = match (outcome, &execution.error) {
                (Ok(expected), None) => {
                    assert_eq!(execution.result[0], expected, "{context}");
                    execution.result[1].clone()
                }
                (Err(()), Some(_)) => value(run(&client, "fake.worked().ids").await),
                (Ok(_), Some(error)) => panic!("{error}\n{context}"),
                (Err(()), None) => panic!("it should throw\n{context}"),
            };
            let mut made: BTreeMap<usize, usize> = BTreeMap::new();
            for id in ids.as_array().unwrap() {
                let id = usize::try_from(id.as_u64().unwrap()).unwrap();
                *total.entry(id).or_default() += 1;
                if id > first {
                    *made.entry(id).or_default() += 1;
                }
            }
            if !expected.uncertain {
                assert_eq!(made, expected.calls, "{context}");
                exact += 1;
            }
            possible.extend(expected.calls);
            for (id, count) in &total {
                assert!(*count <= possible[id], "{id} was called {count} times: {context}");
            }
            nested += u32::from(tree.script().matches("parallel").count() > 3 && made.len() > 5);
        }
        client.close_all_sessions().await;
    }
    // Else the trees are not worth their name.
    assert!(exact > 150 && nested > 100, "{exact} exact, {nested} nested");
    Ok(())
}

async fn an_error_cancels() -> Result<(), Ignored> {
    let client = client(work());
    let script = "
        let caught = ();
        try {
            parallel([|| fake.never(), || { fake.never(); fake.work(#{id: 1}) }, || fake.work(#{id: 2, fail: true}), || fake.work(#{id: 3})], 3)
        } catch (error) {
            caught = error.message;
        }
        // The servers hear of it a moment later.
        while fake.cancelled().count < 2 { sleep(0.01); }
        [caught, fake.worked().ids]";
    let execution = run(&client, script).await;
    let outcomes: Vec<_> = execution.calls.iter().take(3).map(|call| (call.tool.clone(), call.outcome)).collect();
    let never = || ("never".to_string(), Outcome::Cancelled);
    let failed = ("work".to_string(), Outcome::Failed(rhaiway::FailureKind::Tool));
    assert_eq!(outcomes, [never(), never(), failed]);
    assert_eq!(value(execution), json!(["work 2 failed", [2]]));
    client.close_all_sessions().await;
    Ok(())
}

async fn no_more_at_once() -> Result<(), Ignored> {
    let most = async |client: &Client, code: &str| {
        let script = format!("{code}; let worked = fake.worked(); [worked.ids.len(), worked.most]");
        value(run(client, &script).await)
    };
    let unbounded = client(work());
    let calls = "parallel_map(0..40, |i| fake.work(#{id: i, delay: 20})";
    assert_eq!(most(&unbounded, &format!("{calls})")).await, json!([40, 16]));
    assert_eq!(most(&unbounded, &format!("{calls}, 3)")).await, json!([40, 3]));
    assert_eq!(most(&unbounded, &format!("{calls}, 64)")).await, json!([40, 40]));
    unbounded.close_all_sessions().await;
    let mut limits = Limits::default();
    limits.calls_in_flight = 2;
    let bounded = builder(work()).limits(limits).build().unwrap();
    let nested = "parallel_map(0..4, |i| parallel_map(0..4, |j| fake.work(#{id: i * 4 + j, delay: 5})))";
    assert_eq!(most(&bounded, nested).await, json!([16, 2]));
    bounded.close_all_sessions().await;
    Ok(())
}

async fn a_dropped_run() -> Result<(), Ignored> {
    for isolation in [Isolation::Sandbox, Isolation::InProcess] {
        let client = builder(work()).isolation(isolation).build().unwrap();
        let started = tempfile::tempdir().unwrap();
        let paths: Vec<_> = ["a", "b"].iter().map(|name| started.path().join(name)).collect();
        let calls = paths.iter().map(|path| format!("|| fake.never(#{{path: {:?}}})", path.display().to_string()));
        let script = format!("parallel([{}])", calls.collect::<Vec<_>>().join(", "));
        let running = tokio::spawn({
            let client = client.clone();
            async move { client.execute_code(&script, ExecuteOptions::default()).await }
        });
        while !paths.iter().all(|path| path.exists()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.abort();
        let count = "while fake.cancelled().count < 2 { sleep(0.01); } fake.cancelled().count";
        assert_eq!(value(run(&client, count).await), json!(2));
        client.close_all_sessions().await;
    }
    Ok(())
}

async fn timeouts_line_up() -> Result<(), Ignored> {
    let mut entry = fake_server::entry("plain");
    entry["call_timeout"] = json!(0.2);
    let client = client(json!({"fake": entry}));
    let of_the_call = "it took longer than the 0.2 s that a call may take (`call_timeout` of the server `fake`)";
    let caught = run(&client, "let e = (); try { fake.never() } catch (error) { e = error } [e.kind, e.message]").await;
    assert_eq!(caught.calls[0].outcome, Outcome::Failed(rhaiway::FailureKind::Timeout));
    assert_eq!(value(caught), json!(["call_timeout", of_the_call]));

    let error = run(&client, "fake.never()").await.error.unwrap();
    assert_eq!((error.kind.as_str(), error.line, error.column), ("call_timeout", Some(1), Some(6)));
    assert_eq!(error.message, format!("`fake.never` failed: {of_the_call}"));

    // The script's own end comes first.
    let options = ExecuteOptions::default().timeout(Duration::from_millis(100));
    let error = client.execute_code("fake.never()", options).await.unwrap().error.unwrap();
    assert_eq!(error.kind.as_str(), "timeout");
    let of_the_script = "the script took longer than the limit of 0.1 s (`wall_time`) while it waited for `fake.never`";
    assert_eq!(error.message, of_the_script);

    let error = run(&client, "timeout(0.05, || fake.never())").await.error.unwrap();
    assert_eq!(
        (error.kind.as_str(), error.message.as_str()),
        ("call_timeout", "it took longer than the 0.05 s of its `timeout`")
    );
    client.close_all_sessions().await;
    Ok(())
}
