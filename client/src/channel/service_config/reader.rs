//! JSON read with a path, so that a wrong value is refused by its name. Of protobuf's JSON mapping
//! it understands what service configs are made of.

use std::fmt::Display;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::Error;

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Field<'a> {
    path: String,
    value: &'a Value,
}

/// The longest duration of protobuf's `Duration`, seconds.
const MAX_SECONDS: u64 = 315_576_000_000;

impl<'a> Field<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            path: String::new(),
            value,
        }
    }

    pub(super) fn path(&self) -> &str {
        match self.path.as_str() {
            "" => "the document",
            path => path,
        }
    }

    pub(super) fn wrong(&self, what: impl Display) -> Error {
        Error::configuration(format!("service config: {}: {what}", self.path()))
    }

    /// A field of this object; `null` is as good as none.
    pub(super) fn get(&self, name: &str) -> Result<Option<Self>, Error> {
        let object = self.object()?;
        Ok(object
            .get(name)
            .filter(|value| !value.is_null())
            .map(|value| self.below(name, value)))
    }

    pub(super) fn require(&self, name: &str) -> Result<Self, Error> {
        self.get(name)?
            .ok_or_else(|| self.wrong(format_args!("needs {name}")))
    }

    pub(super) fn entries(&self) -> Result<Vec<(&'a str, Self)>, Error> {
        let entries = self.object()?.iter();
        Ok(entries
            .map(|(name, value)| (name.as_str(), self.below(name, value)))
            .collect())
    }

    pub(super) fn list(&self) -> Result<Vec<Self>, Error> {
        let Value::Array(items) = self.value else {
            return Err(self.wrong("must be a list"));
        };
        let at = |(index, value)| Self {
            path: format!("{}[{index}]", self.path),
            value,
        };
        Ok(items.iter().enumerate().map(at).collect())
    }

    pub(super) fn text(&self) -> Result<&'a str, Error> {
        self.value
            .as_str()
            .ok_or_else(|| self.wrong("must be a string"))
    }

    pub(super) fn boolean(&self) -> Result<bool, Error> {
        self.value
            .as_bool()
            .ok_or_else(|| self.wrong("must be true or false"))
    }

    /// A number, or a string that is one.
    pub(super) fn number(&self) -> Result<f64, Error> {
        let number = match self.value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.wrong("must be a number"))
    }

    pub(super) fn whole(&self) -> Result<u32, Error> {
        let number = match self.value {
            // 2.0 is whole in JSON.
            Value::Number(number) => number.as_u64().or_else(|| {
                let number = number.as_f64().filter(|it| it.fract() == 0.0)?;
                format!("{number:.0}").parse().ok()
            }),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| self.wrong("must be a whole number from 0 to 4294967295"))
    }

    pub(super) fn within(&self, least: u32, most: u32) -> Result<u32, Error> {
        let number = self.whole()?;
        if (least..=most).contains(&number) {
            return Ok(number);
        }
        Err(self.wrong(format_args!("is {number}; must be from {least} to {most}")))
    }

    /// A duration as protobuf's JSON has it: seconds with up to nine decimals, and an `s`.
    pub(super) fn duration(&self) -> Result<Duration, Error> {
        let text = self.text()?;
        parse_duration(text).ok_or_else(|| {
            self.wrong(format_args!(
                "{text:?} is no duration; must be seconds such as \"0.5s\""
            ))
        })
    }

    pub(super) fn positive_duration(&self) -> Result<Duration, Error> {
        let duration = self.duration()?;
        if duration.is_zero() {
            return Err(self.wrong("must be more than nothing"));
        }
        Ok(duration)
    }

    fn object(&self) -> Result<&'a Map<String, Value>, Error> {
        self.value
            .as_object()
            .ok_or_else(|| self.wrong("must be an object"))
    }

    fn below(&self, name: &str, value: &'a Value) -> Self {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        Self { path, value }
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(decimals) || decimals.len() > 9 {
        return None;
    }
    if number.ends_with('.') {
        return None;
    }
    let seconds: u64 = whole.parse().ok().filter(|it| *it <= MAX_SECONDS)?;
    let nanos: u32 = format!("{decimals:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanos))
}
