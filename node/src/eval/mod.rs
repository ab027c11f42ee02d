//! Measuring a model: loss on text, and multiple-choice tasks.

pub(crate) mod accuracy;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod task;
pub(crate) mod text;
