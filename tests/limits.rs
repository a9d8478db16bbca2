//! What a hostile script comes to: an error, in a process that lives on at the size it had.

use std::time::Duration;

use libtest_mimic::Trial;
use rhaiway::{ExecuteOptions, Execution, Isolation, Limits};
use serde_json::json;

use crate::fake_server;
use crate::support::{Ignored, builder, client, demo, run, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("limits::each_ends_the_script_with_its_name", each_limit),
        test("limits::no_try_gets_past_one", no_try_gets_past),
        test("limits::a_value_out_of_range_is_refused", out_of_range),
        test("limits::usage_tells_what_a_run_took", usage),
        test("limits::names_and_errors_are_bounded_too", names_and_errors),
        test("limits::memory_goes_back", memory_goes_back),
        test("limits::busy_scripts_leave_time_for_others", busy_scripts),
        test("limits::more_scripts_than_slots_wait_for_each_other", more_than_slots),
    ]
}

async fn with_limits(change: impl FnOnce(&mut Limits), isolation: Isolation, code: &str) -> Execution {
    let mut limits = Limits::default();
    change(&mut limits);
    let servers = json!({"demo": demo(), "fake": fake_server::entry("plain")});
    let client = builder(servers).limits(limits).isolation(isolation).build().unwrap();
    let execution = run(&client, code).await;
    client.close_all_sessions().await;
    execution
}

async fn each_limit() -> Result<(), Ignored> {
    type Change = fn(&mut Limits);
    let cases: [(Change, &str, &str, &str); 9] = [
        (
            |l| l.wall_time = Duration::from_millis(200),
            "loop {}",
            "timeout",
            "the script took longer than the limit of 0.2 s (`wall_time`)",
        ),
        (
            |l| l.wall_time = Duration::from_millis(200),
            "fake.never()",
            "timeout",
            "the script took longer than the limit of 0.2 s (`wall_time`) while it waited for `fake.never`",
        ),
        (
            |l| l.wall_time = Duration::from_millis(200),
            "parallel_map(0..9, |x| fake.never())",
            "timeout",
            "the script took longer than the limit of 0.2 s (`wall_time`) while it waited for `fake.never`, `fake.never`, `fake.never`, 6 more",
        ),
        (
            |l| l.call_depth = 7,
            "fn f(x) { f(x + 1) } f(0)",
            "limit",
            "functions call each other over 7 levels deep (`call_depth`): is there an end to the recursion?",
        ),
        (
            |l| l.tool_calls = 3,
            "loop { demo.list_users() }",
            "limit",
            "the script made more calls of tools than the limit of 3 (`tool_calls`)",
        ),
        (
            |l| l.source_bytes = 10,
            "1 + 2 + 3 + 4",
            "limit",
            "the source is too large: 13 bytes, over the limit of 10 bytes (`source_bytes`)",
        ),
        (
            |l| l.argument_bytes = 20,
            "fake.echo(#{text: \"0123456789\"})",
            "limit",
            "the arguments of `fake.echo` are too large: 21 bytes, over the limit of 20 bytes (`argument_bytes`)",
        ),
        (
            |l| l.answer_bytes = 10,
            "fake.text()",
            "limit",
            "the answer of `fake.text` is too large: 13 bytes, over the limit of 10 bytes (`answer_bytes`)",
        ),
        (
            |l| l.result_bytes = 10,
            "\"0123456789\"",
            "limit",
            "the result is too large: 12 bytes, over the limit of 10 bytes (`result_bytes`)",
        ),
    ];
    for isolation in [Isolation::Sandbox, Isolation::InProcess] {
        for (change, code, kind, message) in cases {
            let execution = with_limits(change, isolation, code).await;
            let error = execution.error.unwrap_or_else(|| panic!("{code} gave {}", execution.result));
            assert_eq!((error.kind.as_str(), error.message.as_str()), (kind, message), "{code} {isolation:?}");
        }
        let cut = with_limits(|l| l.log_lines = 2, isolation, "for i in 0..5 { print(i); } 1").await;
        assert_eq!(cut.logs, ["0", "1", "[cut: 3 more lines; the limits are 2 lines and 64 KiB]"]);
        let cut = with_limits(|l| l.log_line_bytes = 4, isolation, "print(\"añb…long\")").await;
        assert_eq!(cut.logs, ["añb… [cut: the line has 11 bytes]"]);
        let cut = with_limits(|l| l.log_bytes = 4, isolation, "print(\"abc\"); print(\"de\"); print(\"f\")").await;
        assert_eq!(cut.logs, ["abc", "[cut: 2 more lines; the limits are 1000 lines and 4 bytes]"]);
    }
    let memory = with_limits(|l| l.memory_bytes = 4 << 20, Isolation::Sandbox, "let s = \"x\"; loop { s += s; }").await;
    assert_eq!(memory.error.unwrap().message, "the script needs more memory than the limit of 4 MiB (`memory_bytes`)");
    assert!(memory.usage.peak_memory_bytes.unwrap() <= 4 << 20);
    Ok(())
}

