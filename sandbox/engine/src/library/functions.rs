//! What scripts give to functions of lists: a function, or the name of a property.

use rhai::{Array, Dynamic, FnPtr, ImmutableString, NativeCallContext};

use super::{Result, values};
use crate::error;

/// How many names a path such as `author.login` has.
pub(super) const MAX_PATH: usize = 32;
/// Most parameters that a function is looked for with; only its error needs them.
const MAX_PARAMETERS: usize = 8;

/// What a script's function takes, after the arguments that always come first.
enum Shape {
    /// Nothing: the element is `this`.
    This,
    Element,
    ElementAndIndex,
    /// A native function: Rhai finds out by trying.
    Unknown,
}

/// A function of the script, called with elements.
pub(super) struct Callback<'a> {
    context: &'a NativeCallContext<'a>,
    function: FnPtr,
    shape: Shape,
}

impl<'a> Callback<'a> {
    pub(super) fn new(context: &'a NativeCallContext<'a>, function: FnPtr) -> Result<Self> {
        Self::after(context, function, 0)
    }

    /// Of a function that takes so many arguments before the element.
    pub(super) fn after(context: &'a NativeCallContext<'a>, function: FnPtr, before: usize) -> Result<Self> {
        let takes = |count| takes(context, &function, count);
        let shape = if takes(before) {
            Shape::This
        } else if takes(before + 1) {
            Shape::Element
        } else if takes(before + 2) {
            Shape::ElementAndIndex
        } else if function.is_anonymous() {
            let count = (0..MAX_PARAMETERS).find(|count| takes(*count));
            let count = count.map_or_else(|| "too many".into(), |count| count.to_string());
            let name = context.fn_name();
            let expected = before + 1;
            return Err(error::runtime(format!(
                "the function given to `{name}` takes {expected} or {} parameters; this one takes {count}",
                expected + 1
            )));
        } else {
            Shape::Unknown
        };
        Ok(Self { context, function, shape })
    }

    pub(super) fn call(&self, item: &mut Dynamic, index: usize) -> Result<Dynamic> {
        self.call_after([], item, index)
    }

    #[allow(deprecated, reason = "Rhai marks what may change so; the version is pinned")]
    pub(super) fn call_after<const N: usize>(
        &self,
        before: [Dynamic; N],
        item: &mut Dynamic,
        index: usize,
    ) -> Result<Dynamic> {
        let index = position(index);
        let Self { context, function, shape } = self;
        match shape {
            Shape::This => function.call_raw(context, Some(item), before),
            Shape::Element => {
                let values: Array = before.into_iter().chain([item.flatten_clone()]).collect();
                function.call_raw(context, None, values)
            }
            Shape::ElementAndIndex => {
                let values: Array = before.into_iter().chain([item.flatten_clone(), index]).collect();
                function.call_raw(context, None, values)
            }
            Shape::Unknown => function
                .call_raw_with_extra_args(context.fn_name(), context, Some(item), before, [index], Some(N))
                .map_err(unwrapped),
        }
        .map(Dynamic::flatten)
    }

    /// Whether it takes exactly two arguments, as what compares does.
    pub(super) fn takes_two(&self) -> bool {
        matches!(self.shape, Shape::ElementAndIndex)
    }

    pub(super) fn compare(&self, left: &Dynamic, right: &Dynamic) -> Result<Dynamic> {
        self.function.call_raw(self.context, None, [left.flatten_clone(), right.flatten_clone()])
    }
}

/// The error as the function threw it: Rhai wraps it, and what is wrapped can be caught, even if it is a limit.
#[allow(clippy::boxed_local, reason = "what Rhai hands over")]
pub(super) fn unwrapped(error: Box<rhai::EvalAltResult>) -> Box<rhai::EvalAltResult> {
    match *error {
        rhai::EvalAltResult::ErrorInFunctionCall(_, _, inner, _) if error::is_final(&inner) => inner,
        other => other.into(),
    }
}

