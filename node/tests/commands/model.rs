//! `gauntlet eval|generate|export` on models that exist.

use crate::*;

#[test]
fn losses_are_those_of_the_candle_model() {
    let place = Place::new();
    let (model, data) = (place.model("model"), place.arg("data"));
    json(&["data", "prepare", "--data", &place.texts(), "--validation", "c.txt", "--out", &data]);
    let args = ["eval", "--model", &model, "--data", &data, "--seq", "32"];
    let all = json(&args);
    assert_eq!((&all["split"], &all["tokens"]), (&"validation".into(), &(10 * TEXT.len() / 32 * 32).into()));
    let some = json(&[&args[..], &["--sequences", "3", "--batch", "2", "--threads", "1"]].concat());
    assert_eq!(some["tokens"], 96);
    assert_eq!(some, json(&[&args[..], &["--sequences", "3", "--batch", "2", "--threads", "1"]].concat()));

    let text = TEXT.repeat(10);
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    let mut want = 0.0;
    for i in 0..3 {
        want += candle_loss(&place.path("model"), &ids[32 * i..32 * i + 33]) / 3.0;
    }
    let close = |name: &str, want: f64| {
        let got = some[name].as_f64().unwrap();
        assert!((got - want).abs() <= 1e-5 * want, "{name}: {got} against {want}");
    };
    close("loss", want);
    close("perplexity", want.exp());
    // One byte a token: the end of text, which has none, is not among the tokens measured.
    assert_eq!(some["bytes"], 96);
    close("bits_per_byte", want / std::f64::consts::LN_2);

    // Raw text gives the tokens of prepared text; the embedded corpus needs no file.
    let raw = place.write("raw.txt", &text);
    let raw = json(&["eval", "--model", &model, "--data", &raw, "--seq", "32"]);
    assert_eq!((&raw["loss"], &raw["split"]), (&all["loss"], &"train".into()));
    let embedded = json(&["eval", "--model", &model, "--sequences", "1"]);
    assert_eq!(embedded["seq"], 64);
    assert_eq!(embedded["split"], "validation");
}

fn candle_loss(folder: &std::path::Path, ids: &[u32]) -> f64 {
    let config = LlamaConfig::read(&folder.join("config.json")).unwrap();
    let layout = Layout::new(&config);
    let mut theta = vec![0.0; layout.total()];
    weights::read(folder, &layout, &mut theta).unwrap();
    let model = gauntlet_model::llama::Llama::from_theta(&config, &theta).unwrap();
    let n = ids.len() - 1;
    let input = candle_core::Tensor::from_slice(&ids[..n], (1, n), &candle_core::Device::Cpu).unwrap();
    f64::from(model.loss(&input, &ids[1..]).unwrap().to_scalar::<f32>().unwrap())
}

#[test]
fn questions_have_accuracies_and_errors() {
    let place = Place::new();
    let model = place.model("model");
    let line = |i: usize| {
        let words = ["dog", "fox", "sleeping cat", "€"];
        let (a, b) = (words[i % 4], words[(i + 1 + i / 4) % 4]);
        format!("{{\"goal\": \"catch {i}\", \"sol1\": \"{a}\", \"sol2\": \"a {b}\", \"label\": {}}}\n", i % 2)
    };
    let file = place.write("piqa.jsonl", (0..12).map(line).collect::<String>());
    let result = json(&["eval", "--model", &model, "--task", "piqa", "--file", &file, "--batch", "5"]);
    assert_eq!((&result["questions"], &result["choices"]), (&12.into(), &24.into()));
    for name in ["acc", "acc_norm"] {
        let p = result[name].as_f64().unwrap();
        assert!((p * 12.0 - (p * 12.0).round()).abs() < 1e-12);
        let error = result[format!("{name}_stderr")].as_f64().unwrap();
        assert!((error - (p * (1.0 - p) / 11.0).sqrt()).abs() < 1e-12);
    }
    let alone = json(&["eval", "--model", &model, "--task", "piqa", "--file", &file, "--batch", "1"]);
    assert_eq!((&alone["acc"], &alone["acc_norm"]), (&result["acc"], &result["acc_norm"]));
}

