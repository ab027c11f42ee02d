//! What a fat binary holds: machine code for some architectures, and PTX that a driver compiles for later ones.
//!
//! The container is NVIDIA's, as `nvcc --fatbin` of CUDA 13.0 writes it: a header (magic, u16 version, u16 its own
//! size, u64 bytes of all entries), then entries (u16 kind, u16 version, u32 its header's size, u64 size of its
//! content, …, u32 architecture at 28). Fields are little-endian.

/// First word of a fat binary.
const MAGIC: u32 = 0xba55_ed50;

/// Whether code is for one architecture or to be compiled by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// PTX: any architecture from its own on.
    Ptx,
    /// Machine code.
    Machine,
}

/// An entry of a fat binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Machine code or PTX.
    pub form: Form,
    /// Compute capability times ten: 90 for sm_90.
    pub architecture: u32,
}

impl Code {
    /// Whether a device of this compute capability can use it: machine code within its major version, PTX upwards.
    pub fn fits(&self, (major, minor): (i32, i32)) -> bool {
        let device = u32::try_from(10 * major + minor).unwrap_or(0);
        let later = self.architecture <= device;
        match self.form {
            Form::Ptx => later,
            Form::Machine => later && self.architecture / 10 == device / 10,
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.form {
            Form::Ptx => "PTX compute",
            Form::Machine => "sm",
        };
        write!(f, "{name}_{}", self.architecture)
    }
}

/// The entries of a fat binary; empty where it is none.
pub fn contents(image: &[u8]) -> Vec<Code> {
    let mut all = Vec::new();
    if number(image, 0, 4) != Some(u64::from(MAGIC)) {
        return all;
    }
    let mut at = number(image, 6, 2).unwrap_or(0);
    while let Some(code) = usize::try_from(at).ok().and_then(|at| image.get(at..)) {
        let (Some(kind), Some(header), Some(size), Some(architecture)) =
            (number(code, 0, 2), number(code, 4, 4), number(code, 8, 8), number(code, 28, 4))
        else {
            break;
        };
        let form = if kind == 1 { Form::Ptx } else { Form::Machine };
        all.push(Code { form, architecture: u32::try_from(architecture).unwrap_or(0) });
        at = at.saturating_add(header.max(1)).saturating_add(size);
    }
    all
}

/// What a device of this compute capability runs of `image`: machine code before PTX, the newest of each.
pub fn fitting(image: &[u8], capability: (i32, i32)) -> Option<Code> {
    let fit = contents(image).into_iter().filter(|code| code.fits(capability));
    fit.max_by_key(|code| (code.form == Form::Machine, code.architecture))
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&[u8]; 2] = [
        include_bytes!("../../model/kernels/kernels.fatbin"),
        include_bytes!("../../demo/kernels/kernels.fatbin"),
    ];

    #[test]
    fn the_committed_kernels_are_for_80_and_90_and_what_comes_later() {
        for image in ALL {
            let mut found: Vec<String> = contents(image).iter().map(Code::to_string).collect();
            found.sort();
            assert_eq!(found, ["PTX compute_80", "sm_80", "sm_90"]);
            let fit = |major, minor| fitting(image, (major, minor)).map(|code| code.to_string());
            assert_eq!(fit(7, 5), None);
            assert_eq!(fit(8, 0).as_deref(), Some("sm_80"));
            assert_eq!(fit(8, 9).as_deref(), Some("sm_80"));
            assert_eq!(fit(9, 0).as_deref(), Some("sm_90"));
            assert_eq!(fit(10, 0).as_deref(), Some("PTX compute_80"));
        }
    }

    #[test]
    fn other_bytes_hold_nothing_and_cut_ones_end() {
        assert!(contents(b"").is_empty() && contents(b"\x7fELF and more").is_empty());
        let cut = ALL[0].get(..40).unwrap_or_default();
        assert!(contents(cut).is_empty(), "a header that is cut");
        let mut endless = ALL[0].to_vec();
        endless[24..32].fill(0xff);
        assert_eq!(contents(&endless).len(), 1, "a size beyond the end");
    }
}
