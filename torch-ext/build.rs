//! Compiles the C++ side and tells dependents where libtorch lies.

use std::path::PathBuf;

fn main() {
    // torch-sys says where it found libtorch; its headers lie beside the libraries.
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names its library folder");
    let include =
        PathBuf::from(&lib).parent().expect("libtorch's libraries lie in a folder").join("include");

    println!("cargo:lib={lib}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rerun-if-changed=cpp");

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false) // libtorch's headers have thousands
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        .define("AT_PER_OPERATOR_HEADERS", None) // each operator's own small header: half the compile time
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(["cpp/runtime.cpp", "cpp/autograd.cpp", "cpp/frozen.cpp"])
        .compile("torch_ext");

    // After our archive, so that its symbols are found there.
    for library in ["torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib={library}");
    }
}
