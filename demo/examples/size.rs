//! Size of a 1.2B model's submission for each codebook: `size [topk] [windows]`, a JSON line each.
#![allow(clippy::print_stdout)] // a tool for people

use gauntlet_demo::Codebook;
use gauntlet_demo::size::model_size;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let mut next = |default| args.next().unwrap_or(Ok(default));
    let (topk, windows) = (next(32)?, next(6)? as u64);
    // Hidden 2048, 16 layers, intermediate 8192, vocabulary 32,000, untied: 1,204,881,408 parameters.
    let shapes = [
        (2, vec![32_000, 2048]),
        (64, vec![2048, 2048]),
        (32, vec![8192, 2048]),
        (16, vec![2048, 8192]),
        (33, vec![2048]),
    ];
    for bits in [1, 2, 3, 4, 8, 32] {
        let size = model_size(&shapes, topk, &Codebook::with_bits(bits)?, windows)?;
        println!("{{\"bits\":{bits},\"size\":{}}}", serde_json::to_string(&size)?);
    }
    Ok(())
}