async fn out_of_range() -> Result<(), Ignored> {
    let mut limits = Limits::default();
    limits.calls_in_flight = 65;
    let refused = builder(json!({})).limits(limits).build().err().unwrap();
    assert_eq!(refused.to_string(), "the limit `calls_in_flight` has to be from 1 to 64, and is 65");
    assert!(refused.is_config());
    Ok(())
}

async fn usage() -> Result<(), Ignored> {
    for isolation in [Isolation::Sandbox, Isolation::InProcess] {
        let code = "let a = fake.echo(#{n: 1}); let b = parallel_map(0..8, |i| fake.work(#{id: i, delay: 100})); sleep(0.1); b.len()";
        let execution = with_limits(|l| l.tool_calls = 10, isolation, code).await;
        let usage = &execution.usage;
        assert_eq!((usage.tool_calls, usage.argument_bytes), (9, 7 + 8 * 20));
        assert_eq!(usage.answer_bytes, execution.calls.iter().map(|call| call.answer_bytes).sum::<usize>());
        let nearest = usage.nearest_limit.as_ref().unwrap();
        assert_eq!((nearest.name, nearest.share), ("tool_calls", 0.9));
        // The eight that overlap count once, and the clock counts too.
        let of_calls: Duration = execution.calls.iter().map(|call| call.duration).sum();
        assert!(usage.tool_time >= Duration::from_millis(200) && usage.tool_time < of_calls, "{usage:?}");
        assert!(usage.wall_time >= usage.tool_time && usage.wall_time == execution.execution_time);
        let measured = isolation == Isolation::Sandbox;
        assert_eq!(usage.instances.is_some_and(|instances| instances >= 1), measured);
        assert_eq!(usage.peak_memory_bytes.is_some_and(|bytes| bytes > 1 << 16), measured);
        assert_eq!(usage.cpu_ticks.is_some(), measured);

        let hit = with_limits(|l| l.wall_time = Duration::from_millis(300), isolation, "loop {}").await;
        let nearest = hit.usage.nearest_limit.unwrap();
        assert_eq!((nearest.name, nearest.share), ("wall_time", 1.0));
        assert!(hit.usage.cpu_ticks.is_none_or(|ticks| ticks > 10), "{:?}", hit.usage.cpu_ticks);
    }
    Ok(())
}

async fn no_try_gets_past() -> Result<(), Ignored> {
    let cases = [
        ("loop { try { loop {} } catch { } }", "timeout"),
        ("loop { try { fake.never() } catch { } }", "timeout"),
        ("loop { try { fake.echo(#{a: \"x\"}) } catch { } }", "limit"),
        ("try { let s = \"x\"; loop { s += s; } } catch { } 1", "limit"),
        ("fn f(x) { try { f(x + 1) } catch { f(x + 1) } } f(0)", "limit"),
        ("loop { try { [1].map(|x| fake.echo(#{a: \"x\"})) } catch { } }", "limit"),
        ("loop { try { parallel([|| { try { loop {} } catch {} }]) } catch { } }", "timeout"),
        ("loop { try { retry(100, || fake.echo(#{a: \"x\"})) } catch { } }", "limit"),
        ("loop { try { timeout(30, || [1].map(|x| fake.echo(#{a: \"x\"}))) } catch { } }", "limit"),
        ("loop { try { parallel_settled([|| [1].map(|x| fake.echo(#{a: \"x\"}))]) } catch { } }", "limit"),
    ];
    for (code, kind) in cases {
        let change = |limits: &mut Limits| {
            limits.wall_time = Duration::from_secs(if kind == "timeout" { 1 } else { 60 });
            limits.tool_calls = 5;
        };
        for isolation in [Isolation::Sandbox, Isolation::InProcess] {
            if isolation == Isolation::InProcess && code.contains("s += s") {
                continue; // nothing bounds memory there
            }
            let execution = with_limits(change, isolation, code).await;
            let error = execution.error.unwrap_or_else(|| panic!("{code} gave {}", execution.result));
            assert_eq!(error.kind.as_str(), kind, "{code}, {isolation:?}: {error}");
        }
    }
    Ok(())
}

