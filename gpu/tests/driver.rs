//! Without a driver the program says what is missing; with one, it names its devices.

use std::path::Path;

use gauntlet_gpu::driver::{Driver, devices, library_folders};

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

#[test]
fn libraries_are_looked_for_where_the_environment_says() {
    let home = std::env::temp_dir().join(format!("gauntlet-gpu-{}", std::process::id()));
    let wheel = home.join("lib/python3.12/site-packages/nvidia/cu13/lib");
    std::fs::create_dir_all(&wheel).unwrap();
    let venv = home.to_string_lossy().into_owned();
    let folders = library_folders(|name| match name {
        "CUDA_HOME" => Some("/opt/cuda".into()),
        "VIRTUAL_ENV" => Some(venv.clone()),
        _ => None,
    });
    std::fs::remove_dir_all(&home).unwrap();
    assert_eq!(folders[0], Path::new("/opt/cuda/lib64"));
    assert!(folders.contains(&wheel));
    assert!(folders.contains(&Path::new("/usr/local/cuda/lib64").to_path_buf()));
}
