//! Without a driver the program says what is missing; with one, it names its devices.

use std::path::Path;
use std::process::Command;

use gauntlet_gpu::driver::{Driver, devices, library_folders, nccl_version};

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

#[test]
fn nccl_that_is_missing_or_broken_is_named_with_what_to_do() {
    let folder = std::env::temp_dir().join(format!("gauntlet-nccl-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    match nccl_version(&[]) {
        Ok(version) => assert!(version.starts_with("2."), "{version}"),
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("libnccl.so.2") && message.contains("pip install"), "{message}");
            let file = folder.join("libnccl.so.2");
            std::fs::write(&file, "no library").unwrap();
            let message = nccl_version(std::slice::from_ref(&folder)).unwrap_err().to_string();
            assert!(message.contains(&file.display().to_string()), "{message}");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A library of the same functions, so that search and binding are tested without NVIDIA's.
#[test]
fn the_first_nccl_that_has_all_functions_is_taken() {
    if std::env::var_os("GAUNTLET_TEST_DEVICE").is_some() {
        return; // a GPU machine has no compiler
    }
    let folder = std::env::temp_dir().join(format!("gauntlet-nccls-{}", std::process::id()));
    let functions =
        ["GetErrorString", "CommInitAll", "AllReduce", "Broadcast", "GroupStart", "GroupEnd", "CommDestroy"];
    let compile = |name: &str, code: u32, last: &str| {
        let place = folder.join(name);
        std::fs::create_dir_all(&place).unwrap();
        let mut source = format!("extern \"C\" int ncclGetVersion(int *v) {{ *v = {code}; return 0; }}\n");
        for function in functions.iter().chain([&last]) {
            source += &format!("extern \"C\" int nccl{function}() {{ return 1; }}\n");
        }
        let file = place.join("nccl.cpp");
        std::fs::write(&file, source).unwrap();
        let compiler = std::env::var("GAUNTLET_KERNEL_CXX").unwrap_or_else(|_| "g++".into());
        let out = place.join("libnccl.so.2");
        let status = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&out).arg(&file).status();
        assert!(status.unwrap().success());
        place
    };
    let (short, old, new) = (
        compile("short", 22_803, "Nothing"),
        compile("old", 2_804, "CommAbort"),
        compile("new", 22_803, "CommAbort"),
    );
    assert_eq!(nccl_version(&[short.clone(), new.clone(), old.clone()]).unwrap(), "2.28.3");
    assert_eq!(nccl_version(&[old, new]).unwrap(), "2.8.4");
    let message =
        nccl_version(&[short]).map_or_else(|e| e.to_string(), |_| "libnccl.so.2 ncclCommAbort".into());
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(message.contains("ncclCommAbort"), "{message}");
}
