# The commands a person needs. CI calls these and nothing else.

ONNXRUNTIME := target/onnxruntime/libonnxruntime.so.1.31.1
PORT ?= 8080

.PHONY: run build test e2e gpu-test bench check clean loadtest-program

## Serve the shipped iris model on PORT and say how to ask it.
run: build
	@printf '%s\n' 'Serving iris; ask it with' \
		"  curl localhost:$(PORT)/v1/models/iris:predict -d '{\"instances\": [[5.1, 3.5, 1.4, 0.2]]}'" \
		"  curl localhost:$(PORT)/v2/models/iris/infer -d '{\"inputs\": [{\"name\": \"float_input\", \"shape\": [1, 4], \"datatype\": \"FP32\", \"data\": [5.1, 3.5, 1.4, 0.2]}]}'" \
		"  curl localhost:$(PORT)/metrics"
	@exec target/release/stoker serve --model_name iris --model_dir tests/models/iris --http_port $(PORT) --listen_when_ready

## Leave target/release/stoker and the library it needs.
build: $(ONNXRUNTIME)
	STOKER_COMMIT=$${STOKER_COMMIT:-$$(git rev-parse --short HEAD 2>/dev/null)} cargo build --release --locked

$(ONNXRUNTIME): runtimes/fetch-onnxruntime
	runtimes/fetch-onnxruntime target/onnxruntime

## Everything that needs no other server: style, lints, unit, property, golden, lifecycle and simulation tests.
test: check $(ONNXRUNTIME)
	cargo test --workspace --locked

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

## The same binary against real parts: MinIO, KServe's and Triton's own clients, and the load generator.
e2e: build loadtest-program
	tests/e2e/run

## On a GPU: answers, workers that die, memory that comes back. Without one it says so, and is well.
gpu-test: build
	tests/gpu/run

loadtest-program:
	cargo build --release --locked -p loadtest

## What is promised of scheduling and how far the HTTP path is from a bare hyper server. Needs two idle cores.
bench: build loadtest-program
	test -x target/tools/bench-venv/bin/python || python3 -m venv target/tools/bench-venv
	target/tools/bench-venv/bin/pip install -q -r loadtest/saturate/requirements.txt
	target/tools/bench-venv/bin/python loadtest/bench.py
	target/release/loadtest http-floor --server-bin target/release/stoker --model-dir tests/models/iris \
		--connections 1,64 --seconds 10 --rounds 5 --out loadtest/runs

clean:
	cargo clean
