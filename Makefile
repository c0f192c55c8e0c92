# Mesh: five things to do. `make demo` and `make test` are all a newcomer needs; they install what is missing first.
SHELL := /bin/bash
CONFIG ?= Release

.PHONY: build bpf programs setup demo test bench lint clean

build: setup bpf programs

# Debian packages; quiet when there is nothing to do.
setup:
	@deploy/setup.sh

bpf:
	@$(MAKE) --no-print-directory -C bpf OUT=$(CURDIR)/out/bpf

programs:
	@deploy/build-programs.sh

demo: build
	@out/bin/mesh demo

test: build
	@tests/run.sh

bench: build
	@tests/bench.sh

lint: setup bpf
	dotnet restore Mesh.sln --verbosity quiet
	dotnet format Mesh.sln --verify-no-changes --no-restore
	dotnet build Mesh.sln -c $(CONFIG) -v quiet --nologo --no-restore
	@$(MAKE) --no-print-directory -C bpf format-check

clean:
	rm -rf out
