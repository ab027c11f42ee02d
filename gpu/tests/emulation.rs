//! The emulated device computes what a GPU would, and refuses what a GPU would not forgive.
#![allow(unsafe_code)] // launches: arguments point to live buffers of the sizes the kernels use
#![allow(clippy::unwrap_used)] // test helpers

use std::path::Path;

use gauntlet_gpu::emulated::{Emulated, Memory};
use gauntlet_gpu::{Arg, Device, Grid};

fn device() -> Emulated {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    Emulated::new(&[&kernels], Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

fn put(device: &Emulated, bytes: &[u8]) -> Memory {
    let mem = device.alloc(bytes.len()).unwrap();
    unsafe { device.upload(bytes, device.address(&mem)) }.unwrap();
    mem
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_ne_bytes).collect()
}

fn get(device: &Emulated, mem: &Memory, n: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * n];
    unsafe { device.download(device.address(mem), &mut bytes) }.unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn warps_meet_at_barriers_and_shuffle() {
    let device = device();
    let x = put(&device, &floats((0..1024u16).map(f32::from)));
    let out = device.alloc(16).unwrap();
    let kernel = device.kernel("probe_block_sum").unwrap();
    let args = [Arg::Ptr(device.address(&x)), Arg::Ptr(device.address(&out))];
    unsafe { device.launch(kernel, Grid::new(4, 256), &args) }.unwrap();
    let sum = |first: u16| (first..first + 256).map(f32::from).sum::<f32>();
    assert_eq!(get(&device, &out, 4), [sum(0), sum(256), sum(512), sum(768)]);
}

#[test]
fn fragments_and_copies_lie_as_the_ptx_manual_says() {
    let device = device();
    // Small integers are exact in bf16 and their products and sums in f32.
    let value = |i: usize, by: usize| (i * by % 17) as f32 - 8.0;
    let (a, b): (Vec<f32>, Vec<f32>) =
        ((0..256).map(|i| value(i, 5)).collect(), (0..128).map(|i| value(i, 7)).collect());
    let half =
        |v: &[f32]| v.iter().flat_map(|f| ((f.to_bits() >> 16) as u16).to_ne_bytes()).collect::<Vec<u8>>();
    let (da, db, out) = (put(&device, &half(&a)), put(&device, &half(&b)), device.alloc(512).unwrap());
    let args = [&da, &db, &out].map(|mem| Arg::Ptr(device.address(mem)));
    let grid = Grid { shared: 1024, ..Grid::new(1, 32) };
    unsafe { device.launch(device.kernel("probe_mma").unwrap(), grid, &args) }.unwrap();
    let expected: Vec<f32> =
        (0..128).map(|i| (0..16).map(|k| a[i / 8 * 16 + k] * b[k * 8 + i % 8]).sum()).collect();
    assert_eq!(get(&device, &out, 128), expected);
}

#[test]
fn a_copy_that_is_not_waited_for_reads_nan() {
    let device = device();
    let (x, out) = (put(&device, &floats([1.0; 128])), device.alloc(128).unwrap());
    let args = [Arg::Ptr(device.address(&x)), Arg::Ptr(device.address(&out))];
    let grid = Grid { shared: 512, ..Grid::new(1, 32) };
    unsafe { device.launch(device.kernel("probe_unwaited").unwrap(), grid, &args) }.unwrap();
    assert!(get(&device, &out, 32).iter().all(|v| v.is_nan()));
}

#[test]
fn a_diverged_warp_is_refused() {
    let device = device();
    let out = device.alloc(128).unwrap();
    let kernel = device.kernel("probe_diverged").unwrap();
    let launched = unsafe { device.launch(kernel, Grid::new(1, 32), &[Arg::Ptr(device.address(&out))]) };
    let message = launched.unwrap_err().to_string();
    assert!(message.contains("probe_diverged") && message.contains("misses a warp operation"), "{message}");
}

#[test]
fn writes_outside_of_a_buffer_are_seen() {
    let device = device();
    let out = device.alloc(4 * 30).unwrap();
    let kernel = device.kernel("probe_overrun").unwrap();
    let launch = |n: i32| {
        let args = [Arg::Ptr(device.address(&out)), Arg::I32(n)];
        unsafe { device.launch(kernel, Grid::new(1, 30), &args) }.unwrap();
    };
    launch(29);
    assert!(out.intact());
    launch(30);
    assert!(!out.intact());
    std::mem::forget(out); // dropping it would fail the test, as it should
}

#[test]
fn arguments_are_compared_with_the_declaration() {
    let device = device();
    let kernel = device.kernel("probe_block_sum").unwrap();
    let launched = unsafe { device.launch(kernel, Grid::new(1, 256), &[Arg::Ptr(0), Arg::I32(1)]) };
    assert!(launched.unwrap_err().to_string().contains("declared with"));
    assert!(device.kernel("no_such_kernel").is_err());
}
