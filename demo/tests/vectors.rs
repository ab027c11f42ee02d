//! Proof 1: the golden files made by the original DeMo and by templar v0.2.82.
//!
//! The reference agrees to 1e-9. The fast path, with f32 values instead of codes, agrees to 1e-5 and chooses the same
//! indices. Its gather always brings peers to unit norm, so of the original's runs (which do not) its encode side is
//! compared for all, its outer step for the run with one worker.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod common;

use common::*;
use gauntlet_demo::chunk::{Grid, split};
use gauntlet_demo::dct::coefficient;
use gauntlet_demo::reference::{self, Rule, Sparse};
use gauntlet_demo::{
    Aggregate, Format, Momentum, OuterStep, Schedule, StrengthCap, Submission, Values, outer_step,
};
use serde_json::Value;
use std::sync::Arc;

/// 2⁴⁸: what a unit-norm tensor is scaled to.
const ONE: f64 = (1_u64 << 48) as f64;

#[test]
fn splits() {
    for (target, cases) in vectors("demo_splits.json").as_object().unwrap() {
        for (n, edge) in cases.as_object().unwrap() {
            let found = split(n.parse().unwrap(), target.parse().unwrap());
            assert_eq!(found as u64, edge.as_u64().unwrap(), "split({n}, {target})");
        }
    }
}

#[test]
fn bases() {
    for (n, base) in vectors("demo_dct.json")["bases"].as_object().unwrap() {
        let Ok(n) = n.parse::<usize>() else { continue };
        let forward: Vec<f64> = (0..n * n).map(|i| coefficient(n, i / n, i % n)).collect();
        let inverse: Vec<f64> = (0..n * n).map(|i| coefficient(n, i % n, i / n)).collect();
        close(&forward, &flat(&base["forward"]), 1e-9, "forward basis");
        close(&inverse, &flat(&base["inverse"]), 1e-9, "inverse basis");
    }
}

#[test]
fn encode() {
    for case in vectors("demo_encode.json")["cases"].as_array().unwrap() {
        let (shape, target) = (sizes(&case["shape"]), case["target_chunk"].as_u64().unwrap() as usize);
        let (grid, x, expected) = (Grid::new(&shape, target), flat(&case["x"]), flat(&case["encoded"]));
        let chunk = sizes(&case["chunk"]);
        assert_eq!((grid.h, grid.w), if let [h, w] = chunk[..] { (h, w) } else { (1, chunk[0]) });
        let chunks = reference::encode(&x, &grid);
        close(&chunks.concat(), &expected, 1e-9, "encode");
        close(&reference::decode(&chunks, &grid), &x, 1e-9, "decode");

        let (momentum, _) = encode_once(&shape, target, 64 * 64, &case["x"]);
        close32(momentum.coefficients(), &expected, 1e-5, "fast encode");
        close32(&momentum.decode(), &x, 1e-5, "fast decode");
    }
}

#[test]
fn compress_and_the_mean_over_senders() {
    for case in vectors("demo_compress.json")["cases"].as_array().unwrap() {
        let (shape, target) = (sizes(&case["shape"]), case["target_chunk"].as_u64().unwrap() as usize);
        let (grid, k) = (Grid::new(&shape, target), case["topk"].as_u64().unwrap() as usize);
        let (mut sparse, mut sent) = (Vec::new(), Vec::new());
        for peer in case["peers"].as_array().unwrap() {
            let found = reference::compress(&flat(&peer["x"]), &grid, k);
            compare_sparse(&found, peer, 1e-9);
            let decoded = reference::decode(&reference::aggregate(&[&found], &grid, Rule::Plain), &grid);
            close(&decoded, &flat(&peer["decoded"]), 1e-9, "decoded");
            sparse.push(found);
            let (_, submission) = encode_once(&shape, target, k, &peer["x"]);
            compare_sparse(&entries(&submission, 0), peer, 1e-5);
            sent.push(submission);
        }
        let peers: Vec<&Sparse> = sparse.iter().collect();
        for (rule, field) in
            [(Rule::Plain, "batch_decompress_plain"), (Rule::UnitNorm, "batch_norm_per_tensor_L2_v0_2_82")]
        {
            let mean = reference::decode(&reference::aggregate(&peers, &grid, rule), &grid);
            close(&mean, &flat(&case[field]), 1e-9, field);
        }
        let expected = flat(&case["batch_norm_per_tensor_L2_v0_2_82"]);
        close(&decode(&gather(sent[0].format(), &sent)), &expected, 1e-5, "fast mean");
    }
}

