//! Passes and DeMo on a device, beside the CPU's.

use std::path::Path;

use gauntlet_demo::synthetic;
use gauntlet_model::engine::cpu::Path as CodePath;
use gauntlet_model::engine::{Footprint, MemoryPlan};
use gauntlet_model::{Layout, init};

use super::*;
use crate::corpus::DataArgs;
use crate::run::manifest::demo_layout;
use crate::simulate::settings::of_flags;

const SEQ: usize = 16;
const IDS: [u64; 5] = [5, 1, 9, 2, 7];

fn cpu() -> Cpu {
    Cpu::new(1, CodePath::Best).unwrap()
}

/// A run of a model so small that the emulation computes it.
pub(crate) fn tiny_run() -> Run {
    let corpus = DataArgs::default().open(Path::new(""), 1, SEQ).unwrap();
    let manifest = of_flags("byte-1m", SEQ, (1e-2, 10), 3, &corpus);
    let mut run = Run::new(manifest, corpus).unwrap();
    let config = LlamaConfig { hidden_size: 32, head_dim: 16, intermediate_size: 32, ..run.config };
    run.config = LlamaConfig { n_layers: 1, n_heads: 2, n_kv_heads: 1, ..config };
    run.layout = Layout::new(&run.config);
    run.demo.topk = 8;
    run.demo.min_gather = 1;
    run.format = run.demo.format(demo_layout(&run.layout).unwrap()).unwrap();
    run
}

fn initial(run: &Run, scale: f32) -> Arc<Theta> {
    let mut values = cpu().alloc(run.layout.total()).unwrap();
    init::init(&run.layout, 3, &mut values);
    values.iter_mut().for_each(|v| *v *= scale);
    Arc::new(Theta::new(run, values, 0))
}

/// Both with engines for batches of the same length: sums over batches, and over pieces of one, have an order.
fn both<P: Place + 'static>(place: P, run: &Run) -> (Compute, Compute) {
    let mut here = Compute::new(cpu(), &run.config, SEQ).unwrap();
    let mut plan = Plan::new(P::FOOTPRINT, run, 2, None).unwrap();
    (here.batch, plan.batch) = (2, 2);
    let options = EngineOptions { batch: 2, seq: SEQ, mode: Mode::Train };
    here.passes = Passes::Here(Box::new(Engine::new(cpu(), &run.config, options).unwrap()));
    (here.tokens, here.targets) = (vec![0; 2 * SEQ], vec![0; 2 * SEQ]);
    (here, Compute::there(place, cpu(), run, &plan).unwrap().checked())
}

fn submission(run: &Run, peer: u64) -> Submission {
    let mut grads = vec![0.0; run.layout.total()];
    synthetic::gradient(run.format.layout(), 9, peer, &mut grads);
    run.demo.momentum(Arc::clone(&run.format)).unwrap().step(&grads, 1e-2).unwrap()
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a / b - 1.0).abs() < 1e-4, "{found:?} {expected:?}");
    }
}

/// The CPU as a device with copies of its own, without DeMo: what travels is what is computed with.
#[test]
fn passes_on_a_device_are_the_same_passes() {
    let run = tiny_run();
    let (mut here, mut there) = both(cpu(), &run);
    let data = &run.corpus.train;
    let sent = submission(&run, 1);
    // Another θ after the first.
    for scale in [1.0, 2.0] {
        let theta = initial(&run, scale);
        let loss = here.gradient(data, &theta, &IDS).unwrap();
        assert_eq!(there.gradient(data, &theta, &IDS).unwrap(), loss);
        let grads = here.host_gradient().unwrap();
        assert!(grads == there.host_gradient().unwrap() && grads.iter().any(|g| *g != 0.0));
        assert_eq!(here.loss(data, &theta, &IDS).unwrap(), there.loss(data, &theta, &IDS).unwrap());
        let own = upload(&cpu(), &theta.values.iter().map(|v| v / 2.0).collect::<Vec<_>>()).unwrap();
        assert_eq!(here.loss(data, &own, &IDS).unwrap(), there.loss(data, &own, &IDS).unwrap());
        let lists: [&[u64]; 2] = [&IDS[..2], &IDS];
        let trial = |compute: &mut Compute| compute.trial(data, &theta, (&sent, 1e-2, 0.5), &lists).unwrap();
        assert_eq!(trial(&mut here), trial(&mut there));
        let listed = [(Hotkey([1; 32]), &sent)];
        let step = |compute: &Compute| compute.outer_step(&run, &theta, &listed).unwrap();
        assert_eq!(step(&here).hash, step(&there).hash);
    }
    let theta = initial(&run, 1.0);
    let loss = there.gradient(data, &theta, &[]).unwrap();
    let grads = there.host_gradient().unwrap();
    assert!(loss.is_nan() && grads.iter().all(|g| *g == 0.0), "no sequences, no gradient");
}

