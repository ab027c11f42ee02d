//! Both schemes behind the one trait: they learn, they refuse each other's payloads, settings are checked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use gauntlet_demo::synthetic::normal;
use gauntlet_demo::{
    AdamW, Applied, Demo, DemoConfig, Dense, Error, Layout, Optimizer, Outer, Payload, Recorded, Schedule,
    Scheme,
};

const SCHEDULE: Schedule = Schedule { peak: 0.02, warmup: 5, t_max: 60, floor: 0.05 };

fn layout() -> Layout {
    Layout::from_shapes([("w", vec![64, 96]), ("b", vec![96])]).unwrap()
}

fn demo() -> Demo {
    Demo::new(DemoConfig { schedule: SCHEDULE, ..DemoConfig::default() }, layout()).unwrap()
}

fn dense() -> Dense {
    Dense::new(AdamW { schedule: SCHEDULE, weight_decay: 0.0, ..AdamW::default() }, layout()).unwrap()
}

/// Noisy gradients of ½‖θ − target‖², three peers; the distance before and after.
fn train(scheme: &dyn Scheme, steps: u64) -> (f64, f64, Vec<f32>) {
    let n = scheme.layout().len() as u64;
    let target: Vec<f32> = (0..n).map(|i| 0.5 * normal(i)).collect();
    let mut theta = vec![0.0_f32; target.len()];
    let distance = |theta: &[f32]| {
        theta.iter().zip(&target).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>().sqrt()
    };
    let before = distance(&theta);
    let mut workers: Vec<_> = (0..3).map(|_| scheme.worker().unwrap()).collect();
    let mut outer = scheme.outer();
    for step in 0..steps {
        let mut accepted = Vec::new();
        for (peer, worker) in (0..).zip(&mut workers) {
            let noise = |i: u64| 0.3 * normal(step << 40 | u64::from(peer) << 32 | i);
            let grads: Vec<f32> =
                (0..n).zip(&theta).zip(&target).map(|((i, x), t)| x - t + noise(i)).collect();
            let bytes = scheme.encode(&worker.step(&grads, outer.lr()).unwrap()).unwrap();
            assert!(bytes.len() <= scheme.max_payload());
            worker.settle(Recorded::Yes);
            let payload = scheme.decode(&bytes).unwrap();
            assert_eq!((payload.kind(), scheme.encode(&payload).unwrap()), (scheme.kind(), bytes));
            accepted.push(([peer; 32], payload));
        }
        let trial = {
            let mut out = vec![0.0; theta.len()];
            outer.trial(&theta, &accepted[0].1, 0.2, &mut out).unwrap();
            out
        };
        let gather: Vec<_> = accepted.iter().map(|(hotkey, payload)| (*hotkey, payload)).collect();
        if step == 20 {
            assert!(distance(&trial) < distance(&theta), "one peer's part of a step is a step forward");
        }
        assert_eq!(outer.apply(&mut theta, &gather), Ok(Applied::Stepped));
        assert_eq!(outer.steps(), step + 1);
    }
    (before, distance(&theta), theta)
}

#[test]
fn both_schemes_learn_and_repeat() {
    // A target without structure is the worst case for 32 of 4,096 coefficients.
    for (scheme, share) in [(&demo() as &dyn Scheme, 0.75), (&dense(), 0.35)] {
        let (before, after, theta) = train(scheme, 80);
        assert!(after < share * before, "kind {}: {before} became {after}", scheme.kind());
        assert_eq!(train(scheme, 80).2, theta);
    }
}

#[test]
fn adamw_is_adamw() {
    let scheme = Dense::new(AdamW { schedule: SCHEDULE, ..AdamW::default() }, layout()).unwrap();
    let n = scheme.layout().len();
    let mut theta: Vec<f32> = (0..n as u64).map(normal).collect();
    let mut expected: Vec<f64> = theta.iter().map(|&x| f64::from(x)).collect();
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let mut outer = scheme.outer();
    for step in 1..=5_u8 {
        let grads: Vec<Vec<f32>> = (0..2_u64)
            .map(|p| (0..n as u64).map(|i| normal(u64::from(step) << 33 ^ p << 32 ^ i)).collect())
            .collect();
        let lr = SCHEDULE.exact(u64::from(step) - 1);
        let power = |beta: f64| (0..step).fold(1.0, |x, _| x * beta);
        for i in 0..n {
            let g = (f64::from(grads[0][i]) + f64::from(grads[1][i])) / 2.0;
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.95 * v[i] + 0.05 * g * g;
            let (m, v) = (m[i] / (1.0 - power(0.9)), v[i] / (1.0 - power(0.95)));
            expected[i] = expected[i] * (1.0 - lr * 0.1) - lr * m / (v.sqrt() + 1e-8);
        }
        let payloads: Vec<_> = grads.into_iter().map(Payload::Dense).collect();
        outer.apply(&mut theta, &[([9; 32], &payloads[0]), ([3; 32], &payloads[1])]).unwrap();
    }
    for (found, expected) in theta.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-5);
    }
}

#[test]
fn payloads_of_the_other_scheme_and_broken_ones_are_refused() {
    let (demo, dense) = (demo(), dense());
    let zeros = vec![0.0; demo.layout().len()];
    let compressed = demo.worker().unwrap().step(&zeros, 0.1).unwrap();
    let plain = dense.worker().unwrap().step(&zeros, 0.1).unwrap();
    assert_eq!(demo.encode(&plain).unwrap_err(), Error::Kind { found: 2, expected: 1 });
    assert_eq!(dense.encode(&compressed).unwrap_err(), Error::Kind { found: 1, expected: 2 });
    let bytes = dense.encode(&plain).unwrap();
    assert_eq!(dense.decode(&[&bytes[..], &[0]].concat()).unwrap_err(), Error::TrailingBytes { count: 1 });
    assert!(matches!(dense.decode(&bytes[4..]), Err(Error::Length { .. })));
    assert!(matches!(dense.decode(&bytes[1..]), Err(Error::Length { .. })));
    let nan = [&f32::NAN.to_le_bytes()[..], &bytes[4..]].concat();
    assert!(matches!(dense.decode(&nan), Err(Error::NonFinite { .. })));
    let twice = dense.outer().apply(&mut zeros.clone(), &[([1; 32], &plain), ([1; 32], &plain)]);
    assert_eq!(twice, Err(Error::DuplicatePeer { hotkey: [1; 32] }));
}

