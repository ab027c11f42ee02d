//! Multiple-choice tasks: how a line of a benchmark becomes a context and its choices.
//!
//! The rules are those of lm-evaluation-harness (`lm_eval/tasks/{hellaswag,piqa,arc}`), zero-shot; scores
//! compare only if every character is the same.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use super::record::{self, Record, wrong};

/// A format of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    /// `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`.
    Hellaswag,
    /// `goal`, `sol1`, `sol2`, `label`.
    Piqa,
    /// `question`, `choices` with `text` and `label`, `answerKey`.
    ArcEasy,
    /// `context`, `choices`, `answer` (the number of the right choice, from 0).
    Plain,
}

/// A context and ways to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) context: String,
    pub(crate) choices: Vec<String>,
    /// The right choice.
    pub(crate) gold: usize,
}

impl Task {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Task::Hellaswag => "hellaswag",
            Task::Piqa => "piqa",
            Task::ArcEasy => "arc-easy",
            Task::Plain => "plain",
        }
    }

    /// All questions of a file.
    pub(crate) fn read(self, path: &Path) -> Result<Vec<Item>> {
        record::read(path, |line| match self {
            Task::Hellaswag => hellaswag(line),
            Task::Piqa => piqa(line),
            Task::ArcEasy => arc(line),
            Task::Plain => plain(line),
        })
    }
}

fn hellaswag(line: &Record) -> Result<Item, String> {
    let (activity, a, b) = (line.text("activity_label")?, line.text("ctx_a")?, line.text("ctx_b")?);
    let choices: Vec<String> = line.texts("endings")?.iter().map(|ending| clean(ending)).collect();
    let gold = line.index("label", choices.len())?;
    Ok(Item { context: clean(&format!("{activity}: {a} {}", capitalize(b))), choices, gold })
}

fn piqa(line: &Record) -> Result<Item, String> {
    let choices = vec![line.text("sol1")?.to_owned(), line.text("sol2")?.to_owned()];
    let gold = line.index("label", choices.len())?;
    Ok(Item { context: format!("Question: {}\nAnswer:", line.text("goal")?), choices, gold })
}

fn arc(line: &Record) -> Result<Item, String> {
    let context = format!("Question: {}\nAnswer:", line.text("question")?);
    let answers = line.object("choices")?;
    let (choices, labels) = (answers.texts("text")?, answers.texts("label")?);
    if choices.len() != labels.len() {
        return Err(format!("field `choices`: {} texts, {} labels", choices.len(), labels.len()));
    }
    let key = line.text("answerKey")?;
    match labels.iter().position(|label| label == key) {
        Some(gold) => Ok(Item { context, choices, gold }),
        None => Err(wrong("answerKey", &format!("one of the labels {}", labels.join(", ")))),
    }
}

fn plain(line: &Record) -> Result<Item, String> {
    let choices = line.texts("choices")?;
    let gold = line.index("answer", choices.len())?;
    Ok(Item { context: line.text("context")?.to_owned(), choices, gold })
}

/// Removes what WikiHow pages left in HellaSwag: title marks, everything in brackets, double spaces (once).
fn clean(text: &str) -> String {
    without_brackets(&text.trim().replace(" [title]", ". ")).replace("  ", " ")
}

/// Removes every `[…]` that closes on its own line, each to the next `]`.
fn without_brackets(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        kept.push_str(before);
        rest = match after.split_once(']') {
            Some((inside, behind)) if !inside.contains('\n') => behind,
            _ => {
                kept.push('[');
                after
            }
        };
    }
    kept + rest
}

/// The first letter large, all others small, as Python's `str.capitalize` does it (for letters whose title
/// case is their upper case: the task is English).
fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    first.to_uppercase().collect::<String>() + &letters.as_str().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(task: Task, lines: &str) -> Result<Vec<Item>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.jsonl");
        std::fs::write(&path, lines).unwrap();
        task.read(&path)
    }

    fn one(task: Task, line: &str) -> Item {
        read(task, line).unwrap().remove(0)
    }

    /// Expected texts come from the Python functions run on the same lines.
    #[test]
    fn hellaswag_texts() {
        let item = one(
            Task::Hellaswag,
            r#"{"activity_label": "Roof shingle removal", "ctx_a": "A man [header] sits on a roof. [title] He", "ctx_b": "starts PULLING  up", "endings": [" is [substeps] using wrap.", "is ripping  tiles   off. "], "label": "1"}"#,
        );
        assert_eq!(item.context, "Roof shingle removal: A man sits on a roof.. He Starts pulling up");
        assert_eq!(item.choices, ["is using wrap.", "is ripping tiles  off."]);
        assert_eq!(item.gold, 1);
    }

    #[test]
    fn brackets_close_at_the_nearest_and_on_their_line() {
        assert_eq!(without_brackets("a [b [c] d] [e\nf] [g"), "a  d] [e\nf] [g");
        assert_eq!(without_brackets("[a\n[b]]"), "[a\n]");
        assert_eq!(capitalize("éTÉ d'Été"), "Été d'été");
        assert_eq!(capitalize(""), "");
    }

    #[test]
    fn piqa_and_arc_texts() {
        let piqa = one(Task::Piqa, r#"{"goal": "To boil", "sol1": "heat", "sol2": "cool it", "label": 0}"#);
        assert_eq!((piqa.context.as_str(), piqa.gold), ("Question: To boil\nAnswer:", 0));
        for key in ["B", "2"] {
            let labels = if key == "B" { r#"["A", "B"]"# } else { r#"["1", "2"]"# };
            let line = format!(
                r#"{{"question": "Why?", "choices": {{"text": ["so", "not"], "label": {labels}}}, "answerKey": "{key}"}}"#
            );
            let arc = one(Task::ArcEasy, &line);
            assert_eq!((arc.context.as_str(), arc.gold), ("Question: Why?\nAnswer:", 1));
            assert_eq!(arc.choices, ["so", "not"]);
        }
    }

    #[test]
    fn problems_name_file_line_and_field() {
        let good = r#"{"context": "a", "choices": ["b", "c"], "answer": 1}"#;
        let cases = [
            (r#"{"context": "a", "choices": ["b", "c"], "answer": 2}"#, "`answer`"),
            (r#"{"context": "a", "choices": ["b"], "answer": 0}"#, "`choices`"),
            (r#"{"context": "a", "choices": ["b", 3], "answer": 0}"#, "`choices`"),
            (r#"{"context": 1, "choices": ["b", "c"], "answer": 0}"#, "`context`"),
            (r#"{"choices": ["b", "c"], "answer": 0}"#, "`context` is missing"),
            (r#"{"context": "#, "not JSON"),
            ("[]", "not a JSON object"),
        ];
        for (bad, problem) in cases {
            let message = read(Task::Plain, &format!("{good}\n\n{bad}\n")).unwrap_err().to_string();
            assert!(message.contains("items.jsonl, line 3: ") && message.contains(problem), "{message}");
        }
        assert!(read(Task::Plain, "\n").unwrap_err().to_string().contains("no lines"));
        let key =
            r#"{"question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"}"#;
        let message = read(Task::ArcEasy, key).unwrap_err().to_string();
        assert!(message.contains("line 1: field `answerKey` is not one of the labels A, B"), "{message}");
    }
}
