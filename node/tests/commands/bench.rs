//! `gauntlet bench demo`: what it reports.

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
