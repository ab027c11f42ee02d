//! What the reports of all commands are made of: charts, escaped HTML, numbers in words, one page.

pub(crate) mod chart;
pub(crate) mod format;
pub(crate) mod html;
pub(crate) mod page;
