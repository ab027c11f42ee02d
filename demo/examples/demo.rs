//! Measures the crate and prints JSON: `demo [params] [peers] [topk] [bits] [runs]`.

use gauntlet_demo::bench::{Setup, run};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|arg| arg.replace('_', "").parse::<usize>());
    let mut next = |default| args.next().unwrap_or(Ok(default));
    let setup = Setup {
        params: next(100_000_000)?,
        peers: next(15)?,
        topk: next(32)?,
        bits: u32::try_from(next(4)?)?,
        runs: next(5)?,
    };
    let start = Instant::now();
    println!("{}", serde_json::to_string_pretty(&run(&setup, &|| start.elapsed())?)?);
    Ok(())
}
