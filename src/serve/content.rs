//! Answers as content for the model: text, and pictures, sounds and files in blocks of their own.

use rmcp::model::ContentBlock;
use serde_json::{Map, Value};

/// The blocks of an answer: its JSON, and what in it is a block itself, at any depth, which is only pointed at in the JSON.
pub(super) fn blocks(answer: &Value) -> Vec<ContentBlock> {
    let mut text = answer.clone();
    let mut found = Vec::new();
    take_out(&mut text, &mut found);
    let mut blocks = vec![ContentBlock::text(text.to_string())];
    blocks.extend(found);
    blocks
}

fn take_out(value: &mut Value, found: &mut Vec<ContentBlock>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| take_out(item, found)),
        Value::Object(fields) => match block(fields) {
            Some(block) => {
                found.push(block);
                let number = found.len();
                let (fields, key) = match fields.get_mut("resource").and_then(Value::as_object_mut) {
                    Some(resource) => (resource, "blob"),
                    None => (fields, "data"),
                };
                fields.insert(key.into(), Value::String(format!("(block {number} after this text)")));
            }
            None => fields.values_mut().for_each(|field| take_out(field, found)),
        },
        _ => {}
    }
}

/// What a client shows as something else than text.
fn block(fields: &Map<String, Value>) -> Option<ContentBlock> {
    let text = |fields: &Map<String, Value>, key: &str| fields.get(key).and_then(Value::as_str).map(String::from);
    match fields.get("type")?.as_str()? {
        "image" => Some(ContentBlock::image(text(fields, "data")?, text(fields, "mimeType")?)),
        "audio" => Some(ContentBlock::audio(text(fields, "data")?, text(fields, "mimeType")?)),
        "resource" => {
            text(fields.get("resource")?.as_object()?, "blob")?;
            serde_json::from_value(Value::Object(fields.clone())).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pictures_are_blocks_of_their_own() {
        let picture = json!({"type": "image", "data": "AAEC", "mimeType": "image/png"});
        let sound = json!({"type": "audio", "data": "AAED", "mimeType": "audio/wav"});
        let file = json!({"type": "resource", "resource": {"uri": "a:b", "blob": "AAEE"}});
        let answer = json!({"result": [{"text": "a", "deep": [picture]}, sound, file, {"type": "image"}, {"type": "text", "text": "b"}]});
        let blocks: Vec<Value> = blocks(&answer).iter().map(|block| serde_json::to_value(block).unwrap()).collect();
        assert_eq!(blocks[1..], [picture, sound, file]);
        let text = blocks[0]["text"].as_str().unwrap();
        assert!(["AAEC", "AAED", "AAEE"].iter().all(|data| !text.contains(data)), "{text}");
        assert!(text.contains("(block 3 after this text)"), "{text}");
    }
}
