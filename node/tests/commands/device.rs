//! `--device` and `gauntlet doctor`: where a command computes, and what it says where it cannot.

use crate::*;

/// A step so small that a test can wait for it.
const STEP: [&str; 14] = [
    "bench", "step", "--preset", "byte-1m", "--layers", "1", "--hidden", "32", "--heads", "2", "--batch",
    "2", "--seq", "16",
];

/// Whether this machine has no driver, by the program itself.
fn no_driver() -> bool {
    json(&["doctor", "--json"])["cuda"]["driver"].is_null()
}

#[test]
fn doctor_names_processor_memory_disk_and_what_is_missing() {
    let found = json(&["doctor", "--json"]);
    assert!(["portable", "avx2", "avx512"].contains(&found["cpu"]["path"].as_str().unwrap()), "{found}");
    assert!(found["cpu"]["threads"].as_u64().unwrap() > 0);
    assert!(found["disk"]["free_bytes"].as_u64().unwrap() > 0);
    if cfg!(target_os = "linux") {
        let memory = &found["memory"];
        assert!(memory["total_bytes"].as_u64().unwrap() >= memory["free_bytes"].as_u64().unwrap());
    }
    let kernels = serde_json::json!(["PTX compute_80", "sm_80", "sm_90"]);
    let mut held = found["cuda"]["kernels"].as_array().unwrap().clone();
    held.sort_by_key(Value::to_string);
    assert_eq!(Value::from(held), kernels, "what the fat binary holds");
    if found["cuda"]["driver"].is_null() {
        let missing = found["missing"].as_array().unwrap();
        let driver = missing.iter().find(|m| m["what"].as_str().unwrap().contains("CUDA driver")).unwrap();
        assert!(driver["remedy"].as_str().unwrap().contains("libcuda"), "{driver}");
        assert_eq!(found["cuda"]["devices"], serde_json::json!([]));
        assert!(found["cuda"].get("nccl").is_some_and(|nccl| nccl.is_null() || nccl.is_string()));
        assert!(!found["cuda"]["looked_in"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_device_that_is_none_is_wrong_usage() {
    let simulate = ["simulate", "--device", "gpu"];
    for args in [&[&STEP[..], &["--device", "cuda:x"]].concat()[..], &simulate] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("--device") && stderr(&output).contains("cuda:N"));
    }
    fails(2, &[&STEP[..], &["--device", "cuda:0,1,0"]].concat(), &["--device", "cuda:0 is named twice"]);
    fails(2, &[&STEP[..], &["--device", "cpu,1"]].concat(), &["--device", "cuda:0,1"]);
    // Two sequences over three devices; evaluation has one.
    let uneven = ["--batch 2", "3 devices", "multiple of 3"];
    fails(2, &[&STEP[..], &["--device", "cuda:0,1,2"]].concat(), &uneven);
    fails(2, &["train", "--batch", "2", "--device", "cuda:0,1,2", "--plan"], &uneven);
    fails(2, &["eval", "--model", "x", "--device", "cuda:0,1"], &["--device", "cuda:N"]);
    for peak in ["0", "nan", "-1"] {
        fails(2, &[&STEP[..], &[&format!("--peak-tflops={peak}")]].concat(), &["--peak-tflops"]);
    }
}

#[test]
fn a_gpu_that_cannot_be_opened_is_named_with_what_is_missing() {
    if !no_driver() {
        return;
    }
    let place = Place::new();
    let (out, model) = (place.arg("out"), place.model("model"));
    let missing = ["--device cuda:0", "no CUDA driver", "libcuda.so.1", "install"];
    let commands: [&[&str]; 7] = [
        &STEP,
        &["bench", "gemm", "--products", "own"],
        &["bench", "attention"],
        &["bench", "demo", "--params", "1e5"],
        &["train", "--steps", "1", "--out", &out],
        &["eval", "--model", &model, "--sequences", "1"],
        &["simulate", "--windows", "1", "--out", &out],
    ];
    for command in commands {
        fails(1, &[command, &["--device", "cuda:0"]].concat(), &missing);
    }
    fails(1, &[&STEP[..], &["--device", "cuda:0,1"]].concat(), &missing);
    fails(1, &["train", "--steps", "1", "--out", &out, "--device", "cuda:0,1"], &missing);
    assert!(!place.path("out").exists(), "nothing is left behind");
}

#[test]
fn products_are_chosen_on_a_gpu_alone() {
    let refused = ["--products", "--device cuda:N"];
    fails(2, &["bench", "gemm", "--device", "cpu", "--products", "library"], &refused);
    fails(2, &[&STEP[..], &["--device", "cpu", "--products", "own"]].concat(), &refused);
}

#[test]
fn auto_takes_the_cpu_where_there_is_no_driver_and_says_so() {
    if !no_driver() {
        return;
    }
    let output = run(&[&STEP[..], &["--runs", "1", "--peak-tflops", "0.5"]].concat());
    assert!(output.status.success());
    assert_eq!(stderr(&output).trim(), "no CUDA driver; computing on the CPU");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["device"], "cpu");
    assert_eq!(result["shape"]["head_dim"], 16);
    let (rate, mfu) = (result["gflops"].as_f64().unwrap(), result["mfu"].as_f64().unwrap());
    assert!((mfu - rate / 500.0).abs() < 1e-9 * mfu, "{mfu} is {rate} of 500 GFLOP/s");
    let quiet = run(&[&STEP[..], &["--runs", "1", "--device", "cpu"]].concat());
    assert!(quiet.status.success() && stderr(&quiet).is_empty(), "{}", stderr(&quiet));
    let result: Value = serde_json::from_slice(&quiet.stdout).unwrap();
    assert!(result["mfu"].is_null() && result["device_bytes"].is_null());
}

#[test]
fn a_simulation_of_the_1b_fits_one_gpu_and_says_so_without_it() {
    let plan = |more: &[&str]| {
        let run =
            ["simulate", "--preset", "1b", "--peers", "2", "--validators", "1", "--windows", "4", "--plan"];
        json(&[&run[..], more].concat())
    };
    let there = plan(&["--device", "cuda"]);
    let (memory, parameters) = (&there["device"]["memory"], there["parameters"].as_u64().unwrap());
    // Of bytes: 320 rows of embedding and head instead of 32,000.
    assert_eq!(parameters, 1_075_120_128);
    assert_eq!(there["device"]["momenta_on_device"], true);
    let total = memory["total_bytes"].as_u64().unwrap();
    // θ, gradients, trial, two momenta; bf16 weights.
    assert!(total > 22 * parameters && total < 80 << 30, "{there}");
    // On the device momenta cost the host nothing; the baseline costs three θ where it runs.
    let host = |plan: &Value| plan["host_bytes"].as_u64().unwrap();
    let here = plan(&["--device", "cpu"]);
    assert!(here["device"].is_null());
    assert_eq!(host(&here) - host(&there), 2 * 4 * parameters);
    let alone = plan(&["--device", "cuda", "--no-baseline"]);
    assert_eq!(host(&there) - host(&alone), 3 * 4 * parameters);
}

/// A tokenizer with reserved ids up to 32,000, as `tests/gpu/bundle.sh` packs one, gives the preset's own shape.
#[test]
fn a_tokenizer_of_32000_ids_makes_the_1b_whole() {
    let place = Place::new();
    place.texts();
    let (text, folder) = (place.arg("text"), place.arg("vocabulary"));
    json(&["data", "prepare", "--data", &text, "--vocab-size", "300", "--out", &folder]);
    let file = std::fs::read(place.path("vocabulary/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&file).unwrap();
    for id in 300..32_000 {
        tokenizer["model"]["vocab"][format!("<|reserved_{id}|>")] = id.into();
    }
    place.write("reserved.json", tokenizer.to_string());
    let run = ["simulate", "--preset", "1b", "--seq", "2048", "--device", "cuda", "--plan", "--tokenizer"];
    let plan = json(&[&run[..], &[&place.arg("reserved.json")]].concat());
    assert_eq!(plan["parameters"], 1_204_881_408);
}

#[test]
fn a_plan_for_a_gpu_needs_none() {
    let plan = |device: &str, more: &[&str]| {
        let shape =
            ["train", "--preset", "1b", "--seq", "2048", "--batch", "8", "--plan", "--recompute", "off"];
        json(&[&shape[..], &["--device", device], more].concat())
    };
    let bytes = |plan: &Value, name: &str| plan["plan"][name].as_u64().unwrap();
    let (gpu, cpu) = (plan("cuda:0", &[]), plan("cpu", &[]));
    let workspace = bytes(&gpu, "workspace_bytes");
    assert!(
        workspace < bytes(&cpu, "workspace_bytes") * 3 / 4,
        "bf16 takes half, and holds a copy of the weights"
    );
    let theta = bytes(&gpu, "weights_bytes");
    assert_eq!((bytes(&gpu, "optimizer_bytes"), &gpu["host_bytes"]), (2 * theta, &(3 * theta).into()));
    assert_eq!(cpu["host_bytes"], 0, "on the CPU the plan is the host's");
    let two = plan("cuda:0,1", &[]);
    assert!(bytes(&two, "workspace_bytes") < workspace, "half of the batch on each");
    assert_eq!((bytes(&two, "weights_bytes"), &two["devices"]), (theta, &2.into()));
    // Momenta lie where the outer step is made.
    let demo = ["--optimizer", "demo", "--workers", "5"];
    let (gpu, cpu) = (plan("cuda:0", &demo), plan("cpu", &demo));
    let on_gpu = bytes(&gpu, "optimizer_bytes");
    assert!((5 * theta..6 * theta).contains(&on_gpu), "momenta, tables and payloads: {on_gpu}");
    // Besides, what was sent and what was read of it: 32 entries of a chunk of 4,096 parameters, 3 and a few bytes an entry.
    let and_sent = |bytes: u64| bytes + 5 * theta / 200..bytes + 5 * theta / 40;
    let host = |plan: &Value| plan["host_bytes"].as_u64().unwrap();
    assert!(and_sent(6 * theta).contains(&host(&gpu)), "θ and all momenta, while a checkpoint is written");
    assert!(and_sent(5 * theta).contains(&bytes(&cpu, "optimizer_bytes")));
    // f32 values stay on the host.
    let exact = plan("cuda:0", &[&demo[..], &["--bits", "32"]].concat());
    assert!(bytes(&exact, "optimizer_bytes") == 0 && and_sent(7 * theta).contains(&host(&exact)));
    let dense = plan("cpu", &[&demo[..], &["--bits", "32", "--topk", "4096"]].concat());
    assert!(
        bytes(&dense, "optimizer_bytes") > 15 * theta,
        "all coefficients of a worker, twice, and its momentum"
    );
}
