//! A report as one file: template, style, chart program, data and body put together, nothing loaded from
//! elsewhere. A Content-Security-Policy lets only this page's own script and style run.

use anyhow::{Context, Result};

use super::chart::Chart;
use super::html::Html;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("charts.js");

/// A report.
pub(crate) struct Page {
    /// Shown by the browser's tab.
    pub(crate) title: String,
    /// What `<main>` holds, with a [`Chart::figure`] for each chart.
    pub(crate) body: Html,
    pub(crate) charts: Vec<Chart>,
}

impl Page {
    /// The file.
    pub(crate) fn render(&self) -> Result<String> {
        let mut title = Html::default();
        title.text(&self.title);
        let charts = inside_script(&serde_json::to_string(&self.charts)?);
        // Nobody who wrote a string of this page could know the hash of the whole.
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.body.as_str().as_bytes()).update(charts.as_bytes());
        let nonce = hasher.finalize().to_hex();
        fill(
            TEMPLATE,
            &[
                ("nonce", nonce.as_str()),
                ("title", title.as_str()),
                ("style", STYLE),
                ("body", self.body.as_str()),
                ("charts", &charts),
                ("script", SCRIPT),
            ],
        )
    }
}

/// JSON with nothing in it that could end or open an element; it parses to the same values.
fn inside_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Puts values in place of `{{names}}`, in one pass: values are not searched for names.
fn fill(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut page = String::with_capacity(values.iter().map(|(_, v)| v.len()).sum::<usize>() + template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").context("the template of the report is damaged")?;
        let value = values.iter().find(|(n, _)| *n == name);
        page += before;
        page += value.with_context(|| format!("the report's template asks for {name}"))?.1;
        rest = after;
    }
    Ok(page + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_searched_for_names() {
        assert_eq!(fill("a{{x}}b{{y}}c", &[("x", "{{y}}"), ("y", "2")]).unwrap(), "a{{y}}b2c");
        assert!(fill("{{z}}", &[]).unwrap_err().to_string().contains('z'));
        assert!(fill("{{z", &[]).is_err());
    }

    #[test]
    fn json_cannot_leave_its_element() {
        let hostile = "</script><script>a()</script><!-- & {{body}}";
        let json = inside_script(&serde_json::to_string(hostile).unwrap());
        assert!(!json.contains(['<', '>', '&']));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }

    #[test]
    fn the_files_do_not_end_their_own_elements_or_load_anything() {
        assert!(!SCRIPT.contains("</") && !SCRIPT.contains("<!--") && !STYLE.contains("</"));
        for file in [STYLE, SCRIPT, TEMPLATE] {
            let file = file.replace("http://www.w3.org/2000/svg", "");
            for loads in ["http:", "https:", "//cdn", "@import", "url(", "fetch(", "innerHTML", "eval("] {
                assert!(!file.contains(loads), "{loads}");
            }
        }
    }
}
