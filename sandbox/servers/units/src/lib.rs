//! Conversion of units as a typed component without MCP: what rhaiway makes tools of by its types.

mod bindings;

use std::sync::atomic::{AtomicU64, Ordering};

use bindings::exports::rhaiway::units::convert::{self, ConvertError, Measure, Style, Unit};

#[cfg(target_family = "wasm")]
#[allow(unsafe_code, reason = "of the generated exports")]
mod exported {
    crate::bindings::export!(Units with_types_in crate::bindings);
    use crate::Units;
}

static CALLS: AtomicU64 = AtomicU64::new(0);

fn count_call() -> u64 {
    CALLS.fetch_add(1, Ordering::Relaxed) + 1
}

/// The component.
#[derive(Debug)]
pub struct Units;

#[derive(PartialEq)]
enum Kind {
    Length,
    Weight,
    Temperature,
}

struct Definition {
    unit: Unit,
    name: &'static str,
    symbol: &'static str,
    kind: Kind,
    /// How many metres, kilograms or kelvin one of it is.
    factor: f64,
    /// What is added to it before.
    offset: f64,
}

const fn define(unit: Unit, name: &'static str, symbol: &'static str, kind: Kind, factor: f64) -> Definition {
    Definition { unit, name, symbol, kind, factor, offset: 0.0 }
}

/// In the order of the enum.
const DEFINITIONS: [Definition; 16] = [
    define(Unit::Millimetre, "millimetre", "mm", Kind::Length, 0.001),
    define(Unit::Centimetre, "centimetre", "cm", Kind::Length, 0.01),
    define(Unit::Metre, "metre", "m", Kind::Length, 1.0),
    define(Unit::Kilometre, "kilometre", "km", Kind::Length, 1000.0),
    define(Unit::Inch, "inch", "in", Kind::Length, 0.0254),
    define(Unit::Foot, "foot", "ft", Kind::Length, 0.3048),
    define(Unit::Yard, "yard", "yd", Kind::Length, 0.9144),
    define(Unit::Mile, "mile", "mi", Kind::Length, 1609.344),
    define(Unit::Gram, "gram", "g", Kind::Weight, 0.001),
    define(Unit::Kilogram, "kilogram", "kg", Kind::Weight, 1.0),
    define(Unit::Tonne, "tonne", "t", Kind::Weight, 1000.0),
    define(Unit::Ounce, "ounce", "oz", Kind::Weight, 0.028_349_523_125),
    define(Unit::Pound, "pound", "lb", Kind::Weight, 0.453_592_37),
    define(Unit::Kelvin, "kelvin", "K", Kind::Temperature, 1.0),
    Definition { offset: 273.15, ..define(Unit::Celsius, "celsius", "°C", Kind::Temperature, 1.0) },
    Definition { offset: 459.67, ..define(Unit::Fahrenheit, "fahrenheit", "°F", Kind::Temperature, 5.0 / 9.0) },
];

fn definition(unit: Unit) -> &'static Definition {
    &DEFINITIONS[unit as usize]
}

fn compatible(left: Unit, right: Unit) -> bool {
    definition(left).kind == definition(right).kind
}

fn convert(value: f64, from: Unit, to: Unit) -> Result<Measure, ConvertError> {
    let (source, target) = (definition(from), definition(to));
    if source.kind != target.kind {
        return Err(ConvertError::Incompatible((from, to)));
    }
    if !value.is_finite() {
        return Err(ConvertError::NotANumber);
    }
    let base = (value + source.offset) * source.factor;
    if source.kind == Kind::Temperature && base < 0.0 {
        return Err(ConvertError::BelowAbsoluteZero(base));
    }
    Ok(Measure { value: if from == to { value } else { base / target.factor - target.offset }, unit: to })
}

/// All in the unit of the first, which is none if they are of different kinds.
fn in_one_unit(measures: &[Measure]) -> Option<(Unit, Vec<f64>)> {
    let unit = measures.first()?.unit;
    let values = measures.iter().map(|Measure { value, unit: from }| Some(convert(*value, *from, unit).ok()?.value));
    Some((unit, values.collect::<Option<_>>()?))
}

impl convert::Guest for Units {
    fn convert(value: f64, from: Unit, to: Unit) -> Result<Measure, ConvertError> {
        count_call();
        convert(value, from, to)
    }

    fn parse(text: String) -> Result<Measure, String> {
        count_call();
        let text = text.trim();
        let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(text.len());
        let (number, unit) = (&text[..end], text[end..].trim());
        let value = number.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
        let found = DEFINITIONS.iter().find(|known| unit == known.symbol || unit == known.name);
        match found {
            Some(known) => Ok(Measure { value, unit: known.unit }),
            None if unit.is_empty() => Err(format!("`{text}` has no unit")),
            None => {
                let symbols: Vec<_> = DEFINITIONS.iter().map(|known| known.symbol).collect();
                Err(format!("there is no unit `{unit}`; there are {}", symbols.join(", ")))
            }
        }
    }

