//! Dates: an instant and the offset from UTC in which it is read. There are no time zones by name, for there is no table of them.

use std::fmt;

use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::Offset;
use jiff::{Span, Timestamp, Unit};
use rhai::{Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::Result;
use super::numbers::quoted;
use super::values::{Number, kind};
use crate::{effects, error};

const NANOSECONDS: i128 = 1_000_000_000;
/// Numbers from here on are milliseconds: as seconds they would lie beyond the year 5000.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct Date {
    instant: Timestamp,
    offset: Offset,
}

impl PartialEq for Date {
    fn eq(&self, other: &Self) -> bool {
        self.instant == other.instant
    }
}

impl Eq for Date {}

impl PartialOrd for Date {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Date {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.instant.cmp(&other.instant)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.offset == Offset::UTC {
            write!(out, "{}", self.instant)
        } else {
            write!(out, "{}", self.instant.display_with_offset(self.offset))
        }
    }
}

/// The text of a value that is a date, in JSON and where it is printed.
pub(crate) fn text_of(value: &Dynamic) -> Option<String> {
    value.read_lock::<Date>().map(|date| date.to_string())
}

pub(super) fn register(engine: &mut Engine) {
    engine
        .register_type_with_name::<Date>("date")
        .register_fn("to_string", |date: &mut Date| date.to_string())
        .register_fn("to_debug", |date: &mut Date| date.to_string())
        .register_fn("date", |context: NativeCallContext, value: Dynamic| read(context.fn_name(), &value))
        .register_fn("date", |year: i64, month: i64, day: i64| civil(year, month, day))
        .register_fn("parse_date", |context: NativeCallContext, value: Dynamic| read(context.fn_name(), &value))
        .register_fn("parse_date", parse);
    register_comparison(engine);
    register_fields(engine);
    register_arithmetic(engine);
}

pub(super) fn now() -> Result<Date> {
    let instant = Timestamp::from_microsecond(effects::now()?).map_err(|_| out_of_range("now"))?;
    Ok(Date { instant, offset: Offset::UTC })
}

/// Milliseconds since 1970.
pub(super) fn milliseconds() -> Result<i64> {
    now().map(|date| date.instant.as_millisecond())
}

pub(super) fn read_milliseconds(name: &str, text: &str) -> Result<i64> {
    read_text(name, text).map(|date| date.instant.as_millisecond())
}

fn out_of_range(name: &str) -> Box<rhai::EvalAltResult> {
    error::runtime(format!("`{name}`: dates go from the year -9999 to 9999"))
}

fn register_comparison(engine: &mut Engine) {
    // A text that is no date is another value, and no error, as with every other type.
    engine
        .register_fn("==", |left: Date, right: Date| left == right)
        .register_fn("!=", |left: Date, right: Date| left != right)
        .register_fn("==", |left: Date, right: &str| read_text("==", right).is_ok_and(|right| left == right))
        .register_fn("!=", |left: Date, right: &str| read_text("!=", right).map_or(true, |right| left != right))
        .register_fn("==", |left: &str, right: Date| read_text("==", left).is_ok_and(|left| left == right))
        .register_fn("!=", |left: &str, right: Date| read_text("!=", left).map_or(true, |left| left != right));
    macro_rules! compare {
        ($($operator:literal $method:ident),*) => {$(
            engine
                .register_fn($operator, |left: Date, right: Date| left.$method(&right))
                .register_fn($operator, |left: Date, right: &str| -> Result<bool> { Ok(left.$method(&read_text($operator, right)?)) })
                .register_fn($operator, |left: &str, right: Date| -> Result<bool> { Ok(read_text($operator, left)?.$method(&right)) });
        )*};
    }
    compare!("<" lt, "<=" le, ">" gt, ">=" ge);
}

