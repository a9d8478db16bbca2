//! The types of a function as a tree of our own, with the comments on them. Everything else goes by it: the schema, and values both ways.

use wasmtime::component::Type;
use wasmtime::component::types::ComponentFunc;

use super::docs::{Described, Docs};
use super::value::{SHOWN, cut};

/// Most levels of types in each other. wasmtime allows 100 (wasmparser's `MAX_WASM_COMPONENT_TYPE_DEPTH`), but each is up to four levels
/// in the schema, and most readers of JSON stop at 128.
const LEVELS: usize = 24;
/// Most functions and parts of their types, of all together. Types are a tree here, where in the component they are shared.
const PARTS: usize = 20_000;
/// The same of functions that are then left out, and leave their room to others.
const IN_VAIN: usize = 10 * PARTS;
/// So many bytes of names and comments count as a part. All of them then are some MB, and fit into the message that lists the tools.
const TEXT: usize = 100;

pub(super) struct Shape {
    pub(super) docs: Option<String>,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Bool,
    Integer(Integer),
    Float32,
    Float64,
    Char,
    String,
    List(Box<Shape>),
    Map(Box<Shape>, Box<Shape>),
    Record(Vec<Field>),
    Tuple(Vec<Shape>),
    Variant(Vec<Case>),
    Enum(Vec<Label>),
    Flags(Vec<Label>),
    Option(Box<Shape>),
    Result(Option<Box<Shape>>, Option<Box<Shape>>),
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Integer {
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
}

/// A field of a record, or a parameter.
pub(super) struct Field {
    /// In the WIT.
    pub(super) name: String,
    /// In JSON.
    pub(super) key: String,
    pub(super) docs: Option<String>,
    pub(super) shape: Shape,
}

pub(super) struct Case {
    pub(super) label: Label,
    pub(super) shape: Option<Shape>,
}

/// A name that is a value.
pub(super) struct Label {
    pub(super) name: String,
    pub(super) docs: Option<String>,
}

pub(super) struct Signature {
    pub(super) parameters: Vec<Field>,
    pub(super) result: Option<Shape>,
}

impl Signature {
    /// What a call gives where it does not fail.
    pub(super) fn answer(&self) -> Option<&Shape> {
        match &self.result {
            Some(Shape { kind: Kind::Result(ok, _), .. }) => ok.as_deref(),
            result => result.as_ref(),
        }
    }
}

impl Kind {
    pub(super) fn is_option(&self) -> bool {
        matches!(self, Self::Option(_))
    }
}

impl Integer {
    pub(super) fn range(self) -> (i128, i128) {
        match self {
            Self::S8 => (i8::MIN.into(), i8::MAX.into()),
            Self::U8 => (0, u8::MAX.into()),
            Self::S16 => (i16::MIN.into(), i16::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::S32 => (i32::MIN.into(), i32::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::S64 => (i64::MIN.into(), i64::MAX.into()),
            Self::U64 => (0, u64::MAX.into()),
        }
    }
}

/// Reads the types of functions. The error is why a function can't be a tool.
pub(super) struct Reader<'a> {
    docs: &'a Docs,
    /// Parts that there is still room for.
    room: usize,
    in_vain: usize,
}

type NamedType = Option<wit_parser::Type>;

impl<'a> Reader<'a> {
    pub(super) fn new(docs: &'a Docs) -> Self {
        Self { docs, room: PARTS, in_vain: 0 }
    }

    pub(super) fn signature(
        &mut self,
        interface: Option<&str>,
        function: &str,
        kind: &ComponentFunc,
    ) -> Result<Signature, String> {
        let room = self.room;
        let signature = self.read(interface, function, kind);
        if signature.is_err() && self.in_vain < IN_VAIN {
            self.in_vain += room - self.room;
            self.room = room;
        }
        signature
    }

    fn read(&mut self, interface: Option<&str>, function: &str, kind: &ComponentFunc) -> Result<Signature, String> {
        // wasmtime calls these only with its feature `component-model-async`.
        if kind.async_() {
            return Err("it is asynchronous".into());
        }
        self.taken(function, self.docs.function(interface, function)).map_err(|what| format!("it has {what}"))?;
        let named = self.docs.signature(interface, function);
        let parameters = kind.params().enumerate().map(|(index, (name, kind))| {
            let named = named.and_then(|named| named.params.get(index)).map(|parameter| parameter.ty);
            let shape = self.taken(name, None).and_then(|_| self.shape(&kind, named, 0));
            let shape = shape.map_err(|what| format!("its parameter `{}` has {what}", cut(name, SHOWN)))?;
            Ok(Field::new(name, None, shape))
        });
        let parameters = parameters.collect::<Result<_, String>>()?;
        let mut results = kind.results();
        let result = results.next();
        if results.next().is_some() {
            return Err("it has more than one result".into());
        }
        let named = named.and_then(|named| named.result);
        let result = result.map(|kind| self.shape(&kind, named, 0)).transpose();
        Ok(Signature { parameters, result: result.map_err(|what| format!("its result has {what}"))? })
    }

