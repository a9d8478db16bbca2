//! The keys under which clients keep which tools of a server may be called, and keys that look like them. Knows nothing of what they hold.

use serde_json::Value;

use super::entry::fold;

/// Keys whose lists name tools that can't be called, in camel case; snake case is read too.
pub(super) const DENY: [&str; 18] = [
    "excludeTools",  // Gemini CLI, Qwen Code, pi
    "disabledTools", // Roo Code, Windsurf, deepagents, Kiro, mcpo; Codex and Crush in snake case
    "excludedTools",
    "blockedTools",
    "deniedTools",
    "denyTools",
    "blockTools",
    "disableTools",
    "disallowedTools", // Claude Agent SDK
    "disallowTools",
    "forbiddenTools",
    "toolDenylist",
    "toolBlocklist",
    "toolBlacklist",
    "toolsDeny",
    "toolsExclude",
    "blockedToolNames", // OpenAI Agents SDK
    "deniedToolNames",
];
/// Keys whose lists name the only tools that can be called.
pub(super) const ALLOW: [&str; 13] = [
    "includeTools", // Gemini CLI, Amp
    "allowedTools", // deepagents; OpenAI in snake case
    "enabledTools", // Codex and Crush in snake case
    "includedTools",
    "allowTools",
    "enableTools",
    "onlyTools",
    "availableTools", // goose
    "toolAllowlist",
    "toolWhitelist",
    "toolsAllow",
    "toolsInclude",
    "allowedToolNames", // OpenAI Agents SDK
];
/// An array of the only tools, as Copilot CLI has it; or an object of tools that are on or off, as opencode has it.
pub(super) const TOOLS: &str = "tools";
/// An object of lists, as the Agents SDK has it.
pub(super) const TOOL_FILTER: &str = "toolFilter";
/// Keys with `tool` in them that say which calls nobody is asked about. Nobody is asked here, so they change nothing.
const ASK_NOTHING: [&str; 9] = [
    "alwaysallowtools",
    "autoapprovetools",
    "autoapprovedtools",
    "trustedtools",
    "autoallowtools",
    "directtools",
    "defaulttoolsapprovalmode",
    "approvedtools",
    "approvalmode",
];
/// Words that a key has which is about what tools can be called.
const WORDS: [&str; 22] = [
    "exclud",
    "disabl",
    "block",
    "deny",
    "denied",
    "disallow",
    "forbid",
    "includ",
    "allow",
    "enabl",
    "whitelist",
    "blacklist",
    "filter",
    "only",
    "hidden",
    "permit",
    "permission",
    "restrict",
    "hide",
    "remov",
    "skip",
    "ignor",
];
/// Keys that say so without `tool` in them. Clients have them at other places.
const BARE: [&str; 17] = [
    "exclude",
    "excludes",
    "excluded",
    "deny",
    "denied",
    "denylist",
    "block",
    "blocked",
    "blocklist",
    "blacklist",
    "disallow",
    "disallowed",
    "forbidden",
    "allowlist",
    "whitelist",
    "permission",
    "permissions",
];
/// The key that was meant by one that is none but looks as if it said which tools can be called. `says` is its value.
pub(super) fn meant(key: &str, says: &Value) -> Option<&'static str> {
    let folded = fold(key);
    if says.is_null() || ASK_NOTHING.contains(&folded.as_str()) {
        return None;
    }
    let (nearest, distance) = nearest(&folded)?;
    let about_tools = folded.contains("tool") && (has_word(&folded) || keeps_away(says));
    let says_so = about_tools || BARE.contains(&folded.as_str());
    (says_so || distance <= 2).then_some(if says.is_object() { TOOLS } else { nearest })
}

/// The key that was meant by one at the top of a file that comes near to a list of tools that can't be called.
pub(super) fn meant_for_all(key: &str) -> Option<&'static str> {
    let folded = fold(key);
    let (nearest, distance) = nearest(&folded)?;
    ((1..=2).contains(&distance) && DENY.contains(&nearest)).then_some(nearest)
}

fn nearest(folded: &str) -> Option<(&'static str, usize)> {
    let known = DENY.iter().chain(&ALLOW).chain(&[TOOL_FILTER]).copied();
    known.map(|known| (known, strsim::damerau_levenshtein(&fold(known), folded))).min_by_key(|(_, distance)| *distance)
}

/// Whether a key says something of what can be called.
pub(super) fn has_word(key: &str) -> bool {
    let folded = fold(key);
    !ASK_NOTHING.contains(&folded.as_str()) && WORDS.iter().any(|word| folded.contains(word))
}

/// Whether settings of tools, at whatever place in them, seem to keep one from being called.
fn keeps_away(says: &Value) -> bool {
    match says {
        Value::Bool(on) => !on,
        Value::String(word) => is_on(word) == Some(false),
        Value::Array(items) => items.iter().any(keeps_away),
        // That something is on keeps nothing away.
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            keeps_away(value)
                || !value.is_null() && has_word(key) && !(*value == Value::Bool(true) && word(key) == Some(true))
        }),
        Value::Null | Value::Number(_) => false,
    }
}

/// Whether a tool is on whose field of this name is `true`.
pub(super) fn word(key: &str) -> Option<bool> {
    match &*fold(key) {
        "enabled" | "enable" | "allowed" | "allow" | "on" => Some(true),
        "disabled" | "disable" | "denied" | "deny" | "blocked" | "block" | "hidden" | "hide" | "excluded"
        | "exclude" | "off" => Some(false),
        _ => None,
    }
}

/// Whether a tool is on that a client's setting says this of. Nobody is asked here.
pub(super) fn is_on(said: &str) -> Option<bool> {
    match &*fold(said) {
        "allow" | "allowed" | "ask" | "always" | "on" | "enabled" | "prompt" | "approve" | "auto" => Some(true),
        "deny" | "denied" | "never" | "off" | "disabled" | "block" | "blocked" | "forbidden" | "hidden" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_in_keys_are_known() {
        for (key, meant_key) in [
            ("excludeTool", Some("excludeTools")),
            ("disabledtools", Some("disabledTools")),
            ("exclude-tools", Some("excludeTools")),
            ("alowedTools", Some("allowedTools")),
            ("toolsDisabled", Some("disabledTools")),
            ("alwaysAllow", None),
            ("autoApprove", None),
            ("trustedTools", None),
            ("timeout", None),
            ("description", None),
            ("tools", None),
        ] {
            let found = meant(key, &Value::from(vec!["a"]));
            assert_eq!(found.is_some(), meant_key.is_some(), "{key}: {found:?}");
            if key != "toolsDisabled" {
                assert_eq!(found, meant_key, "{key}");
            }
        }
    }
}