fn register_fields(engine: &mut Engine) {
    macro_rules! fields {
        ($($name:literal $get:expr),* $(,)?) => {$(
            engine.register_get($name, |date: &mut Date| -> i64 {
                let get: fn(DateTime) -> i64 = $get;
                get(date.local())
            });
        )*};
    }
    fields!(
        "year" | local | local.year().into(),
        "month" | local | local.month().into(),
        "day" | local | local.day().into(),
        "hour" | local | local.hour().into(),
        "minute" | local | local.minute().into(),
        "second" | local | local.second().into(),
        "millisecond" | local | local.millisecond().into(),
        "day_of_year" | local | local.day_of_year().into(),
        "week" | local | local.date().iso_week_date().week().into(),
    );
    engine
        .register_get("weekday", |date: &mut Date| date.show("weekday", "%A"))
        .register_get("date", |date: &mut Date| date.local().date().to_string())
        .register_get("offset", |date: &mut Date| i64::from(date.offset.seconds()))
        .register_get("timestamp", |date: &mut Date| date.seconds())
        .register_get("timestamp_ms", |date: &mut Date| date.instant.as_millisecond())
        .register_get("iso", |date: &mut Date| date.to_string())
        .register_fn("toISOString", |date: &mut Date| date.to_string())
        .register_fn("getTime", |date: &mut Date| date.instant.as_millisecond())
        .register_fn("format", |context: NativeCallContext, date: &mut Date, form: &str| {
            date.show(context.fn_name(), form)
        })
        .register_fn("format_date", |context: NativeCallContext, value: Dynamic, form: &str| {
            read(context.fn_name(), &value)?.show(context.fn_name(), form)
        });
}

fn register_arithmetic(engine: &mut Engine) {
    for (name, sign) in [("add", 1), ("sub", -1), ("subtract", -1)] {
        engine
            .register_fn(name, move |context: NativeCallContext, date: &mut Date, count: Dynamic, unit: &str| {
                date.moved(context.fn_name(), &count, unit, sign)
            })
            .register_fn(name, move |context: NativeCallContext, date: &mut Date, parts: Map| {
                let name = context.fn_name();
                // The long units first: January 31 and a month and a day is the day after the last of February.
                let mut parts: Vec<_> = parts
                    .iter()
                    .map(|(unit, count)| Ok((Step::of(name, unit)?, unit, count)))
                    .collect::<Result<_>>()?;
                parts.sort_by_key(|(step, ..)| std::cmp::Reverse(*step));
                parts.into_iter().try_fold(*date, |date, (_, unit, count)| date.moved(name, count, unit, sign))
            });
    }
    for name in ["add_to_date", "date_add"] {
        engine.register_fn(name, |context: NativeCallContext, value: Dynamic, count: Dynamic, unit: &str| {
            read(context.fn_name(), &value)?.moved(context.fn_name(), &count, unit, 1)
        });
    }
    engine
        .register_fn("diff", |context: NativeCallContext, date: &mut Date, other: Dynamic, unit: &str| {
            read(context.fn_name(), &other)?.until(context.fn_name(), *date, unit)
        })
        .register_fn("date_diff", |context: NativeCallContext, date: Dynamic, other: Dynamic, unit: &str| {
            let name = context.fn_name();
            read(name, &other)?.until(name, read(name, &date)?, unit)
        })
        .register_fn("days_between", |context: NativeCallContext, from: Dynamic, to: Dynamic| {
            let name = context.fn_name();
            read(name, &from)?.until(name, read(name, &to)?, "days")
        })
        .register_fn("start_of", |context: NativeCallContext, date: &mut Date, unit: &str| {
            date.start_of(context.fn_name(), unit)
        })
        .register_fn("to_utc", |date: &mut Date| Date { instant: date.instant, offset: Offset::UTC })
        .register_fn("to_offset", |date: &mut Date, hours: Dynamic| -> Result<Date> {
            let seconds = Number::of(&hours).map(|hours| hours.float() * 3600.0).filter(|seconds| seconds.is_finite());
            #[allow(clippy::cast_possible_truncation, reason = "a cast that saturates, to what is refused then")]
            let offset = seconds.and_then(|seconds| Offset::from_seconds(seconds as i32).ok());
            let offset = offset
                .ok_or_else(|| error::runtime("`to_offset` takes the hours from UTC, from -25 to 25, such as 5.5"))?;
            Ok(Date { instant: date.instant, offset })
        });
}

fn civil(year: i64, month: i64, day: i64) -> Result<Date> {
    let date = i16::try_from(year).ok().zip(i8::try_from(month).ok()).zip(i8::try_from(day).ok());
    let date = date.and_then(|((year, month), day)| jiff::civil::Date::new(year, month, day).ok());
    let date = date.ok_or_else(|| error::runtime(format!("there is no day {year}-{month}-{day}")))?;
    Date::at("date", date.to_datetime(Time::midnight()), Offset::UTC)
}

