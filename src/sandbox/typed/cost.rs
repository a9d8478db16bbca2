//! What an answer costs this process before anything of it is counted as output: wasmtime makes a [`Val`] of each part, and we make JSON
//! of that. wasmtime bounds the first by "fuel", which it takes by the bytes of names, texts and `Val`s, whatever these need around them:
//! a flag of one letter is one unit, and 160 bytes. So the fuel for a call is what its type needs at worst.

use serde_json::Value;
use wasmtime::component::Val;

use super::shape::{Case, Kind, Label, Shape};

/// Bytes that an answer may take, by the bytes of output that are allowed: 256 MiB where nothing else was said. That is room for a list of 2.4
/// million small numbers (5 MB of JSON), 200,000 records of three fields (6 MB), 50,000 times 32 flags (7 MB); texts, and lists of long ones, end at
/// `max_output` itself.
const MULTIPLE: usize = 16;
/// Least fuel: what a function hands to its imports is bounded by it, too.
const LEAST: usize = 256 << 10;
/// Ratios are in so many parts.
const PARTS: usize = 16;

const VAL: usize = size_of::<Val>();
const JSON: usize = size_of::<Value>();
const TEXT: usize = size_of::<String>();

/// Fuel for a function with this result, where it may write so many bytes.
pub(super) fn fuel(result: Option<&Shape>, max_output: usize) -> usize {
    // Texts are there twice.
    let mut worst = Worst(2 * PARTS);
    if let Some(shape) = result {
        worst.shape(shape, Slot { bytes: VAL + JSON, fuel: VAL }, false);
    }
    (max_output.saturating_mul(MULTIPLE) / worst.0).saturating_mul(PARTS).max(LEAST)
}

/// The most bytes for a unit of fuel.
struct Worst(usize);

/// What a value takes where it is kept.
#[derive(Clone, Copy)]
struct Slot {
    bytes: usize,
    fuel: usize,
}

impl Slot {
    fn and(self, bytes: usize, fuel: usize) -> Self {
        Self { bytes: self.bytes + bytes, fuel: self.fuel + fuel }
    }

    /// With the name of a case, which JSON has again.
    fn and_label(self, label: &Label) -> Self {
        self.and(2 * allocated(label.name.len()), label.name.len())
    }
}

impl Worst {
    /// Of a value and all in it; what there is only once does not count, but for what is in lists (`many`).
    fn shape(&mut self, shape: &Shape, slot: Slot, many: bool) {
        let mut add = |slot: Slot| {
            if many {
                self.0 = self.0.max((slot.bytes * PARTS).div_ceil(slot.fuel.max(1)));
            }
        };
        let boxed = Slot { bytes: allocated(VAL), fuel: VAL };
        match &shape.kind {
            Kind::Bool | Kind::Integer(_) => add(slot),
            // Of which some are texts in JSON.
            Kind::Float32 | Kind::Float64 | Kind::Char => add(slot.and(allocated(1), 0)),
            Kind::String => add(slot.and(2 * allocated(1), 1)),
            Kind::Enum(labels) => labels.iter().for_each(|label| add(slot.and_label(label))),
            Kind::Flags(labels) => flags(labels).for_each(|(bytes, fuel)| add(slot.and(bytes, fuel))),
            Kind::List(item) => {
                add(slot);
                // A list of one has room for four.
                let bytes = if many { allocated(4 * VAL) + allocated(JSON) } else { VAL + JSON };
                self.shape(item, Slot { bytes, fuel: VAL }, true);
            }
            Kind::Map(key, item) => {
                add(slot);
                // An entry of an object, or a list of two.
                let json = object(1).max(allocated(2 * JSON) + JSON);
                self.shape(key, Slot { bytes: VAL + json, fuel: VAL }, true);
                self.shape(item, Slot { bytes: VAL + JSON, fuel: VAL }, true);
            }
            Kind::Tuple(items) => {
                add(slot);
                let bytes = allocated(grown(items.len()) * VAL) + allocated(items.len() * JSON);
                let slot = Slot { bytes: bytes.div_ceil(items.len().max(1)), fuel: VAL };
                for item in items {
                    self.shape(item, slot, many);
                }
            }
            Kind::Record(fields) => {
                add(slot);
                let bytes = allocated(grown(fields.len()) * (TEXT + VAL)) + object(fields.len());
                let slot = Slot { bytes: bytes.div_ceil(fields.len().max(1)), fuel: VAL };
                for field in fields {
                    self.shape(&field.shape, slot.and(2 * allocated(field.name.len()), field.name.len()), many);
                }
            }
            Kind::Variant(cases) => {
                for Case { label, .. } in cases {
                    add(slot.and_label(label).and(object(2) + 2 * allocated(1), 0));
                }
                for shape in cases.iter().filter_map(|case| case.shape.as_ref()) {
                    self.shape(shape, boxed, many);
                }
            }
            Kind::Option(item) => {
                add(slot);
                let object = if item.kind.is_option() { object(1) + allocated(1) } else { 0 };
                self.shape(item, boxed.and(object, 0), many);
            }
            Kind::Result(ok, error) => {
                add(slot.and(object(1) + allocated(1), 0));
                [ok, error].into_iter().flatten().for_each(|shape| self.shape(shape, boxed, many));
            }
        }
    }
}

/// Bytes and fuel of any number of flags, at worst: those with the shortest names.
fn flags(labels: &[Label]) -> impl Iterator<Item = (usize, usize)> {
    let mut lengths: Vec<usize> = labels.iter().map(|label| label.name.len()).collect();
    lengths.sort_unstable();
    let (mut names, mut fuel) = (0, 0);
    lengths.into_iter().enumerate().map(move |(index, length)| {
        names += 2 * allocated(length);
        fuel += length;
        (allocated(grown(index + 1) * TEXT) + allocated((index + 1) * JSON) + names, fuel)
    })
}

/// What the allocator takes for so many bytes.
fn allocated(bytes: usize) -> usize {
    (bytes + 8).next_multiple_of(16).max(32)
}

/// Room of a vector that got so many items one by one.
fn grown(items: usize) -> usize {
    items.next_power_of_two().max(4)
}

/// A JSON object, without its keys' text: its entries with a hash each, and an index of them.
fn object(entries: usize) -> usize {
    let buckets = (entries * 8 / 7 + 1).next_power_of_two().max(4);
    allocated(entries * (size_of::<u64>() + TEXT + JSON)) + allocated(buckets * 9 + 16)
}