#[cfg(not(target_feature = "crt-static"))]
mod on_a_device {
    use super::*;
    use crate::device::testing;

    #[test]
    fn submissions_and_theta_are_the_cpus_and_losses_are_close() {
        let run = tiny_run();
        let (mut here, mut there) = both(testing::place(), &run);
        let data = &run.corpus.train;
        let mut momenta: Vec<[Momentum; 2]> = Vec::new();
        for _ in 0..2 {
            momenta.push([&here, &there].map(|side| side.momentum(&run.demo, &run.format).unwrap()));
        }
        assert!(momenta.iter().all(|[a, b]| matches!((a, b), (Momentum::Host(_), Momentum::Device(_)))));
        let (mut theta, mut grads) = (initial(&run, 1.0), vec![0.0; run.layout.total()]);
        for window in 0..3 {
            let mut sent = Vec::new();
            for (peer, [a, b]) in (0..).zip(&mut momenta) {
                synthetic::gradient(run.format.layout(), window, peer, &mut grads);
                here.set_gradient(&grads).unwrap();
                there.set_gradient(&grads).unwrap();
                sent.push(here.take_up(a, 0.1).unwrap());
                assert!(
                    there.take_up(b, 0.1).unwrap() == sent[peer as usize],
                    "window {window}, peer {peer}"
                );
                assert!(a.coefficients().unwrap() == b.coefficients().unwrap());
            }
            let (first, second) = (&sent[0], &sent[1]);
            let lists: [&[u64]; 2] = [&IDS, &IDS[..1]];
            let trial = |side: &mut Compute| side.trial(data, &theta, (first, 0.01, 0.5), &lists).unwrap();
            close(&trial(&mut there), &trial(&mut here));
            let mut moved = vec![0.0; grads.len()];
            own_device(&mut there).give_trial(&mut moved).unwrap();
            assert!(moved[..] == here.trial[..] && moved[..] != theta.values[..], "θ after a trial");
            let others = [(Hotkey([2; 32]), second)];
            let step = OuterStep { lr: 0.01, weight_decay: 0.1, min_gather: 1 };
            for others in [&others[..], &[]] {
                let marginal = |side: &mut Compute| {
                    side.marginal(data, &theta, (others, (&run.demo, &step)), (first, 0.5), &IDS).unwrap()
                };
                close(&marginal(&mut there), &marginal(&mut here));
                own_device(&mut there).give_trial(&mut moved).unwrap();
                assert!(moved[..] == here.trial[..], "a trial where others moved θ");
            }
            close(
                &[there.gradient(data, &theta, &IDS).unwrap()],
                &[here.gradient(data, &theta, &IDS).unwrap()],
            );
            let listed = [(Hotkey([1; 32]), first), (Hotkey([2; 32]), second)];
            let after = here.outer_step(&run, &theta, &listed).unwrap();
            let same = there.outer_step(&run, &theta, &listed).unwrap();
            assert_eq!((same.hash, same.steps), (after.hash, window + 1));
            assert!(after.hash != theta.hash && same.values == after.values);
            let none = there.outer_step(&run, &after, &[]).unwrap();
            assert_eq!((none.hash, none.steps), (after.hash, after.steps), "nothing listed, nothing moves");
            theta = Arc::new(same);
        }
    }

    fn own_device(compute: &mut Compute) -> &mut dyn There {
        match &mut compute.passes {
            Passes::There { device, .. } => own(device),
            Passes::Here(_) => panic!("computes here"),
        }
    }