/// A date as it is, a text in one of the common forms, or the time since 1970.
fn read(name: &str, value: &Dynamic) -> Result<Date> {
    if let Some(date) = value.read_lock::<Date>() {
        return Ok(*date);
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return read_text(name, &text);
    }
    #[allow(clippy::cast_possible_truncation, reason = "a cast that saturates, to what is refused then")]
    let instant = match Number::of(value) {
        Some(Number::Int(int)) if int.unsigned_abs() >= MILLISECONDS_FROM => Timestamp::from_millisecond(int),
        Some(Number::Int(int)) => Timestamp::from_second(int),
        Some(Number::Float(float)) if float.is_finite() => Timestamp::from_nanosecond((float * 1e9) as i128),
        _ => {
            let kind = kind(value);
            return Err(error::runtime(format!(
                "`{name}` takes a date, a text such as \"2026-01-31\", or seconds since 1970; it was given {kind}"
            )));
        }
    };
    instant.map(|instant| Date { instant, offset: Offset::UTC }).map_err(|_| out_of_range(name))
}

fn read_text(name: &str, text: &str) -> Result<Date> {
    let text = text.trim();
    let unknown = || {
        error::runtime(format!(
            "`{name}` can't read the date {}: write as in \"2026-01-31\", \"2026-01-31 10:00:00\" or \
             \"2026-01-31T10:00:00+02:00\", or use parse_date(text, \"%d/%m/%Y\")",
            quoted(text)
        ))
    };
    let Ok(pieces) = Pieces::parse(text) else {
        let zoned = rfc2822::DateTimeParser::new().parse_zoned(text).map_err(|_| unknown())?;
        return Ok(Date { instant: zoned.timestamp(), offset: zoned.offset() });
    };
    if pieces.offset().is_none() && pieces.time_zone_annotation().is_some() {
        return Err(unknown());
    }
    let local = pieces.date().to_datetime(pieces.time().unwrap_or_else(Time::midnight));
    Date::at(name, local, pieces.to_numeric_offset().unwrap_or(Offset::UTC))
}

/// Reads a date in a form that the script gives.
#[allow(clippy::needless_pass_by_value, reason = "the form that Rhai calls")]
fn parse(context: NativeCallContext, text: &str, form: &str) -> Result<Date> {
    let name = context.fn_name();
    let refused = |cause: jiff::Error| {
        let (text, form) = (quoted(text), quoted(form));
        error::runtime(format!("`{name}` can't read {text} as {form}: {cause}"))
    };
    let parsed = strtime::parse(form, text).map_err(refused)?;
    if let Ok(instant) = parsed.to_timestamp() {
        return Ok(Date { instant, offset: parsed.offset().unwrap_or(Offset::UTC) });
    }
    let local = match parsed.to_datetime() {
        Ok(local) => local,
        Err(_) => parsed.to_date().map_err(refused)?.to_datetime(Time::midnight()),
    };
    Date::at(name, local, parsed.offset().unwrap_or(Offset::UTC))
}

/// What dates are moved by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Nanoseconds(i128),
    Months(i64),
}

impl Step {
    fn of(name: &str, unit: &str) -> Result<Self> {
        let seconds = match unit.strip_suffix('s').unwrap_or(unit) {
            "millisecond" => return Ok(Self::Nanoseconds(NANOSECONDS / 1000)),
            "second" | "sec" => 1,
            "minute" | "min" => 60,
            "hour" => 3600,
            "day" => 86_400,
            "week" => 7 * 86_400,
            "month" => return Ok(Self::Months(1)),
            "year" => return Ok(Self::Months(12)),
            _ => {
                return Err(error::runtime(format!(
                    "`{name}` knows milliseconds, seconds, minutes, hours, days, weeks, months and years, and no {}",
                    quoted(unit)
                )));
            }
        };
        Ok(Self::Nanoseconds(seconds * NANOSECONDS))
    }
}

impl Date {
    fn at(name: &str, local: DateTime, offset: Offset) -> Result<Self> {
        let instant = offset.to_timestamp(local).map_err(|_| out_of_range(name))?;
        Ok(Self { instant, offset })
    }

