//! The comments in a component's WIT, by the names in it.
//!
//! They are not in a component's types, but in a section of their own, `package-docs`: a version and JSON, as wit-component writes it for
//! packages of WIT, and tools such as `wit-docs-inject` for components. wit-parser knows the section, but holds it against a world of the
//! name `root` when it reads a component, and gives up as there is none. So the texts are read here, and wit-parser is asked only
//! what the types are called.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{Function, InterfaceId, Resolve, Type, TypeDefKind, TypeOwner, WorldId, WorldItem};

const SECTION: &[u8] = b"package-docs";
/// Longest comment that is kept, in characters.
const LONGEST: usize = 2000;

/// A function among all of the component.
pub(super) fn path(interface: Option<&str>, function: &str) -> String {
    interface.map_or_else(|| function.to_string(), |interface| format!("{interface}#{function}"))
}

/// `convert` of `docs:units/convert@1.0.0`.
pub(super) fn interface_name(export: &str) -> &str {
    let name = export.rsplit_once('/').map_or(export, |(_, name)| name);
    name.split_once('@').map_or(name, |(name, _)| name)
}

/// What a component says of itself in words, which may be nothing.
#[derive(Default)]
pub(super) struct Docs {
    texts: Texts,
    named: Option<Named>,
}

/// A type by its name: the comment, those on its fields or cases, and what it is made of.
#[derive(Default, Clone, Copy)]
pub(super) struct Described<'a> {
    pub(super) text: Option<&'a str>,
    items: Option<&'a HashMap<String, String>>,
    kind: Option<&'a TypeDefKind>,
}

impl Docs {
    pub(super) fn of(wasm: &[u8]) -> Self {
        let Some(texts) = sections(wasm).find_map(|section| section.custom(SECTION)).and_then(Texts::read) else {
            return Self::default();
        };
        // A fault of the parser costs the comments on types.
        let named = catch_unwind(AssertUnwindSafe(|| Named::read(wasm))).ok().flatten();
        Self { texts, named }
    }

    pub(super) fn function(&self, interface: Option<&str>, function: &str) -> Option<&str> {
        self.texts.scope(interface.map(interface_name))?.funcs.get(function).map(String::as_str)
    }

    /// The types of a function's parameters and result, as they are called.
    pub(super) fn signature(&self, interface: Option<&str>, function: &str) -> Option<&Function> {
        self.named.as_ref()?.functions.get(&path(interface, function))
    }

    /// Of a type that is another name for one, the first comment counts.
    pub(super) fn describe(&self, kind: Option<Type>) -> Described<'_> {
        let mut described = Described::default();
        let mut next = kind;
        while let (Some(Type::Id(id)), Some(named)) = (next, &self.named) {
            let Some(definition) = named.resolve.types.get(id) else { break };
            let name = definition.name.as_deref();
            let texts = name.and_then(|name| self.texts.scope(named.scope(definition.owner))?.types.get(name));
            described.text = described.text.or_else(|| texts?.docs.as_deref());
            described.items = texts.map(|texts| &texts.items);
            described.kind = Some(&definition.kind);
            next = match definition.kind {
                TypeDefKind::Type(other) => Some(other),
                _ => None,
            };
        }
        described
    }
}

impl<'a> Described<'a> {
    /// The comment on a field, a case or a flag.
    pub(super) fn item(self, name: &str) -> Option<&'a str> {
        self.items?.get(name).map(String::as_str)
    }

    /// The type of the nth field, case or item.
    pub(super) fn part(self, index: usize) -> Option<Type> {
        match self.kind? {
            TypeDefKind::Record(record) => record.fields.get(index).map(|field| field.ty),
            TypeDefKind::Tuple(tuple) => tuple.types.get(index).copied(),
            TypeDefKind::Variant(variant) => variant.cases.get(index)?.ty,
            TypeDefKind::List(item) | TypeDefKind::Option(item) => Some(*item),
            TypeDefKind::Map(key, value) => Some(if index == 0 { *key } else { *value }),
            TypeDefKind::Result(result) => {
                if index == 0 {
                    result.ok
                } else {
                    result.err
                }
            }
            _ => None,
        }
    }
}

/// The names in a component's types.
struct Named {
    resolve: Resolve,
    /// By their path.
    functions: HashMap<String, Function>,
    /// Interfaces that have no name but that of their export.
    inline: HashMap<InterfaceId, String>,
}

impl Named {
    fn read(wasm: &[u8]) -> Option<Self> {
        let DecodedWasm::Component(resolve, world) = decode(&without_docs(wasm)).ok()? else { return None };
        let (mut functions, mut inline) = (HashMap::new(), HashMap::new());
        for (name, item) in exports(&resolve, world) {
            match item {
                WorldItem::Function(function) => {
                    functions.insert(name, function.clone());
                }
                WorldItem::Interface { id, .. } => {
                    let interface = resolve.interfaces.get(*id)?;
                    let all = interface.functions.values();
                    functions.extend(all.map(|function| (path(Some(&name), &function.name), function.clone())));
                    inline.insert(*id, name);
                }
                WorldItem::Type { .. } => {}
            }
        }
        Some(Self { resolve, functions, inline })
    }

