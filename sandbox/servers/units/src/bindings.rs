//! The types of `wit/units.wit`.

#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::pedantic, reason = "of the generated bindings")]

wit_bindgen::generate!({ world: "units", pub_export_macro: true });