    /// As a clock shows it in its offset.
    fn local(self) -> DateTime {
        self.offset.to_datetime(self.instant)
    }

    /// Whole seconds since 1970, rounded down.
    fn seconds(self) -> i64 {
        i64::try_from(self.instant.as_nanosecond().div_euclid(NANOSECONDS)).unwrap_or_default()
    }

    fn show(self, name: &str, form: &str) -> Result<ImmutableString> {
        if !form.contains('%') {
            return Err(error::runtime(format!(
                "`{name}` takes a form such as \"%Y-%m-%d %H:%M\"; it was given {}",
                quoted(form)
            )));
        }
        let zoned = self.instant.to_zoned(self.offset.to_time_zone());
        strtime::format(form, &zoned)
            .map(ImmutableString::from)
            .map_err(|cause| error::runtime(format!("`{name}` can't use the form {}: {cause}", quoted(form))))
    }

    fn moved(self, name: &str, count: &Dynamic, unit: &str, sign: i64) -> Result<Self> {
        let Some(count) = Number::of(count) else {
            let kind = kind(count);
            return Err(error::runtime(format!("`{name}` takes a number of {unit}; it was given {kind}")));
        };
        match (Step::of(name, unit)?, count) {
            (Step::Nanoseconds(step), Number::Int(count)) => {
                self.moved_by(name, i128::from(count) * step * i128::from(sign))
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a cast that saturates")]
            (Step::Nanoseconds(step), Number::Float(count)) => {
                self.moved_by(name, (count * step as f64 * sign as f64) as i128)
            }
            (Step::Months(step), Number::Int(count)) => {
                let months = count.checked_mul(step).and_then(|count| count.checked_mul(sign));
                let span = months.and_then(|months| Span::new().try_months(months).ok());
                let local = span.and_then(|span| self.local().checked_add(span).ok());
                Self::at(name, local.ok_or_else(|| out_of_range(name))?, self.offset)
            }
            (Step::Months(_), Number::Float(_)) => {
                Err(error::runtime(format!("`{name}` takes a whole number of {unit}; it was given a float")))
            }
        }
    }

    fn moved_by(self, name: &str, nanoseconds: i128) -> Result<Self> {
        let instant = self.instant.as_nanosecond().checked_add(nanoseconds);
        let instant = instant.and_then(|instant| Timestamp::from_nanosecond(instant).ok());
        Ok(Self { instant: instant.ok_or_else(|| out_of_range(name))?, ..self })
    }

    /// How many of a unit there are from this date to another; months and years are counted whole.
    #[allow(clippy::cast_precision_loss, reason = "as near as a float comes")]
    fn until(self, name: &str, other: Self, unit: &str) -> Result<f64> {
        match Step::of(name, unit)? {
            Step::Nanoseconds(step) => {
                Ok((other.instant.as_nanosecond() - self.instant.as_nanosecond()) as f64 / step as f64)
            }
            Step::Months(step) => {
                let other = self.offset.to_datetime(other.instant);
                let span = self.local().until((Unit::Month, other)).map_err(|_| out_of_range(name))?;
                Ok((i64::from(span.get_months()) / step) as f64)
            }
        }
    }

    fn start_of(self, name: &str, unit: &str) -> Result<Self> {
        let local = self.local();
        let day = local.date();
        let start = match unit.strip_suffix('s').unwrap_or(unit) {
            "hour" => day.to_datetime(Time::midnight().with().hour(local.hour()).build().unwrap_or(Time::midnight())),
            "day" => day.to_datetime(Time::midnight()),
            "week" => {
                let back = Span::new().try_days(-i64::from(day.weekday().to_monday_zero_offset()));
                let monday = back.and_then(|back| day.checked_add(back)).map_err(|_| out_of_range(name))?;
                monday.to_datetime(Time::midnight())
            }
            "month" => day.first_of_month().to_datetime(Time::midnight()),
            "year" => day.first_of_year().to_datetime(Time::midnight()),
            _ => {
                let unit = quoted(unit);
                return Err(error::runtime(format!(
                    "`{name}` knows \"hour\", \"day\", \"week\", \"month\" and \"year\", and no {unit}"
                )));
            }
        };
        Self::at(name, start, self.offset)
    }
}