    /// The name of the interface that a type belongs to; none for the world.
    fn scope(&self, owner: TypeOwner) -> Option<&str> {
        let TypeOwner::Interface(id) = owner else { return None };
        let interface = self.resolve.interfaces.get(id)?;
        interface.name.as_deref().or_else(|| self.inline.get(&id).map(|name| interface_name(name)))
    }
}

fn exports(resolve: &Resolve, world: WorldId) -> impl Iterator<Item = (String, &WorldItem)> {
    let exports = resolve.worlds.get(world).into_iter().flat_map(|world| &world.exports);
    exports.map(|(key, item)| (resolve.name_world_key(key), item))
}

/// The section as text, all worlds as one: a component is of one world, and which one is not in it.
#[derive(Default)]
struct Texts {
    world: Scope,
    interfaces: HashMap<String, Scope>,
}

impl Texts {
    fn read(section: &[u8]) -> Option<Self> {
        let (0 | 1, json) = section.split_first()? else { return None };
        let package: Package = serde_json::from_slice(json).ok()?;
        let mut texts = Self::default();
        let interfaces = package.interfaces.into_iter();
        texts.interfaces.extend(interfaces.map(|(name, scope)| (name, Scope::from(scope))));
        for world in package.worlds.into_values() {
            let World { interfaces, interface_exports, funcs, func_exports, types } = world;
            texts.world.add(ScopeText { funcs, types });
            texts.world.add(ScopeText { funcs: func_exports, types: HashMap::new() });
            for (name, scope) in interfaces.into_iter().chain(interface_exports) {
                texts.interfaces.entry(name).or_default().add(scope);
            }
        }
        Some(texts)
    }

    fn scope(&self, interface: Option<&str>) -> Option<&Scope> {
        interface.map_or(Some(&self.world), |interface| self.interfaces.get(interface))
    }
}

/// The texts of an interface or a world.
#[derive(Default)]
struct Scope {
    funcs: HashMap<String, String>,
    types: HashMap<String, TypeText>,
}

impl Scope {
    fn add(&mut self, text: ScopeText) {
        self.funcs.extend(text.funcs.into_iter().filter_map(|(name, text)| Some((name, cut(&text.into_docs()?)))));
        self.types.extend(text.types.into_iter().map(|(name, text)| (name, text.cut())));
    }
}

impl From<ScopeText> for Scope {
    fn from(text: ScopeText) -> Self {
        let mut scope = Self::default();
        scope.add(text);
        scope
    }
}

fn cut(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}… (cut, {} bytes in all)", text.get(..end).unwrap_or_default(), text.len()),
        None => text.into(),
    }
}

/// The section as JSON, as far as it is of use here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Package {
    worlds: HashMap<String, World>,
    interfaces: HashMap<String, ScopeText>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct World {
    interfaces: HashMap<String, ScopeText>,
    interface_exports: HashMap<String, ScopeText>,
    funcs: HashMap<String, FunctionText>,
    func_exports: HashMap<String, FunctionText>,
    types: HashMap<String, TypeText>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ScopeText {
    funcs: HashMap<String, FunctionText>,
    types: HashMap<String, TypeText>,
}

/// Version 0 of the section has just the text.
#[derive(Deserialize)]
#[serde(untagged)]
enum FunctionText {
    Plain(Option<String>),
    Docs {
        #[serde(default)]
        docs: Option<String>,
    },
}

impl FunctionText {
    fn into_docs(self) -> Option<String> {
        match self {
            Self::Plain(docs) | Self::Docs { docs } => docs,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TypeText {
    docs: Option<String>,
    items: HashMap<String, String>,
}

impl TypeText {
    fn cut(self) -> Self {
        let items = self.items.into_iter().map(|(name, text)| (name, cut(&text)));
        Self { docs: self.docs.as_deref().map(cut), items: items.collect() }
    }
}

/// A section of a component's binary.
struct Section<'a> {
    id: u8,
    whole: &'a [u8],
    contents: &'a [u8],
}

impl<'a> Section<'a> {
    /// What is in it, where it is a custom section of this name.
    fn custom(&self, name: &[u8]) -> Option<&'a [u8]> {
        let (length, rest) = number(self.contents).filter(|_| self.id == 0)?;
        rest.split_at_checked(length).filter(|(found, _)| *found == name).map(|(_, contents)| contents)
    }
}

/// Sections up to one that is cut short.
fn sections(wasm: &[u8]) -> impl Iterator<Item = Section<'_>> {
    let mut rest = wasm.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (id, sized) = rest.split_first()?;
        let (size, contents) = number(sized)?;
        let (contents, after) = contents.split_at_checked(size)?;
        let whole = rest.get(..rest.len().checked_sub(after.len())?)?;
        rest = after;
        Some(Section { id: *id, whole, contents })
    })
}

/// Magic number, version and layer.
const HEADER: usize = 8;

/// An unsigned LEB128 number of 32 bits, and what is after it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes.get(index + 1..)?));
        }
    }
    None
}

/// The component without the section, over which wit-parser would stumble where another crate in the build has its feature `serde` on.
pub(super) fn without_docs(wasm: &[u8]) -> Vec<u8> {
    let mut rest = wasm.get(..HEADER).unwrap_or_default().to_vec();
    for section in sections(wasm).filter(|section| section.custom(SECTION).is_none()) {
        rest.extend_from_slice(section.whole);
    }
    rest
}
