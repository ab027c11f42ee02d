//! Without a driver the program says what is missing; with one, it names its devices.

use gauntlet_gpu::driver::{Driver, devices};

#[test]
fn a_machine_without_a_driver_is_told_what_to_install() {
    match devices() {
        Ok(found) => assert!(found.iter().all(|device| !device.name.is_empty() && device.memory > 0)),
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("driver") || message.contains("CUDA"), "{message}");
            assert!(Driver::open(0, &[], &[]).is_err());
        }
    }
}
