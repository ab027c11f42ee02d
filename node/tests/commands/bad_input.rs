//! Bad input: one line that names it and says what to do, the right exit code, nothing half-written.

use crate::*;

#[test]
fn text_that_cannot_be_prepared() {
    let place = Place::new();
    let out = place.arg("out");
    let prepare = |data: &str, parts: &[&str]| {
        fails(1, &["data", "prepare", "--data", data, "--out", &out], parts);
        assert!(!place.path("out/manifest.json").exists());
    };
    prepare(&place.arg("missing.txt"), &["missing.txt", "no such file"]);
    assert!(!place.path("out").exists(), "nothing is left behind");
    prepare(&place.write("latin.txt", b"caf\xe9 au lait"), &["latin.txt", "byte 3", "convert"]);
    assert!(!place.path("out").exists(), "nothing is left behind");
    fails(1, &["train", "--data", &place.arg("latin.txt"), "--out", &out], &["latin.txt", "convert"]);
    assert!(!place.path("out").exists(), "nothing is left behind");
    prepare(&place.write("empty.txt", ""), &["no text", "give files that hold text"]);
    assert!(!place.path("out").exists(), "nothing is left behind");
    prepare(&place.write("a.jsonl", "{\"text\": \"a\"}\n{\"txt\": 1}\n"), &["a.jsonl, line 2", "--field"]);
    std::fs::remove_dir_all(&out).ok();
    let file = place.write("file", "text");
    let below = format!("{file}/out");
    fails(1, &["data", "prepare", "--out", &below], &[&below, "cannot create"]);
    let texts = place.texts();
    json(&["data", "prepare", "--data", &texts, "--out", &out]);
    let other = ["data", "prepare", "--data", &texts, "--out", &out, "--validation", "a.txt"];
    fails(1, &other, &["another validation", "choose an empty folder"]);
    fails(1, &["data", "merge", &out, "--out", &place.arg("m")], &["part 0 of 1 is missing"]);
    fails(1, &["data", "inspect", &place.arg("nothing")], &["nothing", "no such"]);
    place.write("out/manifest.json", "{");
    fails(1, &["data", "verify", &out], &["manifest.json", "prepare the data again"]);
    fails(1, &["eval", "--model", &place.model("m1"), "--data", &out], &["manifest.json"]);
}

