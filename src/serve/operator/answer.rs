//! What a route takes and gives as a body: its media type and its schema, made of the Rust type.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

const JSON: &[&str] = &["application/json"];

/// The body that a route takes.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    pub media_type: &'static str,
    pub schema: SchemaOf,
    /// In JSON.
    pub example: &'static str,
    pub is_required: bool,
}

impl Content {
    pub const fn json<T: JsonSchema>(example: &'static str) -> Content {
        Content { media_type: JSON[0], schema: schema_of::<T>, example, is_required: true }
    }

    pub const fn patch<T: JsonSchema>(example: &'static str) -> Content {
        let media_type = "application/json-patch+json";
        Content { media_type, schema: schema_of::<T>, example, is_required: false }
    }
}

/// One kind of answer of a route.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub status: u16,
    pub media_types: &'static [&'static str],
    /// `None`: any bytes.
    pub schema: Option<SchemaOf>,
}

impl Answer {
    pub const fn json<T: JsonSchema>(status: u16) -> Answer {
        Answer { status, media_types: JSON, schema: Some(schema_of::<T>) }
    }

    pub const fn files(media_types: &'static [&'static str]) -> Answer {
        Answer { status: 200, media_types, schema: None }
    }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// One or the other, by what was asked for.
pub struct Either<A, B>(PhantomData<(A, B)>);

impl<A: JsonSchema, B: JsonSchema> JsonSchema for Either<A, B> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}Or{}", A::schema_name(), B::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [generator.subschema_for::<A>(), generator.subschema_for::<B>()]})
    }
}
