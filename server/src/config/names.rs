//! The names of all settings, as their types have them: what the file may say is
//! asked of `Settings` itself, so that no list of them can be out of date.

use serde::Deserialize as _;
use serde::de::value::{BorrowedStrDeserializer, Error, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::Settings;

/// What is written as the value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    List,
    /// A number, a truth, or what is written as either.
    Literal,
}

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// From the top of the file: `snapshot.interval_seconds`.
    pub(super) path: String,
    pub(super) kind: Kind,
}

impl Name {
    /// The variable that sets it.
    pub(super) fn variable(&self) -> String {
        let name = self.path.replace('.', "_").to_ascii_uppercase();
        format!("LARDER_{name}")
    }
}

/// All settings, tables behind what is above them.
pub(super) fn names() -> Vec<Name> {
    let mut names = Vec::new();
    let walk = Walk {
        path: String::new(),
        names: &mut names,
    };
    Settings::deserialize(walk).expect("an example of every type is a value of it");
    // TOML wants it so.
    names.sort_by_key(|name: &Name| name.path.matches('.').count());
    names
}

/// A deserializer that has a value for whatever is asked, and notes what was.
struct Walk<'a> {
    path: String,
    names: &'a mut Vec<Name>,
}

impl Walk<'_> {
    fn note(&mut self, kind: Kind) {
        self.names.push(Name {
            path: std::mem::take(&mut self.path),
            kind,
        });
    }
}

/// The fields of a table.
struct Fields<'a> {
    path: String,
    left: std::slice::Iter<'static, &'static str>,
    names: &'a mut Vec<Name>,
    field: &'static str,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(field) = self.left.next() else {
            return Ok(None);
        };
        self.field = field;
        seed.deserialize(BorrowedStrDeserializer::new(field))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let path = match self.path.as_str() {
            "" => self.field.to_owned(),
            above => format!("{above}.{}", self.field),
        };
        seed.deserialize(Walk {
            path,
            names: self.names,
        })
    }
}

macro_rules! literals {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
            self.note(Kind::Literal);
            visitor.visit_u64(1)
        })*
    };
}

macro_rules! texts {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
            self.note(Kind::Text);
            visitor.visit_borrowed_str("")
        })*
    };
}

impl<'de> Deserializer<'de> for Walk<'_> {
    type Error = Error;

    literals! {
        deserialize_any deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    texts! { deserialize_str deserialize_string deserialize_char deserialize_identifier }

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        self.note(Kind::Literal);
        visitor.visit_bool(false)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        self.note(Kind::List);
        visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<u64>()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note(Kind::Text);
        let first = variants.first().copied().unwrap_or_default();
        visitor.visit_enum(first.into_deserializer())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields {
            path: self.path,
            left: fields.iter(),
            names: self.names,
            field: "",
        })
    }

    forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct tuple tuple_struct map ignored_any
    }
}
