//! HTML that cannot be written without escaping: markup is what the program itself holds, everything
//! else goes in as text.

/// Longest text a report shows of a string from outside, in characters.
const LONGEST: usize = 400;

/// A piece of a page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Adds markup; only literals have this lifetime.
    pub(crate) fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text, escaped for elements and quoted attributes, cut where it is too long to read.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.whole_text(text.get(..cut(text)).unwrap_or_default());
        if cut(text) < text.len() {
            self.0.push('…');
        }
        self
    }

    /// Adds text of any length, such as a settings file.
    pub(crate) fn whole_text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Control characters and those that turn the direction of writing say nothing here.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => self.0.push('\u{fffd}'),
                c if c.is_control() && c != '\n' => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    /// Adds a finished piece.
    pub(crate) fn piece(&mut self, piece: &Self) -> &mut Self {
        self.0.push_str(&piece.0);
        self
    }

    /// The markup.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Html {
    fn from(text: String) -> Self {
        let mut html = Self::default();
        html.text(&text);
        html
    }
}

/// Cells of plain text.
pub(crate) fn texts(cells: Vec<String>) -> Vec<Html> {
    cells.into_iter().map(Html::from).collect()
}

/// Where a text that is too long ends, in bytes.
fn cut(text: &str) -> usize {
    text.char_indices().nth(LONGEST).map_or(text.len(), |(at, _)| at)
}

/// How a table sets its cells.
#[derive(Clone, Copy, Default)]
pub(crate) enum Columns {
    #[default]
    /// Right-aligned figures under a row of headings.
    Numbers,
    /// A name and its value; headings are not shown.
    Pairs,
}

/// A table whose first column names the row.
#[derive(Default)]
pub(crate) struct Table {
    /// Read aloud, not shown.
    pub(crate) caption: &'static str,
    pub(crate) columns: Columns,
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<Html>>,
    /// Columns of words among figures: set left, and broken into lines.
    pub(crate) words: &'static [usize],
    /// A row to stand out.
    pub(crate) best: Option<usize>,
}

impl Table {
    /// Its markup, in a box that scrolls sideways.
    pub(crate) fn html(&self) -> Html {
        let mut html = Html::default();
        html.markup("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"").text(self.caption);
        html.markup("\"><table class=\"").markup(match self.columns {
            Columns::Numbers => "numbers",
            Columns::Pairs => "pairs",
        });
        html.markup("\"><caption>").text(self.caption).markup("</caption>\n");
        if matches!(self.columns, Columns::Numbers) {
            html.markup("<thead><tr>");
            for (j, name) in self.head.iter().enumerate() {
                html.markup(if self.words.contains(&j) {
                    "<th scope=\"col\" class=\"words\">"
                } else {
                    "<th scope=\"col\">"
                });
                html.text(name).markup("</th>");
            }
            html.markup("</tr></thead>\n");
        }
        html.markup("<tbody>\n");
        for (i, row) in self.rows.iter().enumerate() {
            html.markup(if self.best == Some(i) { "<tr class=\"best\">" } else { "<tr>" });
            for (j, cell) in row.iter().enumerate() {
                let (open, close) = match j {
                    0 => ("<th scope=\"row\">", "</th>"),
                    _ if self.words.contains(&j) => ("<td class=\"words\">", "</td>"),
                    _ => ("<td>", "</td>"),
                };
                html.markup(open).piece(cell).markup(close);
            }
            html.markup("</tr>\n");
        }
        html.markup("</tbody></table></div>\n");
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_gets_cut() {
        let mut html = Html::default();
        html.text("</script><img src=x onerror='a()'>&\"\u{202e}\u{7}");
        assert_eq!(
            html.as_str(),
            "&lt;/script&gt;&lt;img src=x onerror=&#39;a()&#39;&gt;&amp;&quot;\u{fffd}\u{fffd}"
        );
        let mut html = Html::default();
        html.text(&"ä".repeat(10_000));
        assert_eq!(html.as_str().chars().count(), LONGEST + 1);
        let mut html = Html::default();
        html.whole_text(&"<".repeat(10_000));
        assert_eq!(html.as_str(), "&lt;".repeat(10_000));
    }
}
