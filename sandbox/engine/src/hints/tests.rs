//! The wording of messages and hints.