#[test]
fn steps_of_the_original() {
    for run in vectors("demo_steps.json")["runs"].as_array().unwrap() {
        let number = |field: &str| run[field].as_f64().unwrap();
        let (lr, decay, wd) = (number("lr"), number("decay"), number("wd"));
        let (k, target) = (number("topk") as usize, number("chunk") as usize);
        let shapes: Vec<Vec<usize>> = run["shapes"].as_array().unwrap().iter().map(sizes).collect();
        let grids: Vec<Grid> = shapes.iter().map(|shape| Grid::new(shape, target)).collect();
        let mut params: Vec<Vec<f64>> = run["init_params"].as_array().unwrap().iter().map(flat).collect();
        let workers = run["workers"].as_array().unwrap();
        let mut deltas = vec![params.iter().map(|p| vec![0.0; p.len()]).collect::<Vec<_>>(); workers.len()];

        let config = exact(decay, k, target, 0);
        let format = format(&config, &shapes);
        let mut momenta: Vec<Momentum> =
            workers.iter().map(|_| config.momentum(Arc::clone(&format)).unwrap()).collect();
        let mut theta: Vec<f32> = params.concat().iter().map(|&x| x as f32).collect();

        for step in 0..number("steps") as usize {
            let mut sent = Vec::new();
            for (worker, log) in workers.iter().enumerate() {
                let log = &log[step];
                let submission = momenta[worker].step(&flat32(&log["grads"]), lr as f32).unwrap();
                close32(&momenta[worker].decode(), &flat(&log["delta_after"]), 1e-5, "fast momentum");
                let norms = (0..shapes.len()).map(|t| entries(&submission, t)).map(|s| norm(&s));
                let scaled = decode(&gather(&format, std::slice::from_ref(&submission)));
                let transmitted: Vec<f64> = norms
                    .zip(format.layout().tensors())
                    .flat_map(|(norm, tensor)| {
                        scaled[tensor.range()].iter().map(move |x| x * norm).collect::<Vec<_>>()
                    })
                    .collect();
                close(&transmitted, &flat(&log["transmitted"]), 1e-5, "fast transmitted");
                sent.push(submission);
            }
            for (tensor, grid) in grids.iter().enumerate() {
                let logs = || workers.iter().map(|log| &log[step]);
                let mut sparse = Vec::new();
                for (worker, log) in logs().enumerate() {
                    let (delta, grads) = (&mut deltas[worker][tensor], flat(&log["grads"][tensor]));
                    let yes = reference::Subtract::Yes;
                    sparse.push(reference::local_step(delta, &grads, grid, decay, lr, k, yes));
                    close(delta, &flat(&log["delta_after"][tensor]), 1e-9, "momentum");
                    let own = reference::aggregate(&[&sparse[worker]], grid, Rule::Plain);
                    let transmitted = flat(&log["transmitted"][tensor]);
                    close(&reference::decode(&own, grid), &transmitted, 1e-9, "transmitted");
                    assert_eq!(
                        entries(&sent[worker], tensor).indices,
                        sparse[worker].indices,
                        "fast indices"
                    );
                }
                let peers: Vec<&Sparse> = sparse.iter().collect();
                let mean = reference::decode(&reference::aggregate(&peers, grid, Rule::Plain), grid);
                reference::outer_step(&mut params[tensor], &mean, lr, wd);
                for log in logs() {
                    close(&mean, &flat(&log["aggregate_pre_sign"][tensor]), 1e-9, "aggregate");
                    close(&params[tensor], &flat(&log["params_after"][tensor]), 1e-9, "params");
                }
            }
            if workers.len() == 1 {
                let outer = OuterStep { lr: lr as f32, weight_decay: wd, min_gather: 1 };
                outer_step::apply(&mut theta, &gather(&format, &sent), &outer).unwrap();
                close32(&theta, &params.concat(), 1e-5, "fast params");
            }
        }
    }
}