#[test]
fn too_few_payloads_leave_the_rate_where_it_was() {
    let dense = AdamW { schedule: SCHEDULE, min_gather: 3, ..AdamW::default() };
    for scheme in [&demo() as &dyn Scheme, &Dense::new(dense, layout()).unwrap()] {
        let ones = vec![1.0; scheme.layout().len()];
        let payload = scheme.worker().unwrap().step(&ones, 0.1).unwrap();
        let accepted: Vec<_> = (0..3).map(|peer| ([peer; 32], &payload)).collect();
        let (mut outer, mut theta) = (scheme.outer(), ones.clone());
        for steps in 0..3 {
            let state = |outer: &dyn Outer| (outer.steps(), outer.lr());
            assert_eq!(state(&*outer), (steps, SCHEDULE.at(steps)));
            for few in 0..3 {
                let before = theta.clone();
                assert_eq!(outer.apply(&mut theta, &accepted[..few]), Ok(Applied::TooFew));
                assert_eq!((state(&*outer), &theta), ((steps, SCHEDULE.at(steps)), &before));
            }
            assert_eq!(outer.apply(&mut theta, &accepted), Ok(Applied::Stepped));
        }
        assert!(SCHEDULE.at(3) > SCHEDULE.at(2) && outer.steps() == 3 && outer.lr() == SCHEDULE.at(3));
    }
}

#[test]
fn settings_name_what_is_wrong() {
    let parse = |text: &str| serde_json::from_str::<Optimizer>(text);
    let Optimizer::Demo(config) = parse(r#"{"scheme":"demo","topk":16}"#).unwrap() else { panic!("demo") };
    assert_eq!((config.topk, config.decay), (16, 0.999));
    assert!(matches!(parse(r#"{"scheme":"adamw"}"#).unwrap(), Optimizer::Adamw(_)));
    assert!(parse(r#"{"scheme":"demo","topkk":16}"#).unwrap_err().to_string().contains("topkk"));
    let levels = parse(r#"{"scheme":"demo","codebook":{"bits":2,"levels":[3,4]}}"#);
    assert!(levels.unwrap_err().to_string().contains("levels"));
    let printed = serde_json::to_string(&Optimizer::Demo(config.clone())).unwrap();
    assert_eq!(parse(&printed).unwrap(), Optimizer::Demo(config.clone()));

    let fields = |config: DemoConfig| match config.check(&layout()) {
        Err(Error::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(fields(DemoConfig { topk: 0, ..config.clone() }), "topk");
    assert_eq!(fields(DemoConfig { chunk: 65, ..config.clone() }), "chunk");
    assert_eq!(fields(DemoConfig { decay: f32::NAN, ..config.clone() }), "decay");
    assert_eq!(fields(DemoConfig { min_gather: 0, ..config.clone() }), "min_gather");
    assert_eq!(fields(DemoConfig { weight_decay: 1.0, ..config.clone() }), "weight_decay");
    let schedule = Schedule { floor: 2.0, ..config.schedule };
    assert_eq!(fields(DemoConfig { schedule, ..config.clone() }), "schedule.floor");
    // As f32 these are infinite and 0.
    for peak in [f64::NAN, f64::INFINITY, 0.0, -1.0, 1e39, 1e-46] {
        let schedule = Schedule { peak, ..config.schedule };
        assert_eq!(fields(DemoConfig { schedule, ..config.clone() }), "schedule.peak");
    }
    let schedule = Schedule { peak: f32::MAX.into(), ..config.schedule };
    assert_eq!(DemoConfig { schedule, ..config }.check(&layout()), Ok(()));
}

#[test]
fn dimensions_that_the_chunk_cannot_cut_well_are_refused() {
    let check = |chunk: usize, dimension: usize| {
        let layout = Layout::from_shapes([("w", vec![64, dimension])]).unwrap();
        let config = DemoConfig { chunk, ..DemoConfig::default() };
        assert_eq!(config.check(&layout).is_ok(), Demo::new(config.clone(), layout.clone()).is_ok());
        config.check(&layout)
    };
    // Divisors: of 127 only 1, of 130 1, 2, 5, 10, 13, 26, 65, of 136 8, 17, 34.
    for (chunk, dimension, edge) in [(64, 127, 1), (20, 130, 13), (16, 136, 8), (8, 127, 1), (12, 130, 10)] {
        match check(chunk, dimension) {
            Err(Error::Layout { tensor, reason }) => {
                let named =
                    [format!("dimension {dimension}"), format!("edges of {edge},"), format!("chunk {chunk}")];
                assert!(tensor == "w" && named.iter().all(|name| reason.contains(name)), "{reason}");
            }
            other => panic!("{chunk}, {dimension}: {other:?}"),
        }
    }
    // Small dimensions are one chunk or some; a chunk that was chosen small may be had.
    for (chunk, dimension) in
        [(64, 130), (64, 136), (20, 136), (16, 128), (8, 128), (1, 127), (64, 61), (16, 61)]
    {
        assert_eq!(check(chunk, dimension), Ok(()), "{chunk}, {dimension}");
    }
}