#[test]
fn text_goes_on_and_repeats_by_seed() {
    let place = Place::new();
    let model = place.model("model");
    let base = ["generate", "--model", &model, "--prompt", "Été", "--max-tokens", "40"];
    let one = json(&[&base[..], &["--json", "--seed", "1", "--temperature", "2"]].concat());
    assert_eq!(one["prompt_ids"].as_array().unwrap().len(), 5);
    assert!(!one["ids"].as_array().unwrap().is_empty());
    let other = json(&[&base[..], &["--json", "--seed", "2", "--temperature", "2"]].concat());
    assert_ne!(one["ids"], other["ids"]);
    let streamed = run(&[&base[..], &["--seed", "1", "--temperature", "2"]].concat());
    let text = String::from_utf8(streamed.stdout).unwrap();
    assert_eq!(text, format!("Été{}\n", one["text"].as_str().unwrap()));
    let empty = json(&["generate", "--model", &model, "--max-tokens", "99", "--temperature", "0", "--json"]);
    assert_eq!(empty["prompt_ids"], serde_json::json!([256]));
    assert_eq!(empty["stop"], "context");
    assert_eq!(empty["ids"].as_array().unwrap().len(), 64);
}

#[test]
fn an_export_is_the_same_model_to_every_command() {
    let place = Place::new();
    let (model, out) = (place.model("model"), place.arg("out"));
    std::fs::create_dir(&out).unwrap();
    let made = json(&["export", "--model", &model, "--out", &out, "--max-shard-bytes", "20000"]);
    let names = names(&place.path("out"));
    for file in ["config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json"] {
        assert!(names.contains(&file.to_owned()), "{names:?}");
    }
    let generation: Value =
        serde_json::from_slice(&std::fs::read(place.path("out/generation_config.json")).unwrap()).unwrap();
    assert_eq!(generation["suppress_tokens"].as_array().unwrap().len(), 320 - 257);
    let eval = |model: &str| json(&["eval", "--model", model, "--sequences", "2"]);
    let (ours, theirs) = (eval(&model), eval(&out));
    assert_eq!((&ours["loss"], &ours["corpus_hash"]), (&theirs["loss"], &theirs["corpus_hash"]));
    assert_eq!((&ours["theta_hash"], &ours["theta_hash"]), (&theirs["theta_hash"], &made["theta_hash"]));
}

/// Half-precision files from elsewhere are read as the numbers they hold.
#[test]
fn half_precision_weights_are_read() {
    let place = Place::new();
    let model = place.model("model");
    let ours = json(&["eval", "--model", &model, "--sequences", "2"]);
    for dtype in ["BF16", "F16"] {
        let folder = place.path(dtype);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(place.path("model/config.json"), folder.join("config.json")).unwrap();
        let whole = std::fs::read(place.path("model/model.safetensors")).unwrap();
        std::fs::write(folder.join("model.safetensors"), halved(&whole, dtype)).unwrap();
        let half = json(&["eval", "--model", &place.arg(dtype), "--sequences", "2"]);
        let (a, b) = (ours["loss"].as_f64().unwrap(), half["loss"].as_f64().unwrap());
        assert!(a != b && (a - b).abs() < 0.02 * a, "{dtype}: {a} and {b}");
    }
}

/// The same tensors in two bytes a value, cut rather than rounded.
fn halved(file: &[u8], dtype: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    for tensor in header.as_object_mut().unwrap().values_mut().filter(|t| t.get("dtype").is_some()) {
        tensor["dtype"] = dtype.into();
        for offset in tensor["data_offsets"].as_array_mut().unwrap() {
            *offset = (offset.as_u64().unwrap() / 2).into();
        }
    }
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    for value in file[8 + length..].as_chunks::<4>().0 {
        let bits = u32::from_le_bytes(*value);
        let exponent = (bits >> 23) & 0xff;
        let half = match dtype {
            "BF16" => bits >> 16,
            // Values far below 1e-4 become 0: no subnormal numbers here.
            _ if exponent < 113 => (bits >> 31) << 15,
            _ => (bits >> 31) << 15 | (exponent - 112) << 10 | (bits >> 13) & 0x3ff,
        };
        bytes.extend((half as u16).to_le_bytes());
    }
    bytes
}