#[test]
fn wrong_usage_ends_with_2() {
    let place = Place::new();
    let (text, out, model) = (place.texts(), place.arg("out"), place.model("model"));
    let prepare = ["data", "prepare", "--data", &text, "--out", &out];
    let with = |more: &[&'static str]| -> Vec<String> {
        prepare.iter().map(|a| a.to_string()).chain(more.iter().map(|a| a.to_string())).collect()
    };
    for (more, part) in [
        (&["--validation", "z*.txt"][..], "z*.txt"),
        (&["--validation-fraction", "1.5"], "--validation-fraction 1.5"),
        (&["--validation", "*["], "--validation *["),
        (&["--part", "2/2"], "2/2"),
        (&["--vocab-size", "100"], "257"),
        (&["--vocab-size", "300", "--tokenizer", "bytes"], "--tokenizer"),
        (&["--max-tokens-per-shard", "0"], "--max-tokens-per-shard"),
        (&["--threads", "100000000"], "--threads 100000000"),
        (&["--fiels", "text"], "--fiels"),
    ] {
        let args = with(more);
        fails(2, &args.iter().map(String::as_str).collect::<Vec<_>>(), &[part]);
        assert!(!place.path("out/manifest.json").exists());
    }
    for (args, part) in [
        (&["eval"][..], "required"),
        (&["eval", "--model", &model, "--seq", "65"], "up to 64"),
        (&["eval", "--model", &model, "--seq", "0"], "--seq"),
        (&["eval", "--model", &model, "--batch", "0"], "--batch"),
        (&["eval", "--model", &model, "--split", "test"], "validation"),
        (&["eval", "--model", &model, "--task", "piqa"], "required"),
        (&["eval", "--model", &model, "--task", "quiz", "--file", "x"], "quiz"),
        (&["generate", "--model", &model, "--temperature", "-1"], "--temperature"),
        (&["generate", "--model", &model, "--temperature=-1"], "--temperature"),
        (&["generate", "--model", &model, "--top-p", "0"], "--top-p"),
        (&["generate", "--model", &model, "--max-tokens", "0"], "--max-tokens"),
        (&["data", "prepare", "--out", &out, "--data", "hf:bad"], "hf:bad"),
        (&["eval", "--model", &model, "--batch", "100000000"], "100000000"),
        (&["train", "--out", &out, "--batch", "100000000"], "100000000"),
        (&["train", "--out", &out, "--clip", "-1"], "--clip"),
        (&["train", "--out", &out, "--seed", "-1"], "--seed"),
        (&["train", "--out", &out, "--seq", "100000", "--data", &text], "--seq 100000"),
        (&["train", "--out", &out, "--data", &text, "--validation-fraction", "2"], "--validation-fraction 2"),
        (&["train", "--out", &out, "--optimizer", "sgd"], "sgd"),
        (&["train", "--out", &out, "--optimizer", "demo", "--bits", "5"], "bits"),
        (&["train", "--out", &out, "--optimizer", "demo", "--bits", "3", "--levels", "9,3"], "ascending"),
        (
            &["train", "--out", &out, "--optimizer", "demo", "--levels", "3,9"],
            "`bits` = 1 holds one; more need more bits",
        ),
        (&["train", "--out", &out, "--optimizer", "demo", "--workers", "0"], "--workers"),
        (&["bench", "demo", "--bits", "5"], "bits"),
        (&["bench", "demo", "--params", "many"], "--params"),
        (&["bench", "demo", "--peers", "513"], "--peers: 1 to 512"),
        (&["export", "--model", &model, "--out", "/"], "--out"),
        (&["export", "--model", &model, "--out", &out, "--max-shard-bytes", "0"], "--max-shard-bytes"),
        (&["export", "--model", &model, "--out", &out, "--format", "gguf"], "gguf"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
    assert!(!place.path("out").exists(), "nothing is left behind");
}

#[test]
fn models_and_data_that_do_not_belong_together() {
    let place = Place::new();
    let (text, data, model) = (place.texts(), place.arg("data"), place.model("model"));
    json(&["data", "prepare", "--data", &text, "--vocab-size", "300", "--out", &data]);
    let tokenizer = place.arg("data/tokenizer.json");
    fails(1, &["eval", "--model", &model, "--data", &data], &["prepared with tokenizer", "bytes"]);
    let eval = ["eval", "--model", &model, "--data", &data, "--tokenizer", &tokenizer];
    // The model's end of text, 256, is another token there, and its ids are more.
    fails(1, &eval, &["tokenizer.json", "300 ids, the model 257", "do not belong together"]);
    let generate = ["generate", "--model", &model, "--tokenizer", &tokenizer];
    fails(1, &generate, &["300 ids, the model 257"]);
    fails(1, &["export", "--model", &model, "--out", &place.arg("out"), "--tokenizer", &tokenizer], &["300"]);
    assert!(!place.path("out").exists());
    let train = ["train", "--from", &model, "--data", &data, "--out", &place.arg("run"), "--seq", "8"];
    fails(1, &train, &["300 ids, the model 257"]);
    let short = place.write("short.txt", "short");
    let eval = ["eval", "--model", &model, "--data", &short, "--seq", "8"];
    fails(1, &eval, &["short.txt", "sequences of 8 tokens", "shorten the sequence"]);
    // More than any machine has memory for, and than the engine counts.
    fails(
        1,
        &["eval", "--model", &model, "--batch", "100000000", "--seq", "8"],
        &["GB of memory", "lower --batch"],
    );
    let eval = ["eval", "--model", &model, "--data", &text, "--split", "validation"];
    fails(1, &eval, &["no validation split", "--split train"]);
    let long = "x".repeat(65);
    fails(1, &["generate", "--model", &model, "--prompt", &long], &["65 tokens", "reads 64", "shorten"]);
}

/// By default the last file is held out; where it is too short for a sequence, one before it is.
#[test]
fn held_out_text_too_short_for_a_sequence() {
    let place = Place::new();
    let text = place.texts();
    place.write("text/z.txt", "The end.");
    let fit = "--batch 1 --seq 64 --steps 1 --warmup 1 --validation-sequences 1 --threads 1";
    let fit: Vec<&str> = fit.split(' ').collect();
    let (run_folder, simulated) = (place.arg("run"), place.arg("simulated"));
    let train = [&["train", "--data", &text, "--out", &run_folder][..], &fit].concat();
    let simulate = ["simulate", "--data", &text, "--out", &simulated, "--peers", "2", "--validators", "1"];
    let windows = ["--windows", "1", "--sequences", "1", "--seq", "64", "--no-baseline", "--threads", "1"];
    let simulate = [&simulate[..], &windows].concat();
    // Asked for, it is refused before anything is left behind that a second try would meet.
    for command in [&train, &simulate] {
        let asked = [&command[..], &["--validation", "z.txt"]].concat();
        fails(1, &asked, &["validation split (files z.txt)", "9 tokens", "64", "lower --seq"]);
    }
    assert!(!place.path("run").exists() && !place.path("simulated").exists());
    for (command, folder) in [(&train, "run"), (&simulate, "simulated")] {
        let output = run(command);
        assert!(output.status.success(), "{}", stderr(&output));
        let manifest = std::fs::read_to_string(place.path(folder).join("data/manifest.json")).unwrap();
        assert!(manifest.contains("\"validation\": \"files c.txt\""), "{manifest}");
    }
    // Prepared text is checked as well, and so is the training split.
    let prepared = place.arg("prepared");
    json(&["data", "prepare", "--data", &text, "--validation", "z.txt", "--out", &prepared]);
    let none = place.arg("none");
    for (data, parts) in [
        (prepared, ["prepared", "validation split (files z.txt)", "9 tokens"]),
        (place.arg("text/z.txt"), ["z.txt", "training split", "give more text"]),
    ] {
        fails(1, &[&["train", "--data", &data, "--out", &none][..], &fit].concat(), &parts);
    }
    assert!(!place.path("none").exists());
}

#[test]
fn models_that_are_damaged() {
    let place = Place::new();
    fails(1, &["eval", "--model", &place.arg("none")], &["none", "config.json"]);
    let model = place.model("model");
    let file = place.path("model/model.safetensors");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    for command in ["eval", "generate"] {
        fails(1, &[command, "--model", &model], &["model.safetensors", "copy or export it again"]);
    }
    fails(1, &["export", "--model", &model, "--out", &place.arg("out")], &["model.safetensors"]);
    assert!(!place.path("out").exists());
    let config = std::fs::read_to_string(place.path("model/config.json")).unwrap();
    std::fs::write(&file, &whole).unwrap();
    let huge = config.replace("\"num_hidden_layers\":2", "\"num_hidden_layers\":4000");
    assert_ne!(huge, config);
    place.write("model/config.json", &huge);
    fails(1, &["generate", "--model", &model], &["parameters", "copy or export it again"]);
    place.write("model/config.json", "{\"vocab_size\": 320}");
    fails(1, &["generate", "--model", &model], &["config.json", "is missing"]);
    place.write("model/config.json", "{\"vocab_");
    fails(1, &["generate", "--model", &model], &["config.json", "copy or export"]);
    fails(
        1,
        &["generate", "--model", &place.model("m2"), "--tokenizer", "none.json"],
        &["none.json", "check the path"],
    );
    fails(
        1,
        &["train", "--resume", "--out", &place.arg("none")],
        &["nothing to resume", "leave out --resume"],
    );

    let run_folder = place.arg("run");
    let small = ["--batch", "1", "--seq", "8", "--steps", "2", "--warmup", "1", "--validate-every", "0"];
    let train = [
        &["train", "--json", "--threads", "1", "--validation-sequences", "1", "--out", &run_folder][..],
        &small,
    ];
    let output = run(&train.concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let checkpoint = place.path("run/checkpoints/step-0000000002/model.safetensors");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 0x40;
    std::fs::write(&checkpoint, bytes).unwrap();
    fails(1, &["eval", "--model", &run_folder], &["step-0000000002", "damaged", "another checkpoint"]);
}

#[test]
fn questions_that_are_malformed() {
    let place = Place::new();
    let model = place.model("model");
    let eval = |name: &str, content: &[u8], parts: &[&str]| {
        let file = place.write(name, content);
        fails(1, &["eval", "--model", &model, "--task", "plain", "--file", &file], parts);
    };
    let good = "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 0}\n";
    eval("bad.jsonl", format!("{good}{{\"context\": 1}}\n").as_bytes(), &["bad.jsonl, line 2", "`choices`"]);
    eval("latin.jsonl", b"{\"context\": \"\xe9\"}\n", &["latin.jsonl, line 1", "UTF-8"]);
    eval("empty.jsonl", b"", &["empty.jsonl", "no lines"]);
    let long = format!("{good}{}", good.replace("\"c\"", &format!("\"{}\"", "x".repeat(80))));
    eval("long.jsonl", long.as_bytes(), &["long.jsonl, question 2", "81 tokens", "reads 1 to 64"]);
    let missing = place.arg("no.jsonl");
    fails(
        1,
        &["eval", "--model", &model, "--task", "piqa", "--file", &missing],
        &["cannot read", "no.jsonl"],
    );
}

/// Runs a command that may write files of `blocks` × 512 bytes at most, as on a disk that is full.
fn with_little_room(blocks: usize, args: &[&str]) -> Output {
    // Signal 25 (SIGXFSZ) ignored, a write beyond the limit is an error like any other.
    let script = format!("trap '' 25; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_gauntlet")]).args(args).output().unwrap()
}

#[test]
fn full_disks_leave_nothing_half_written() {
    let place = Place::new();
    let (text, model, out) = (place.texts(), place.model("model"), place.arg("out"));
    let prepare = ["data", "prepare", "--data", &text, "--out", &out];
    assert_fails(&with_little_room(4, &prepare), 1, &["out", "cannot write"]);
    assert!(!names(&place.path("out")).iter().any(|n| n.starts_with("manifest") || n.ends_with(".tmp")));
    json(&prepare);

    let export = ["export", "--model", &model, "--out", &place.arg("export")];
    assert_fails(&with_little_room(40, &export), 1, &["free disk space", "safetensors"]);
    assert!(!place.path("export").exists() && !place.path(".export.export").exists());
    json(&export);
    fails(1, &export, &["not empty", "choose a new folder"]);
    let below = place.arg("text/a.txt/export");
    fails(1, &["export", "--model", &model, "--out", &below], &[&below]);
}

#[test]
fn without_a_command_the_commands_are_listed() {
    for (args, commands) in [
        (&[][..], &["simulate", "train", "data", "doctor"][..]),
        (&["data"], &["prepare", "merge"]),
        (&["bench"], &["step", "gemm"]),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        let listed = |command: &&str| text.lines().any(|line| line.trim_start().starts_with(*command));
        assert!(commands.iter().all(listed), "{text}");
    }
}
