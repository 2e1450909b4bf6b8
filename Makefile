# make check         style, types, and the tests that need nothing but Python
# make test          every test
# make conformance   side by side with the real qemu-img, virsh and virt-install
# make formats       find out again what docs/compatibility/formats.md says of each format
# make iotests       QEMU's own suite on our tools; TESTS="qcow2 061" picks some
# make libvirt-data  libvirt's own test data through our model; TESTS="networkxml2xml" picks some
# make virt-install-data  virt-manager's own tests of virt-install, virt-xml and virt-clone on ours
# make client-suites tests of libvirt's clients on ours; TESTS="libvirt-python DIR" names one, and a copy of its source
# make bench         timings beside qemu-img
# make soak          the random tests with twenty times their seeds: most of an hour (SOAK=100 for more)
.POSIX:
.PHONY: check test conformance formats iotests libvirt-data virt-install-data client-suites bench soak

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

formats:
	HOSTEL_RECORD=1 ./test -n 0 tests/conformance/test_format_matrix.py

iotests:
	$(BIN)/python tools/iotests.py $(TESTS)

libvirt-data:
	PYTHONPATH=tools $(BIN)/python -m libvirt_data $(TESTS)

virt-install-data:
	PYTHONPATH=tools:tests $(BIN)/python -m virt_install_data $(TESTS)

client-suites:
	PYTHONPATH=tools:tests $(BIN)/python -m client_suites $(TESTS)

bench:
	./test -s tests/bench

SOAK = 20

soak:
	HOSTEL_SOAK=$(SOAK) ./test tests/property tests/fuzz tests/conformance/test_qcow2_crash.py \
		tests/conformance/test_format_crash.py tests/conformance/test_luks_keyslots.py tests/conformance/test_killed_writers.py \
		tests/conformance/test_qcow2_grid.py tests/conformance/test_qcow2_repair.py tests/e2e/test_daemon_lives.py tests/e2e/test_walk.py tests/e2e/test_guest_load.py tests/e2e/test_guest_trim.py