    /// Other values under θ's hash: whoever brings it again would notice.
    fn disguised(run: &Run, theta: &Theta) -> Arc<Theta> {
        let values = upload(&cpu(), &initial(run, 3.0).values).unwrap();
        Arc::new(Theta { values, hash: theta.hash, steps: theta.steps })
    }

    #[test]
    fn theta_is_brought_once() {
        let run = tiny_run();
        let (_, mut there) = both(testing::place(), &run);
        let (data, theta) = (&run.corpus.train, initial(&run, 1.0));
        let loss = there.loss(data, &theta, &IDS).unwrap();
        assert_eq!(there.loss(data, &disguised(&run, &theta), &IDS).unwrap(), loss, "it is there already");
        let sent = submission(&run, 1);
        let after = Arc::new(there.outer_step(&run, &theta, &[(Hotkey([1; 32]), &sent)]).unwrap());
        let next = there.loss(data, &disguised(&run, &after), &IDS).unwrap();
        assert!(next != loss, "what was applied there stays there");
        assert_eq!(there.loss(data, &theta, &IDS).unwrap(), loss, "another one is brought");
        assert_eq!(there.loss(data, &after, &IDS).unwrap(), next);
    }

    #[test]
    fn a_step_that_differs_from_the_cpus_is_refused() {
        let run = tiny_run();
        let (_, mut there) = both(testing::place(), &run);
        let theta = initial(&run, 1.0);
        there.loss(&run.corpus.train, &disguised(&run, &theta), &IDS).unwrap();
        let sent = submission(&run, 1);
        let error = there.outer_step(&run, &theta, &[(Hotkey([1; 32]), &sent)]).err().unwrap().to_string();
        assert!(error.contains("on the CPU it is") && error.contains("do not trust"), "{error}");
    }

    #[test]
    fn f32_values_are_decoded_on_the_host() {
        let mut run = tiny_run();
        run.demo.codebook = gauntlet_demo::Codebook::with_bits(32).unwrap();
        run.format = run.demo.format(demo_layout(&run.layout).unwrap()).unwrap();
        let (mut here, mut there) = both(testing::place(), &run);
        let (data, theta, sent) = (&run.corpus.train, initial(&run, 1.0), submission(&run, 1));
        assert!(matches!(there.momentum(&run.demo, &run.format), Ok(Momentum::Host(_))));
        let trial = |side: &mut Compute| side.trial(data, &theta, (&sent, 0.01, 0.5), &[&IDS]).unwrap();
        close(&trial(&mut there), &trial(&mut here));
        let listed = [(Hotkey([1; 32]), &sent)];
        let step = |side: &Compute| side.outer_step(&run, &theta, &listed).unwrap().hash;
        assert_eq!(step(&there), step(&here));
    }
}

#[test]
fn a_plan_takes_what_fits() {
    let run = tiny_run();
    let bf16 = Footprint { activation: 2, ..Footprint::CPU };
    let plan = |free| Plan::new(bf16, &run, 50, free);
    let most = plan(None).unwrap();
    assert_eq!((most.batch, most.seq, most.momenta_on_device), (16_384 / SEQ, SEQ, true));
    let alone = |batch| {
        let options = EngineOptions { batch, seq: SEQ, mode: Mode::Train };
        MemoryPlan::on(bf16, &run.config, options, 1).unwrap().total_bytes
    };
    let (demo, reserve) = (most.memory.total_bytes - alone(most.batch), 512 << 20);
    assert!(demo > 50 * 4 * run.layout.total(), "momenta are counted");
    assert_eq!(plan(Some(most.memory.total_bytes + reserve)).unwrap().batch, most.batch);
    let half = plan(Some(most.memory.total_bytes + reserve - 1)).unwrap();
    assert_eq!((half.batch, half.momenta_on_device), (most.batch / 2, true), "momenta first");
    let host = plan(Some(alone(1) + demo + reserve - 1)).unwrap();
    assert!(!host.momenta_on_device && host.memory.total_bytes < alone(1) + demo);
    let error = plan(Some(reserve)).unwrap_err().to_string();
    assert!(error.contains("GiB"), "{error}");
}
