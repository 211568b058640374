# Every target does the set-up it needs; nothing has to be exported or installed by hand first.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARIES   := $(TARGET_DIR)/release
PYTHON     ?= python3

DEMO     = scripts/demo.sh $(BINARIES)
# The peer's script and a Python that has its packages; see BENCHMARKS.md.
PEER    ?=
BENCH    = $(PYTHON) scripts/bench.py --peer '$(PEER)'
FIXTURES = $(PYTHON) scripts/make_fixtures.py

# torch-sys listens to these; left over from other work, they would lead it away from the libtorch of `make setup`.
unexport LIBTORCH_USE_PYTORCH LIBTORCH_INCLUDE LIBTORCH_LIB LIBTORCH_STATIC LIBTORCH_CXX11_ABI LD_LIBRARY_PATH
ifeq ($(strip $(LIBTORCH)),)
unexport LIBTORCH
endif

.DEFAULT_GOAL := help
.PHONY: help setup build demo lint test bench fixtures clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

setup: ## check the tools; find, link or install libtorch (.libtorch)
	@scripts/setup.sh

build: setup ## build target/release/personalize and toybox
	cargo build --workspace --release

demo: build ## learn a teapot from five photos and draw it elsewhere, with the built-in base
	@$(DEMO)

lint: setup ## rustfmt and clippy, warnings are errors
	@scripts/lint.sh

# All in release: one compilation of libtorch's C++ glue serves build, clippy and tests.
test: lint ## set-up, lints and all tests, offline once libtorch is here
	@scripts/test_setup.sh
	cargo test --workspace --release

bench: build ## time and memory beside Python's diffusers: make bench PEER=FOLDER PYTHON=...
	@test -n '$(PEER)' || { echo "bench: PEER is not given; pass PEER=FOLDER of peer_sd15.py" >&2; exit 2; }
	cargo build --release -p pipelines --example bench
	$(BENCH)

fixtures: ## make the parity fixtures again, with Python's diffusers
	$(FIXTURES)

clean: ## remove what was built and drawn; libtorch stays
	cargo clean
	rm -rf out .libtorch.tmp .libtorch.old.tmp

distclean: clean ## remove libtorch too
	rm -rf .libtorch
