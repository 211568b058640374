//! The build script of every package that owns a binary or a test.
//!
//! Link arguments do not travel from a dependency to its users, so each package that is linked into an
//! executable says for itself where libtorch lies. With that, nothing here needs `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-env-changed=DEP_TORCH_EXT_LIB");
    if let Ok(lib) = std::env::var("DEP_TORCH_EXT_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