    fn add(measures: Vec<Measure>) -> Option<Measure> {
        count_call();
        let (unit, values) = in_one_unit(&measures)?;
        Some(Measure { value: values.into_iter().sum(), unit })
    }

    fn range(measures: Vec<Measure>) -> Option<(Measure, Measure)> {
        count_call();
        let (_, values) = in_one_unit(&measures)?;
        let by_value = |one: &usize, other: &usize| values[*one].total_cmp(&values[*other]);
        let smallest = (0..values.len()).min_by(by_value)?;
        let largest = (0..values.len()).max_by(by_value)?;
        Some((measures[smallest], measures[largest]))
    }

    fn describe(measure: Measure, style: Style) -> String {
        count_call();
        let Definition { name, symbol, .. } = definition(measure.unit);
        let rounded = (measure.value * 100.0).round() / 100.0;
        let value = if style.contains(Style::ROUNDED) { rounded } else { measure.value };
        let sign = if style.contains(Style::SIGNED) && value >= 0.0 { "+" } else { "" };
        format!("{sign}{value} {}", if style.contains(Style::LONG) { name } else { symbol })
    }

    fn compatible(left: Unit, right: Unit) -> bool {
        count_call();
        compatible(left, right)
    }

    fn by_symbol(symbol: char) -> Option<Unit> {
        count_call();
        let mut buffer = [0; 4];
        let symbol: &str = symbol.encode_utf8(&mut buffer);
        DEFINITIONS.iter().find(|known| known.symbol == symbol).map(|known| known.unit)
    }
}

impl bindings::Guest for Units {
    fn calls() -> u64 {
        count_call()
    }

    fn divide(a: i64, b: i64) -> i64 {
        count_call();
        a / b
    }
}

#[cfg(test)]
mod tests {
    use convert::Guest;

    use super::*;

    #[test]
    fn the_definitions_are_in_the_order_of_the_units() {
        for (index, known) in DEFINITIONS.iter().enumerate() {
            assert_eq!(known.unit as usize, index, "{}", known.name);
        }
    }

    #[test]
    fn values_are_converted_within_a_kind() {
        for (value, from, to, expected) in [
            (5.0, Unit::Mile, Unit::Kilometre, 8.046_72),
            (1.0, Unit::Pound, Unit::Ounce, 16.0),
            (-40.0, Unit::Celsius, Unit::Fahrenheit, -40.0),
            (100.0, Unit::Celsius, Unit::Fahrenheit, 212.0),
        ] {
            let actual = convert(value, from, to).unwrap().value;
            assert!((actual - expected).abs() < 1e-9, "{value} {from:?}: {actual}");
        }
        let incompatible = convert(1.0, Unit::Metre, Unit::Gram);
        assert!(matches!(incompatible, Err(ConvertError::Incompatible((Unit::Metre, Unit::Gram)))));
        assert!(matches!(convert(-1.0, Unit::Kelvin, Unit::Celsius), Err(ConvertError::BelowAbsoluteZero(_))));
        assert!(matches!(convert(f64::NAN, Unit::Metre, Unit::Metre), Err(ConvertError::NotANumber)));
    }

    #[test]
    fn measures_are_read_and_written() {
        let parsed = Units::parse(" -3.5 celsius".into()).unwrap();
        assert_eq!(Units::describe(parsed, Style::empty()), "-3.5 °C");
        let parsed = Units::parse("5.125km".into()).unwrap();
        assert_eq!(Units::describe(parsed, Style::all()), "+5.13 kilometre");
        assert_eq!(Units::parse("km".into()).unwrap_err(), "`km` does not begin with a number");
        assert_eq!(Units::parse("5".into()).unwrap_err(), "`5` has no unit");
        assert!(Units::parse("5 ells".into()).unwrap_err().starts_with("there is no unit `ells`; there are mm, cm"));
    }

    #[test]
    fn lists_are_added_up_and_compared() {
        let measures: Vec<_> = ["1 km", "1 mi", "5 m"].map(|text| Units::parse(text.into()).unwrap()).into();
        assert_eq!(Units::describe(Units::add(measures.clone()).unwrap(), Style::ROUNDED), "2.61 km");
        let (smallest, largest) = Units::range(measures).unwrap();
        assert_eq!((smallest.unit, largest.unit), (Unit::Metre, Unit::Mile));
        assert!(Units::add(Vec::new()).is_none());
        assert_eq!((Units::by_symbol('K'), Units::by_symbol('x')), (Some(Unit::Kelvin), None));
        assert!(Units::compatible(Unit::Inch, Unit::Mile) && !Units::compatible(Unit::Inch, Unit::Gram));
    }
}
