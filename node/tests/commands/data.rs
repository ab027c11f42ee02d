//! `gauntlet data prepare|inspect|verify|merge`.

use crate::*;

#[test]
fn parts_merge_to_what_one_process_prepares() {
    let place = Place::new();
    let text = place.texts();
    let whole = place.arg("whole");
    let settings =
        ["--data", &text, "--vocab-size", "300", "--validation", "c.txt", "--max-tokens-per-shard", "500"];
    let prepare =
        |out: &str, more: &[&str]| json(&[&["data", "prepare", "--out", out][..], &settings, more].concat());
    let summary = prepare(&whole, &[]);
    assert_eq!(summary["vocab_size"], 300);
    assert_eq!(summary["splits"]["train"]["documents"], 2);
    assert_eq!(summary["splits"]["train"]["bytes"], 50 * TEXT.len());
    assert_eq!(summary["splits"]["validation"]["bytes"], 10 * TEXT.len());
    assert!(summary["splits"]["train"]["shards"].as_u64().unwrap() > 1);

    for part in ["0/2", "1/2"] {
        prepare(&place.arg(&part.replace('/', "of")), &["--part", part, "--threads", "1"]);
    }
    let merged = place.arg("merged");
    json(&["data", "merge", &place.arg("0of2"), &place.arg("1of2"), "--out", &merged]);
    let inspected = json(&["data", "inspect", &merged, "--json"]);
    assert_eq!(inspected["data_hash"], summary["data_hash"]);
    let report = json(&["data", "verify", &merged]);
    assert_eq!(report["problems"], serde_json::json!([]));
    // The same command again finds everything done.
    assert_eq!(prepare(&whole, &[])["kept_inputs"], 3);
}

#[test]
fn the_embedded_corpus_and_jsonl_fields() {
    let place = Place::new();
    let embedded = json(&["data", "prepare", "--out", &place.arg("own"), "--validation-fraction", "0.2"]);
    assert_eq!(embedded["tokenizer"], "bytes");
    assert!(embedded["splits"]["validation"]["tokens"].as_u64().unwrap() > 1000);
    let lines = place.write("a.jsonl", "{\"body\": \"one\"}\n{\"body\": \"\"}\n{\"body\": \"two\"}\n");
    let summary = json(&["data", "prepare", "--data", &lines, "--field", "body", "--out", &place.arg("b")]);
    assert_eq!(summary["splits"]["train"]["tokens"], 8);
    assert_eq!(summary["empty_documents"], 1);
}

#[test]
fn damaged_shards_are_named_one_a_line() {
    let place = Place::new();
    let (text, out) = (place.texts(), place.arg("out"));
    json(&["data", "prepare", "--data", &text, "--out", &out]);
    let shards: Vec<_> = names(&place.path("out")).into_iter().filter(|n| n.ends_with(".bin")).collect();
    assert_eq!(shards.len(), 3);
    let change = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let path = place.path("out").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    };
    let whole = std::fs::read(place.path("out").join(&shards[0])).unwrap();
    change(&shards[0], &|bytes| bytes.truncate(bytes.len() - 1));
    change(&shards[2], &|bytes| bytes[10] ^= 1);
    let output = run(&["data", "verify", &out]);
    assert_fails(&output, 1, &["2 problems", &out]);
    for shard in [&shards[0], &shards[2]] {
        assert_eq!(stderr(&output).lines().filter(|line| line.contains(shard.as_str())).count(), 1);
    }
    let model = place.model("model");
    let (fit, small) = (["--batch", "1", "--seq", "8"], place.arg("run"));
    let each = |parts: &[&str]| {
        fails(1, &["eval", "--model", &model, "--data", &out], parts);
        fails(1, &[&["train", "--data", &out, "--out", &small][..], &fit].concat(), parts);
        assert!(!place.path("run").exists(), "nothing is left behind");
    };
    each(&[&shards[0], "prepare the data again"]);
    // Whole again but for one bit of another.
    std::fs::write(place.path("out").join(&shards[0]), whole).unwrap();
    each(&[&shards[2], "differs from the manifest", "copy it again or prepare the data again"]);
}

/// Ctrl-C in the middle: finished files stay, and the same command ends with the bytes of an unbroken run.
#[cfg(unix)]
#[test]
fn a_stop_keeps_what_is_finished() {
    let place = Place::new();
    place.texts();
    let vocabulary = place.arg("vocabulary");
    json(&["data", "prepare", "--data", &place.arg("text"), "--vocab-size", "300", "--out", &vocabulary]);
    let tokenizer = place.arg("vocabulary/tokenizer.json");
    for i in 0..24 {
        place.write(&format!("large/{i:02}.txt"), TEXT.repeat(2_000));
    }
    let (large, out) = (place.arg("large"), place.arg("out"));
    let args =
        ["data", "prepare", "--data", &large, "--tokenizer", &tokenizer, "--out", &out, "--threads", "1"];
    let mut child = command(&args).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while !place.path("out/input-000000.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before the first file was done");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let stopped = child.wait_with_output().unwrap();
    assert_fails(&stopped, 1, &["stopped", "same command"]);
    assert!(!place.path("out/manifest.json").exists());
    let resumed = json(&args);
    assert!(resumed["kept_inputs"].as_u64().unwrap() >= 1);
    let unbroken = place.arg("unbroken");
    let again = json(&["data", "prepare", "--data", &large, "--tokenizer", &tokenizer, "--out", &unbroken]);
    assert_eq!(resumed["data_hash"], again["data_hash"]);
}