#[test]
fn seven_windows_of_three_peers() {
    let file = vectors("demo_templar_steps.json");
    let number = |field: &str| file["hparams"][field].as_f64().unwrap();
    let (wd, decay) = (number("weight_decay"), number("momentum_decay"));
    let (k, target) = (number("topk_compression") as usize, number("target_chunk") as usize);
    let names = ["b", "e", "w"];
    let mut params: Vec<Vec<f64>> = names.iter().map(|name| flat(&file["init"][name])).collect();
    let shapes: Vec<Vec<usize>> = names
        .iter()
        .map(|name| match rows(&file["init"][name]).as_slice() {
            [one] => vec![one.len()],
            many => vec![many.len(), many[0].len()],
        })
        .collect();
    let grids: Vec<Grid> = shapes.iter().map(|shape| Grid::new(shape, target)).collect();
    let config = exact(decay, k, target, 5);
    let format = format(&config, &shapes);
    let trace = file["trace"].as_array().unwrap();
    let peers = trace[0]["grads"].as_array().unwrap().len();
    let mut momenta: Vec<Momentum> =
        (0..peers).map(|_| config.momentum(Arc::clone(&format)).unwrap()).collect();
    let mut m = vec![params.iter().map(|p| vec![0.0; p.len()]).collect::<Vec<_>>(); peers];
    let mut theta: Vec<f32> = params.concat().iter().map(|&x| x as f32).collect();

    for (window, log) in trace.iter().enumerate() {
        let lr = log["lr"].as_f64().unwrap();
        let mut sparse = vec![Vec::new(); names.len()];
        let mut sent = Vec::new();
        for peer in 0..peers {
            let all = |field: &str| names.map(|name| log[field][peer][name].clone());
            let grads: Vec<f32> = all("grads").iter().flat_map(flat32).collect();
            let submission = momenta[peer].step(&grads, lr as f32).unwrap();
            let after: Vec<f64> = all("momentum_after").iter().flat_map(flat).collect();
            close32(&momenta[peer].decode(), &after, 1e-5, "fast momentum");
            for (tensor, name) in names.iter().enumerate() {
                let grads = flat(&log["grads"][peer][name]);
                let subtract = if window < 5 { reference::Subtract::No } else { reference::Subtract::Yes };
                let m = &mut m[peer][tensor];
                let one = reference::local_step(m, &grads, &grids[tensor], decay, lr, k, subtract);
                close(m, &flat(&log["momentum_after"][peer][name]), 1e-9, "momentum");
                compare_sparse(&one, &log["submissions"][peer][name], 1e-9);
                compare_sparse(&entries(&submission, tensor), &log["submissions"][peer][name], 1e-5);
                sparse[tensor].push(one);
            }
            sent.push(submission);
        }
        let gather = gather(&format, &sent);
        let fast = decode(&gather);
        for (tensor, name) in names.iter().enumerate() {
            let (grid, peers): (_, Vec<&Sparse>) = (&grids[tensor], sparse[tensor].iter().collect());
            let mean = reference::decode(&reference::aggregate(&peers, grid, Rule::UnitNorm), grid);
            let expected = flat(&log["aggregate_pre_sign"][name]);
            close(&mean, &expected, 1e-9, "aggregate");
            close(&fast[format.layout().tensors()[tensor].range()], &expected, 1e-5, "fast aggregate");
            reference::outer_step(&mut params[tensor], &mean, lr, wd);
            close(&params[tensor], &flat(&log["params_after"][name]), 1e-9, "params");
        }
        let outer = OuterStep { lr: lr as f32, weight_decay: wd, min_gather: 3 };
        outer_step::apply(&mut theta, &gather, &outer).unwrap();
        close32(&theta, &params.concat(), 1e-5, "fast params");
    }
}