    fn shape(&mut self, kind: &Type, named: NamedType, level: usize) -> Result<Shape, String> {
        if level == LEVELS {
            return Err(format!("types in each other, more than {LEVELS} levels deep"));
        }
        let described = self.docs.describe(named);
        let docs = self.taken("", described.text)?;
        Ok(Shape { docs, kind: self.kind(kind, described, level + 1)? })
    }

    fn kind(&mut self, kind: &Type, named: Described, level: usize) -> Result<Kind, String> {
        let mut part = |kind: Type, index: usize| self.shape(&kind, named.part(index), level);
        Ok(match kind {
            Type::List(list) => Kind::List(Box::new(part(list.ty(), 0)?)),
            Type::Map(map) => Kind::Map(Box::new(part(map.key(), 0)?), Box::new(part(map.value(), 1)?)),
            Type::Tuple(tuple) => {
                let items = tuple.types().enumerate().map(|(index, kind)| part(kind, index));
                Kind::Tuple(items.collect::<Result<_, _>>()?)
            }
            Type::Option(option) => Kind::Option(Box::new(part(option.ty(), 0)?)),
            Type::Result(result) => {
                let mut part = |kind: Option<Type>, index| kind.map(|kind| part(kind, index).map(Box::new)).transpose();
                Kind::Result(part(result.ok(), 0)?, part(result.err(), 1)?)
            }
            Type::Record(record) => {
                let fields = record.fields().enumerate().map(|(index, field)| {
                    let docs = self.taken(field.name, named.item(field.name))?;
                    Ok(Field::new(field.name, docs, self.shape(&field.ty, named.part(index), level)?))
                });
                Kind::Record(fields.collect::<Result<_, String>>()?)
            }
            Type::Variant(variant) => {
                let cases = variant.cases().enumerate().map(|(index, case)| {
                    let shape = case.ty.map(|kind| self.shape(&kind, named.part(index), level)).transpose()?;
                    Ok(Case { label: self.label(case.name, named)?, shape })
                });
                Kind::Variant(cases.collect::<Result<_, String>>()?)
            }
            Type::Enum(cases) => Kind::Enum(self.labels(cases.names(), named)?),
            Type::Flags(flags) => Kind::Flags(self.labels(flags.names(), named)?),
            Type::Own(_) | Type::Borrow(_) => return Err("a resource".into()),
            Type::Future(_) => return Err("a future".into()),
            Type::Stream(_) => return Err("a stream".into()),
            Type::ErrorContext => return Err("an error context".into()),
            kind => scalar(kind).ok_or("a type that is not known here")?,
        })
    }

    fn labels<'n>(&mut self, all: impl Iterator<Item = &'n str>, named: Described) -> Result<Vec<Label>, String> {
        all.map(|name| self.label(name, named)).collect()
    }

    fn label(&mut self, name: &str, named: Described) -> Result<Label, String> {
        Ok(Label { docs: self.taken(name, named.item(name))?, name: name.into() })
    }

    /// Makes room for a part, its name and the comment on it.
    fn taken(&mut self, name: &str, docs: Option<&str>) -> Result<Option<String>, String> {
        let size = 1 + (name.len() + docs.map_or(0, str::len)) / TEXT;
        self.room = self.room.checked_sub(size).ok_or("more parts, or longer names, than there is room for")?;
        Ok(docs.map(String::from))
    }
}

fn scalar(kind: &Type) -> Option<Kind> {
    Some(match kind {
        Type::Bool => Kind::Bool,
        Type::S8 => Kind::Integer(Integer::S8),
        Type::U8 => Kind::Integer(Integer::U8),
        Type::S16 => Kind::Integer(Integer::S16),
        Type::U16 => Kind::Integer(Integer::U16),
        Type::S32 => Kind::Integer(Integer::S32),
        Type::U32 => Kind::Integer(Integer::U32),
        Type::S64 => Kind::Integer(Integer::S64),
        Type::U64 => Kind::Integer(Integer::U64),
        Type::Float32 => Kind::Float32,
        Type::Float64 => Kind::Float64,
        Type::Char => Kind::Char,
        Type::String => Kind::String,
        _ => return None,
    })
}

impl Field {
    fn new(name: &str, docs: Option<String>, shape: Shape) -> Self {
        Self { name: name.into(), key: name.replace('-', "_"), docs, shape }
    }
}
