//! Servers as namespaces: `server.tool(#{…})` in a script becomes a call of the host.
//!
//! A server's name resolves in `on_var`, also inside functions. The word after it is replaced (see `reader`) by an identifier that
//! carries the word and its position, so that no tool name collides with a method or keyword of Rhai, and `on_missing_function`
//! knows where the call stands.

use rhai::{Dynamic, Engine, EvalAltResult, EvalContext, FnPtr, ImmutableString, Position as RhaiPosition};

use crate::current::{Server, is_caught, is_snapshot, replaced, servers, snapshot, unmangle_name};
use crate::{ToolCall, effects, error, json};

#[allow(deprecated, reason = "Rhai marks its hooks so to say that they may change; the version is pinned")]
pub(crate) fn register(engine: &mut Engine) {
    engine
        .register_type_with_name::<Server>("server")
        .register_fn("to_string", |server: &mut Server| server.label())
        .register_fn("to_debug", |server: &mut Server| server.label())
        .register_indexer_get(|server: &mut Server, tool: ImmutableString| -> Result<Dynamic, Box<EvalAltResult>> {
            let server = &server.0;
            Err(error::runtime(format!(
                "a tool is called, not read: `{server}.{tool}(#{{…}})`, or `{server}.call_tool(\"{tool}\", #{{…}})`"
            )))
        })
        .on_parse_token(|token, position, _| replaced(token, position))
        .on_var(|name, _, mut context| {
            if is_snapshot(name) {
                return Ok(snapshot(name, &context));
            }
            let servers = servers();
            let value = if name == "__tool_namespaces" {
                servers.iter().cloned().map(Dynamic::from).collect::<rhai::Array>().into()
            } else if let Some(name) = servers.iter().find(|server| *server == name) {
                Dynamic::from(Server(name.clone()))
            } else if let Some(value) = crate::library::variable(name) {
                value
            } else {
                if is_caught(name) {
                    error::complete(name, &mut context);
                }
                return Ok(None);
            };
            // A variable or parameter of that name is the one that the author means.
            Ok((!context.scope_mut().contains(name)).then_some(value))
        })
        .on_missing_function(|name, arguments, is_method, mut context| {
            let Some((receiver, arguments)) = arguments.split_first_mut().filter(|_| is_method) else {
                return Ok(None);
            };
            let server = receiver.read_lock::<Server>().map(|server| server.0.clone());
            // The name is as written, and its place unknown, where a variable holds the server: `let g = github; g.tool()`.
            let (word, position) = unmangle_name(name).unwrap_or((name, RhaiPosition::NONE));
            if name == word && is_function(&context, name, arguments.len()) {
                return Ok(None); // `servers.map(f)` asks for a method `f` first
            }
            match server {
                Some(server) => call(&server, word, position, arguments),
                None if name != word => call_shadowed(&mut context, word, receiver, arguments),
                None => return Ok(None),
            }
            .map(Some)
            .map_err(|mut error| {
                if error.position().is_none() {
                    error.set_position(position);
                }
                error
            })
        });
}

fn is_function(context: &EvalContext, name: &str, arguments: usize) -> bool {
    name.contains('$')
        || context
            .iter_namespaces()
            .any(|module| (0..=arguments + 1).any(|count| module.get_script_fn(name, count).is_some()))
}

fn call(
    server: &str,
    word: &str,
    position: RhaiPosition,
    arguments: &mut [&mut Dynamic],
) -> Result<Dynamic, Box<EvalAltResult>> {
    // `call_tool("name", #{…})` calls by any name; a tool that is itself called so takes a map, as every tool does.
    let named = arguments
        .first()
        .filter(|_| word == "call_tool")
        .and_then(|name| name.as_immutable_string_ref().ok().map(|name| name.clone()));
    let (tool, arguments) = match &named {
        Some(tool) => (tool.as_str(), &arguments[1..]),
        None => (word, &*arguments),
    };
    let fail = |message: String| Err(failure("arguments", server, tool, message));
    let text = match arguments {
        [] => "{}".into(),
        [value] if value.is_unit() => "{}".into(),
        [value] if value.is_map() => match json::to_strict_text(value) {
            Ok(text) => text,
            Err(message) => return fail(format!("the arguments of `{server}.{tool}` can't be sent: {message}")),
        },
        // What a link leads to: not a tool for most servers, and the address alone says all.
        [uri] if named.is_none() && word == "read_resource" && uri.is_string() => {
            let uri: Dynamic = uri.flatten_clone();
            json::to_strict_text(&rhai::Map::from([("uri".into(), uri)]).into()).unwrap_or_default()
        }
        given => {
            let types = given.iter().map(|value| value.type_name().rsplit("::").next().unwrap_or_default());
            let given = types.collect::<Vec<_>>().join(", ");
            let form = match &named {
                None if word == "call_tool" => format!("{server}.call_tool(\"name\", #{{name: value}})"),
                None => format!("{server}.{tool}(#{{name: value}})"),
                Some(_) => format!("{server}.call_tool(\"{tool}\", #{{name: value}})"),
            };
            return fail(format!("a tool takes one object map, as in `{form}`; it was given ({given})"));
        }
    };
    let call =
        ToolCall { server, tool, by_name: named.is_some(), arguments: &text, position: error::position(position) };
    effects::call_tool(call)?.map_err(|mut raised| {
        // What is wrong with the answer itself is found where its call is not known.
        if let Ok(mut map) = raised.value.as_map_mut()
            && !map.contains_key("server")
        {
            map.insert("server".into(), server.into());
            map.insert("tool".into(), tool.into());
        }
        raised.into_error()
    })
}

fn failure(kind: &str, server: &str, tool: &str, message: String) -> Box<EvalAltResult> {
    error::thrown([
        ("kind", kind.into()),
        ("server", server.into()),
        ("tool", tool.into()),
        ("message", message.into()),
    ])
}

/// A method call on a variable that has the name of a server: as Rhai would have done it, had we not replaced the word.
fn call_shadowed(
    context: &mut EvalContext,
    word: &str,
    receiver: &mut Dynamic,
    arguments: &mut [&mut Dynamic],
) -> Result<Dynamic, Box<EvalAltResult>> {
    let function = match word {
        "type_of" if arguments.is_empty() => return Ok(context.engine().map_type_name(receiver.type_name()).into()),
        "is_shared" if arguments.is_empty() => return Ok(receiver.is_shared().into()),
        "call" => receiver.read_lock::<FnPtr>().map(|function| function.clone()),
        word => receiver
            .as_map_ref()
            .ok()
            .and_then(|map| map.get(word)?.read_lock::<FnPtr>().map(|function| function.clone())),
    };
    if let Some(function) = function {
        let mut values: Vec<Dynamic> =
            function.curry().iter().cloned().chain(arguments.iter_mut().map(|value| std::mem::take(*value))).collect();
        let mut values: Vec<&mut Dynamic> = values.iter_mut().collect();
        return context.call_fn_raw(function.fn_name(), false, false, &mut values);
    }
    let mut all: Vec<&mut Dynamic> =
        std::iter::once(receiver).chain(arguments.iter_mut().map(|value| &mut **value)).collect();
    context.call_fn_raw(word, true, true, &mut all)
}
