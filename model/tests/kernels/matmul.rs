//! Products in all orders, replacing and adding, whole tiles and parts of them, aligned rows and not.

use gauntlet_model::engine::cuda::{Bf16, Precision};
use gauntlet_model::engine::{Backend, Order, Product, View, ViewMut, Write};

use super::*;

both!(product_of_activations, product_in_f32, part_of_a_buffer);

/// The last has more blocks of rows than a group of the fast kernel's order.
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (128, 128, 32), (130, 72, 40), (37, 264, 136), (65, 33, 17), (7, 131, 70), (1100, 136, 16)];
/// As many blocks as products of a real model have: minutes on the emulated device, nothing on a GPU.
const LARGE: [(usize, usize, usize); 2] = [(1160, 520, 72), (2048, 136, 40)];
const ORDERS: [(Order, Order); 4] = [
    (Order::Normal, Order::Normal),
    (Order::Normal, Order::Transposed),
    (Order::Transposed, Order::Normal),
    (Order::Transposed, Order::Transposed),
];

fn reference(p: Product, a: &[f32], b: &[f32], old: &[f32]) -> Vec<f64> {
    let at = |values: &[f32], order, (row, rows), (column, columns)| -> f64 {
        f64::from(values[if order == Order::Normal { row * columns + column } else { column * rows + row }])
    };
    let element = |i: usize| {
        let (row, column) = (i / p.n, i % p.n);
        let sum: f64 =
            (0..p.k).map(|l| at(a, p.a, (row, p.m), (l, p.k)) * at(b, p.b, (l, p.k), (column, p.n))).sum();
        if p.write == Write::Add { sum + f64::from(old[i]) } else { sum }
    };
    (0..p.m * p.n).map(element).collect()
}

fn products(shapes: &'static [(usize, usize, usize)]) -> impl Iterator<Item = Product> {
    shapes.iter().flat_map(|&(m, n, k)| {
        ORDERS.into_iter().flat_map(move |(a, b)| {
            [Write::Set, Write::Add].into_iter().map(move |write| Product { m, n, k, a, b, write })
        })
    })
}

fn product_of_activations<P: Precision>() {
    activations::<P>(&SHAPES);
}

fn product_in_f32<P: Precision>() {
    in_f32::<P>(&SHAPES);
}

#[test]
fn heavy_products_of_many_blocks() {
    activations::<Bf16>(&LARGE);
    in_f32::<Bf16>(&LARGE);
}

fn activations<P: Precision>(shapes: &'static [(usize, usize, usize)]) {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    for p in products(shapes) {
        let (a, b) = (random.acts::<P>(p.m * p.k, 1.0), random.acts::<P>(p.k * p.n, 1.0));
        let old = random.acts::<P>(p.m * p.n, 1.0);
        let (da, db) = (put_act(&cuda, &a), put_act(&cuda, &b));
        let mut out = if p.write == Write::Add { put_act(&cuda, &old) } else { poison_act(&cuda, p.m * p.n) };
        cuda.matmul(p, all(&da), all(&db), all_mut(&mut out));
        close(&format!("{p:?}"), &get_act(&cuda, &out), &reference(p, &a, &b, &old), limit::<P>());
    }
}

fn in_f32<P: Precision>(shapes: &'static [(usize, usize, usize)]) {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    for p in products(shapes) {
        let (a, b) = (random.acts::<P>(p.m * p.k, 1.0), random.acts::<P>(p.k * p.n, 1.0));
        let old = random.values(p.m * p.n, 1.0);
        let (da, db) = (put_act(&cuda, &a), put_act(&cuda, &b));
        let mut out = if p.write == Write::Add { put(&cuda, &old) } else { poison(&cuda, p.m * p.n) };
        cuda.matmul_f32(p, all(&da), all(&db), all_mut(&mut out));
        // Sums are f32 in both precisions.
        close(&format!("{p:?}"), &get(&cuda, &out), &reference(p, &a, &b, &old), 1e-5);
    }
}

/// Weights begin anywhere in θ; nothing around the output is touched.
fn part_of_a_buffer<P: Precision>() {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    for start in [8, 3] {
        let p = Product { m: 20, n: 24, k: 16, a: Order::Normal, b: Order::Transposed, write: Write::Set };
        let (a, b) = (random.acts::<P>(p.m * p.k, 1.0), random.acts::<P>(start + p.k * p.n, 1.0));
        let (da, db) = (put_act(&cuda, &a), put_act(&cuda, &b));
        let mut out = put_act(&cuda, &vec![7.0; p.m * p.n + 2 * start]);
        let weights = View { buf: &db, start, len: p.k * p.n };
        cuda.matmul(p, all(&da), weights, ViewMut { buf: &mut out, start, len: p.m * p.n });
        let out = get_act(&cuda, &out);
        let (before, rest) = out.split_at(start);
        let (written, after) = rest.split_at(p.m * p.n);
        close("part", written, &reference(p, &a, &b[start..], &[]), limit::<P>());
        assert!(before.iter().chain(after).all(|&v| v == 7.0));
    }
}

#[test]
fn a_view_too_short_is_refused() {
    let cuda = cuda::<gauntlet_model::engine::cuda::F32>();
    let (a, mut out) = (put_act(&cuda, &[1.0; 8]), put_act(&cuda, &[0.0; 4]));
    let p = Product { m: 2, n: 3, k: 4, a: Order::Normal, b: Order::Normal, write: Write::Set };
    cuda.matmul(p, all(&a), all(&a), all_mut(&mut out));
    let error = cuda.download_act(all(&out), &mut [0.0; 4]).unwrap_err();
    assert!(error.to_string().contains("of a buffer of"), "{error}");
}
