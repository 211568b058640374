//! Compiles the C++ side and tells dependents where libtorch lies.
fn main() {
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names its library folder");
    println!("cargo:lib={lib}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}
