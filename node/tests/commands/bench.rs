//! `gauntlet bench`: what it reports.

use crate::*;

#[test]
fn bench_demo_reports_times_sizes_and_one_state_for_any_number_of_threads() {
    let run = |threads: &str| {
        let size = ["--params", "1e5", "--peers", "3", "--runs", "1", "--topk", "32", "--bits", "4"];
        json(&[&["bench", "demo", "--device", "cpu", "--threads", threads][..], &size].concat())
    };
    let (one, two) = (run("1"), run("2"));
    for (found, threads) in [(&one, 1), (&two, 2)] {
        let settings = ["peers", "topk", "bits", "threads"].map(|key| found[key].as_u64().unwrap());
        assert_eq!(settings, [3, 32, 4, threads]);
        assert_eq!([&found["bench"], &found["device"]], ["demo", "cpu"]);
        assert!((90_000..200_000).contains(&found["params"].as_u64().unwrap()), "{found}");
        for part in ["encode", "decode_aggregate_apply", "trial"] {
            let [min, median] =
                ["min", "median"].map(|key| found["ns_per_param"][part][key].as_f64().unwrap());
            assert!(0.0 < min && min <= median, "{part}: {found}");
        }
        let [index, entry] = ["bits_per_index", "bits_per_entry"].map(|key| found[key].as_f64().unwrap());
        // A code of four bits, an index, a chunk's exponent.
        assert!(5.0 < index && index < 9.0 && index + 4.0 < entry && entry < index + 5.0, "{found}");
        assert!(found["bytes"].as_u64().unwrap() > 1000 && found["peak_rss_bytes"].as_u64().unwrap() > 0);
        assert!(["Portable", "Avx2", "Avx512"].contains(&found["path"].as_str().unwrap()), "{found}");
    }
    assert_eq!(one["theta_hash"].as_str().unwrap().len(), 64);
    assert_eq!(one["theta_hash"], two["theta_hash"]);
    assert_eq!(one["bytes"], two["bytes"]);
}

/// Minimum, median and maximum of a result's times, which are positive and in order.
fn spread(times: &Value) -> [f64; 3] {
    let spread = ["min", "median", "max"].map(|key| times[key].as_f64().unwrap());
    assert!(0.0 < spread[0] && spread.is_sorted(), "{times}");
    spread
}

#[test]
fn bench_step_reports_rates_that_follow_from_its_times() {
    let shape = ["--hidden", "32", "--layers", "1", "--heads", "2", "--kv-heads", "1", "--ffn", "48"];
    let size = ["--vocab", "300", "--seq", "16", "--batch", "2", "--runs", "3", "--device", "cpu"];
    let run = |threads: &str| json(&[&["bench", "step", "--threads", threads][..], &shape, &size].concat());
    let (one, two) = (run("1"), run("2"));
    for (found, threads) in [(&one, 1), (&two, 2)] {
        assert_eq!([&found["bench"], &found["device"]], ["step", "cpu"]);
        assert_eq!([&found["runs"], &found["threads"]], [3, threads]);
        let shape = ["hidden", "layers", "heads", "kv_heads", "ffn", "seq", "batch"];
        let shape = shape.map(|key| found["shape"][key].as_u64().unwrap());
        assert_eq!(shape, [32, 1, 2, 1, 48, 16, 2], "{found}");
        let [_, median, _] = spread(&found["seconds"]);
        spread(&found["forward_backward_seconds"]);
        spread(&found["clip_adamw_seconds"]);
        let rate = found["tokens_per_s"].as_f64().unwrap();
        assert!((rate * median - 32.0).abs() < 1e-9, "{found}");
        assert!(found["gflops"].as_f64().unwrap() > 0.0);
        assert!(found["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
        // Equal chances for 300 ids; the loss falls on a batch seen again and again.
        let (first, last) = (found["first_loss"].as_f64().unwrap(), found["loss"].as_f64().unwrap());
        assert!((first - 300f64.ln()).abs() < 0.1 && last < first, "{found}");
        assert!(found["first_grad_norm"].as_f64().unwrap() > 0.0);
    }
    for same in ["first_loss", "first_grad_norm", "loss"] {
        assert_eq!(one[same], two[same]);
    }
}

#[test]
fn bench_gemm_reports_every_product_of_a_step() {
    let shape = ["--hidden", "32", "--layers", "1", "--heads", "2", "--ffn", "48", "--vocab", "300"];
    let size = ["--seq", "16", "--batch", "2", "--runs", "2", "--device", "cpu"];
    let found = json(&[&["bench", "gemm"][..], &shape, &size].concat());
    assert_eq!([&found["bench"], &found["device"]], ["gemm", "cpu"]);
    let products = found["products"].as_array().unwrap();
    assert!(products.len() >= 6, "{found}");
    for product in products {
        spread(&product["seconds"]);
        let (flops, gflops) = (
            2.0 * ["m", "n", "k"].map(|k| product[k].as_f64().unwrap()).iter().product::<f64>(),
            &product["gflops"],
        );
        let median = product["seconds"]["median"].as_f64().unwrap();
        assert!((gflops.as_f64().unwrap() * 1e9 * median / flops - 1.0).abs() < 1e-9, "{product}");
    }
    assert!(found["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
}
