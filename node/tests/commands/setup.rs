//! `gauntlet init` and the start of `gauntlet simulate`: what they say, and what they leave where they fail.

use crate::{Place, fails, names, run, stderr};

#[test]
fn text_that_is_prepared_on_the_way_is_announced_or_taken_away_again() {
    let place = Place::new();
    let (text, manifest, out) = (place.texts(), place.arg("own/run.toml"), place.arg("out"));
    std::fs::create_dir(place.path("own")).unwrap();
    let output = run(&["init", "--out", &manifest, "--data", &text, "--seq", "32"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let data = place.arg("own/data");
    assert!(stderr(&output).contains(&format!("--data {data}\n")), "{}", stderr(&output));
    assert_eq!(names(&place.path("own")), ["data", "run.toml"]);
    // With the text that was prepared, it announces nothing.
    let output = run(&["init", "--out", &manifest, "--force", "--data", &data, "--seq", "32"]);
    assert!(output.status.success() && stderr(&output).lines().count() == 1, "{}", stderr(&output));
    // Another text: found out after it was prepared.
    let other = place.write("other/a.txt", "Another text, which is another run. ".repeat(99));
    let simulate = ["simulate", "--manifest", &manifest, "--out", &out, "--windows", "1", "--data"];
    fails(1, &[&simulate[..], &[&other]].concat(), &["data.hash: ", "prepare the same data"]);
    assert!(!place.path("out").exists());
    // What can be known before is.
    place.write("kept/note.txt", "a note");
    let kept = place.arg("kept");
    for (flag, value, part) in [
        ("--preset", "huge", "model.preset: "),
        ("--seq", "0", "data.seq: "),
        ("--lr", "-1", "optimizer.schedule.peak: "),
    ] {
        let flag = format!("{flag}={value}");
        fails(2, &["simulate", "--out", &kept, "--data", &text, &flag], &[part]);
        assert_eq!(names(&place.path("kept")), ["note.txt"]);
    }
    // As is a manifest for the embedded text of another build.
    let embedded = place.arg("embedded.toml");
    assert!(run(&["init", "--out", &embedded]).status.success());
    let text = std::fs::read_to_string(place.path("embedded.toml")).unwrap();
    let at = text.find("\nhash = \"").unwrap() + 9;
    let digit = if text[at..].starts_with('0') { "1" } else { "0" };
    std::fs::write(place.path("embedded.toml"), [&text[..at], digit, &text[at + 1..]].concat()).unwrap();
    let parts = ["data.hash: embedded corpus", "use the build that wrote the manifest", "gauntlet init"];
    fails(1, &["simulate", "--out", &out, "--manifest", &embedded], &parts);
    assert!(!place.path("out").exists());
}

#[test]
fn the_help_names_every_kind_of_validator() {
    let help = String::from_utf8(run(&["simulate", "--help"]).stdout).unwrap();
    let unknown = stderr(&run(&["simulate", "--validators", "loud"]));
    let (_, known) = unknown.trim_end().split_once("known are ").unwrap();
    let known: Vec<&str> = known.split(", ").collect();
    assert_eq!(known.len(), 12, "{unknown}");
    let words: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&known.join(", ")), "{help}");
}

#[test]
fn the_help_says_that_a_simulation_takes_no_gpu_by_itself() {
    let help = String::from_utf8(run(&["simulate", "--help"]).stdout).unwrap();
    let words: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("compute: cpu (auto means the same here), or cuda:N [default: cpu]"), "{help}");
    assert!(!words.contains("a GPU where there is one"), "{help}");
}