fn takes(context: &NativeCallContext, function: &FnPtr, count: usize) -> bool {
    let count = function.curry().len() + count;
    context.iter_namespaces().any(|module| module.get_script_fn(function.fn_name(), count).is_some())
}

pub(super) fn position(index: usize) -> Dynamic {
    i64::try_from(index).unwrap_or(i64::MAX).into()
}

pub(super) fn wrong(function: &str, expected: &str, other: &Dynamic) -> Box<rhai::EvalAltResult> {
    let other = values::kind(other);
    error::runtime(format!("the function given to `{function}` returns {expected}; it returned {other}"))
}

/// How a value is got from an element.
pub(super) enum Key<'a> {
    Function(Callback<'a>),
    /// A property, or a path of them with dots.
    Property(&'a NativeCallContext<'a>, ImmutableString),
    Itself,
}

impl<'a> Key<'a> {
    pub(super) fn new(context: &'a NativeCallContext<'a>, given: Dynamic) -> Result<Self> {
        if let Ok(path) = given.as_immutable_string_ref() {
            if path.split('.').nth(MAX_PATH).is_some() {
                return Err(error::runtime(format!("a path has at most {MAX_PATH} names")));
            }
            return Ok(Self::Property(context, path.clone()));
        }
        let kind = values::kind(&given);
        match given.try_cast::<FnPtr>() {
            Some(function) => Callback::new(context, function).map(Self::Function),
            None => Err(error::runtime(format!(
                "`{}` takes a function such as `|x| x.name`, or the name of a property; it was given {kind}",
                context.fn_name()
            ))),
        }
    }

    /// Hands on the element's value without a copy, where it can.
    pub(super) fn read<T>(
        &self,
        item: &mut Dynamic,
        index: usize,
        take: impl FnOnce(&Dynamic) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Function(function) => take(&function.call(item, index)?),
            Self::Property(context, path) => reach(item, path, take).unwrap_or_else(|| {
                let name = context.fn_name();
                Err(error::runtime(if item.is_map() {
                    format!("`{name}` reads `{path}`, which leads through what is no map in element {index}")
                } else {
                    format!("`{name}` reads `{path}` of maps; element {index} is {}", values::kind(item))
                }))
            }),
            Self::Itself => take(item),
        }
    }

    pub(super) fn get(&self, item: &mut Dynamic, index: usize) -> Result<Dynamic> {
        match self {
            Self::Function(function) => function.call(item, index),
            _ => self.read(item, index, |value| Ok(value.flatten_clone())),
        }
    }

    pub(super) fn test(&self, item: &mut Dynamic, index: usize) -> Result<bool> {
        match self {
            Self::Function(function) => {
                let answer = function.call(item, index)?;
                answer.as_bool().map_err(|_| wrong(function.context.fn_name(), "true or false", &answer))
            }
            Self::Property(context, path) => self.read(item, index, |value| {
                value.as_bool().map_err(|_| {
                    let (name, kind) = (context.fn_name(), values::kind(value));
                    error::runtime(format!(
                        "`{name}` takes a property that is true or false; `{path}` of element {index} is {kind}"
                    ))
                })
            }),
            Self::Itself => Ok(false),
        }
    }

    /// What messages call the value of an element.
    pub(super) fn place(&self, index: usize) -> String {
        match self {
            Self::Function(_) => format!("what the function returned for element {index}"),
            Self::Property(_, path) => format!("`{path}` of element {index}"),
            Self::Itself => format!("element {index}"),
        }
    }
}

/// The value at a path; what is missing is `()`, and there is none in what is no map.
pub(super) fn reach<T>(value: &Dynamic, path: &str, take: impl FnOnce(&Dynamic) -> T) -> Option<T> {
    if value.is_unit() {
        return Some(take(&Dynamic::UNIT));
    }
    let map = value.as_map_ref().ok()?;
    if let Some(value) = map.get(path) {
        return Some(take(value));
    }
    match path.split_once('.').and_then(|(first, rest)| Some((map.get(first)?, rest))) {
        Some((inner, rest)) => reach(inner, rest, take),
        None => Some(take(&Dynamic::UNIT)),
    }
}
