# make check         style, types, and the tests that need nothing but Python
# make test          every test
# make conformance   side by side with the real qemu-img, virsh and virt-install
# make bench         timings beside qemu-img
.POSIX:
.PHONY: check test conformance bench

BIN = .venv/bin

check:
	./test --quick --setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	./test --quick -q

test:
	./test

conformance:
	./test tests/conformance

bench:
	./test -s tests/bench