/// Memory that is this process's own, in KiB.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn memory_goes_back() -> Result<(), Ignored> {
    if cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    let client = client(json!({}));
    let hostile = [
        ("let s = \"x\"; loop { s += s; }", "limit"),
        ("let a = []; loop { let b = []; b.pad(1000, 7); a.push(b); }", "limit"),
        ("let a = [1]; loop { a.push(a); }", "limit"),
        ("let s = \"x\"; let b = \"x\"; for i in 0..20 { b += b; } let t = b; t.replace(\"x\", b); t.len()", "limit"),
        ("let a = []; for i in 0..3000 { a = [a]; } a == a", "limit"),
        ("let a = [1]; for i in 0..50000 { a.push([a.pop()]); } a", "limit"),
        ("fn f(x) { f(x + 1) + 1 } f(0)", "limit"),
        ("let f = |g, n| g.call(g, n + 1) + 1; f.call(f, 0)", "limit"),
        ("loop { [3, 1, 2].sort(|a, b| 1); }", "timeout"),
    ];
    // Long enough for a busy machine to come to the limit that is meant.
    let options = |kind| ExecuteOptions::default().timeout(Duration::from_secs(if kind == "timeout" { 1 } else { 60 }));
    let mut sizes = Vec::new();
    for _ in 0..3 {
        for (code, kind) in hostile {
            let execution = client.execute_code(code, options(kind)).await.unwrap();
            let error = execution.error.unwrap_or_else(|| panic!("{code} gave {}", execution.result));
            assert_eq!(error.kind.as_str(), kind, "{code}: {error}");
        }
        assert_eq!(value(run(&client, "40 + 2").await), json!(42));
        sizes.push(resident());
    }
    // Other tests run in this process too, and give back what they took; one 64 MiB instance that stayed would never go.
    for _ in 0..200 {
        if resident() - sizes[0] < 48 << 10 {
            return Ok(());
        }
        value(run(&client, "sleep(0.1)").await);
    }
    panic!("{sizes:?} KiB, and in the end {}", resident());
}

async fn busy_scripts() -> Result<(), Ignored> {
    let client = client(json!({}));
    let busy = |seconds| ExecuteOptions::default().timeout(Duration::from_secs(seconds));
    // As many as there are threads, twice: they must give way, or the short ones never get one.
    let hogs: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.execute_code("loop {}", busy(60)).await })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(value(run(&client, "1 + 1").await), json!(2));
    }
    for hog in hogs {
        assert!(!hog.is_finished());
        hog.abort();
    }
    Ok(())
}

async fn more_than_slots() -> Result<(), Ignored> {
    let client = client(json!({"demo": demo()}));
    client.search_tools("", rhaiway::Detail::Names).await;
    let scripts = (0..1200).map(|number| {
        let client = client.clone();
        tokio::spawn(
            async move { value(run(&client, &format!("demo.get_issue(#{{number: 1}}).number + {number}")).await) },
        )
    });
    for (number, script) in scripts.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(script.await.unwrap(), json!(number + 1));
    }
    client.close_all_sessions().await;
    Ok(())
}

async fn names_and_errors() -> Result<(), Ignored> {
    let long = "let n = \"x\"; for i in 0..21 { n += n; } ";
    for isolation in [Isolation::Sandbox, Isolation::InProcess] {
        let name = "try { fake.call_tool(n) } catch (e) { return [e.kind, e.message] }";
        let execution = with_limits(|_| {}, isolation, &format!("{long}{name}")).await;
        assert_eq!(execution.calls.len(), 0);
        let message = "the name of the tool has 2097152 bytes; none is longer than 256";
        assert_eq!(value(execution), json!(["unknown_tool", message]));

        let query = "try { search_tools(n) } catch (e) { return e.message }";
        let found = value(with_limits(|_| {}, isolation, &format!("{long}{query}")).await);
        assert_eq!(found, json!("the query has 2 MiB, and at most 1 KiB are searched for"));

        let error = with_limits(|_| {}, isolation, &format!("{long}throw n")).await.error.unwrap();
        assert!(error.message.ends_with("x… [cut: the message has 2097152 bytes]") && error.message.len() < 5000);
        assert_eq!(error.thrown, Some(json!("[cut: the value has 2097154 bytes]")));

        let error = with_limits(|l| l.answer_bytes = 5, isolation, "fake.error()").await.error.unwrap();
        let message =
            "what `fake.error` says of its failure is too large: 68 bytes, over the limit of 5 bytes (`answer_bytes`)";
        assert_eq!(error.message, message);
    }
    Ok(())
}
