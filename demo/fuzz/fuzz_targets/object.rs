//! Whole objects, with a mutator that repairs payload length, hotkey, hash and signature: what a registered peer
//! with a valid key can send.
#![no_main]

use gauntlet_demo::object::{self, HEADER, Header, KIND_DEMO, TRAILER};
use gauntlet_demo_fuzz::{FORMATS, Meter, check};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};
use std::sync::LazyLock;

#[global_allocator]
static METER: Meter = Meter;

static KEY: LazyLock<Keypair> =
    LazyLock::new(|| MiniSecretKey::from_bytes(&[3; 32]).unwrap().expand_to_keypair(ExpansionMode::Ed25519));

fuzz_target!(|data: &[u8]| {
    let Ok(object) = object::open(data) else { return };
    assert_eq!(object.header.hotkey, KEY.public.to_bytes());
    // Everything but the signature follows from the contents.
    let resealed = object::seal_with(&object.header, object.payload, |_| [0; 64]);
    assert_eq!(resealed[..resealed.len() - 64], data[..data.len() - 64]);
    // The window chooses the format, so that the mutator reaches all of them.
    let format = &FORMATS[object.header.window as usize % FORMATS.len()];
    if object.header.check(KIND_DEMO, &[0; 32], object.header.window, &object.header.hotkey).is_ok() {
        let _ = check(format, object.payload);
    }
});

// Mutates `kind ‖ run's last byte ‖ window ‖ count ‖ payload`, then writes the object around it. One time in 32 the
// bytes are left unrepaired.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed.is_multiple_of(32) {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut header =
        Header { kind: KIND_DEMO, run: [0; 32], window: 0, hotkey: [0; 32], count: 1, state_tag: [0; 32] };
    let mut payload = Vec::new();
    // What was sealed before, without the cost of verifying it again.
    if size >= HEADER + TRAILER {
        header.kind = data[6];
        header.run[31] = data[38];
        header.window = u64::from(data[39]);
        payload.extend(&data[HEADER..size - TRAILER]);
    }
    let room = max_size.saturating_sub(HEADER + TRAILER);
    if seed % 8 == 1 {
        header.kind = (seed >> 8) as u8 % 3;
        header.run[31] = u8::from(seed >> 16 & 15 == 0);
        header.window = u64::from((seed >> 20) as u8);
    }
    let len = payload.len();
    payload.resize(room.max(len), 0);
    let len = fuzzer_mutate(&mut payload, len, room);
    let object = object::seal(&header, &payload[..len], &KEY);
    match data.get_mut(..object.len()) {
        Some(out) => {
            out.copy_from_slice(&object);
            object.len()
        }
        None => size,
    }
});
