#!/usr/bin/env bash
# Called by `make demo` with the path of the built binary.
"${1:?usage: scripts/demo.sh BINARY}" --help