#[test]
fn learning_rates_up_to_the_first_restart() {
    // The reference restarts its cosine; PROTOCOL 6.3 stays at the floor.
    let file = &vectors("demo_templar_steps.json")["lr_schedule"];
    let number = |field: &str| file[field].as_f64().unwrap();
    let (warmup, t_max) = (number("warmup") as u64, number("T_0") as u64);
    let schedule =
        Schedule { peak: number("base"), warmup, t_max, floor: number("eta_min") / number("base") };
    schedule.check().unwrap();
    for (step, expected) in flat(&file["values"]).into_iter().enumerate().take((warmup + t_max) as usize) {
        assert!((schedule.exact(step as u64) - expected).abs() < 1e-9);
        assert_eq!(schedule.at(step as u64), schedule.exact(step as u64) as f32);
    }
    for step in [warmup + t_max, warmup + t_max + 1, u64::MAX] {
        assert_eq!(schedule.exact(step), number("eta_min"));
    }
}

fn encode_once(shape: &[usize], target: usize, k: usize, x: &Value) -> (Momentum, Submission) {
    let config = exact(0.0, k, target, u64::MAX);
    let mut momentum = config.momentum(format(&config, &[shape.to_vec()])).unwrap();
    let submission = momentum.step(&flat32(x), 1.0).unwrap();
    (momentum, submission)
}

/// One tensor's entries, as the reference keeps them.
fn entries(submission: &Submission, tensor: usize) -> Sparse {
    let Values::Exact(values) = submission.values() else { panic!("f32 values") };
    let (mut first, mut found) = (0, Sparse { indices: Vec::new(), values: Vec::new() });
    for t in 0..=tensor {
        let grid = submission.format().grid(t).unwrap();
        let k = submission.format().topk().min(grid.chunk_len());
        for chunk in 0..grid.chunks() {
            let range = first + chunk * k..first + (chunk + 1) * k;
            if t == tensor {
                found
                    .indices
                    .push(submission.indices()[range.clone()].iter().map(|&i| usize::from(i)).collect());
                found.values.push(values[range].iter().map(|&v| f64::from(v)).collect());
            }
        }
        first += grid.chunks() * k;
    }
    found
}

#[track_caller]
fn compare_sparse(found: &Sparse, expected: &Value, tolerance: f64) {
    let indices: Vec<Vec<usize>> =
        rows(&expected["idx"]).into_iter().map(|row| row.into_iter().map(|i| i as usize).collect()).collect();
    assert_eq!(found.indices, indices, "indices");
    close(&found.values.concat(), &flat(&expected["val"]), tolerance, "values");
}

fn norm(sparse: &Sparse) -> f64 {
    sparse.values.iter().flatten().map(|v| v * v).sum::<f64>().sqrt()
}

fn gather<'a>(format: &Arc<Format>, sent: &'a [Submission]) -> Aggregate<'a> {
    let mut gather = Aggregate::new(Arc::clone(format), StrengthCap::Off);
    for (peer, submission) in (0..).zip(sent) {
        gather.add([peer; 32], submission).unwrap();
    }
    gather
}

/// Δ before the sign, brought back from 2⁴⁸ to 1.
fn decode(gather: &Aggregate<'_>) -> Vec<f64> {
    let mut out = vec![0.0; gather.format().layout().len()];
    outer_step::decode(gather, &mut out).unwrap();
    out.into_iter().map(|x| f64::from(x) / ONE).collect()
}
