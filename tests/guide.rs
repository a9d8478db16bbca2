//! The language guide for models: that its examples give what it says, and that it stays short.

use libtest_mimic::Trial;
use rhaiway::CODE_MODE_PROMPT;
use serde_json::{Value, json};

use crate::support::{Ignored, client, demo, run, test, value};

/// 1,500 tokens of the encoding `o200k_base`, in which the guide has 3.06 bytes a token.
const BYTES: usize = 4600;

pub fn tests() -> Vec<Trial> {
    vec![test("guide::examples_give_what_they_say", examples), test("guide::it_is_short", is_short)]
}

async fn examples() -> Result<(), Ignored> {
    let mut seen = 0;
    for example in CODE_MODE_PROMPT.split("```rhai\n").skip(1) {
        let code = example.split("```").next().unwrap();
        let expected = code.lines().find_map(|line| line.strip_prefix("// = ")).expect("an example says what it gives");
        let client = client(json!({"tracker": demo()}));
        let given = value(run(&client, code).await);
        client.close_all_sessions().await;
        assert_eq!(given, serde_json::from_str::<Value>(expected).unwrap(), "{code}\ngives {given}");
        seen += 1;
    }
    assert_eq!(seen, 5);
    Ok(())
}

async fn is_short() -> Result<(), Ignored> {
    assert!(CODE_MODE_PROMPT.len() <= BYTES, "{} bytes", CODE_MODE_PROMPT.len());
    Ok(())
}
