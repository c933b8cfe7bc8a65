//! The kernels as they were compiled, by `kernels/images.py`, and which of them are for a GPU.

use std::fmt;

/// What one source became.
pub struct Source {
    pub kernels: &'static [&'static str],
    /// Ascending.
    images: &'static [((i32, i32), &'static [u8])],
    /// For the driver to compile, ending with a zero.
    text: &'static str,
}

/// Machine code for GPUs of one compute capability, or text that the driver compiles for others.
#[derive(Clone, Copy)]
pub enum Image {
    Code { capability: (i32, i32), bytes: &'static [u8] },
    Text(&'static str),
}

impl Image {
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Image::Code { bytes, .. } => bytes,
            Image::Text(text) => text.as_bytes(),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Image::Code { capability: (major, minor), .. } => write!(f, "sm_{major}{minor}"),
            Image::Text(_) => f.write_str("compute_80"),
        }
    }
}

impl Source {
    /// Code runs on GPUs of its major capability whose minor one is no less.
    pub fn image_for(&self, (major, minor): (i32, i32)) -> Image {
        let runs = |capability: (i32, i32)| capability.0 == major && capability.1 <= minor;
        let found = self.images.iter().rev().find(|(capability, _)| runs(*capability));
        found.map_or(Image::Text(self.text), |(capability, bytes)| Image::Code { capability: *capability, bytes })
    }
}

macro_rules! source {
    ($name:literal, $($kernel:literal),+) => {
        Source {
            kernels: &[$($kernel),+],
            images: &[
                ((8, 0), include_bytes!(concat!("../../kernels/images/", $name, ".sm_80.cubin"))),
                ((8, 6), include_bytes!(concat!("../../kernels/images/", $name, ".sm_86.cubin"))),
                ((8, 9), include_bytes!(concat!("../../kernels/images/", $name, ".sm_89.cubin"))),
                ((9, 0), include_bytes!(concat!("../../kernels/images/", $name, ".sm_90.cubin"))),
                ((10, 0), include_bytes!(concat!("../../kernels/images/", $name, ".sm_100.cubin"))),
            ],
            text: concat!(include_str!(concat!("../../kernels/images/", $name, ".compute_80.ptx")), "\0"),
        }
    };
}

pub const SOURCES: [Source; 4] = [
    source!("batch", "batch_gather", "batch_split"),
    source!("classes", "classes"),
    source!(
        "forest",
        "forest_rows_narrow_f32",
        "forest_rows_narrow_f64",
        "forest_rows_wide_f32",
        "forest_rows_wide_f64",
        "forest_leaves_narrow",
        "forest_leaves_wide",
        "forest_sums_f32",
        "forest_sums_f64"
    ),
    source!("shap", "forest_contributions"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_gets_the_code_that_runs_there() {
        let chosen = |capability| SOURCES[0].image_for(capability).to_string();
        assert_eq!(chosen((9, 0)), "sm_90");
        assert_eq!(chosen((8, 7)), "sm_86", "Orin runs what A10s run");
        assert_eq!(chosen((10, 3)), "sm_100");
        assert_eq!(chosen((12, 0)), "compute_80");
    }
}
