# CPU:   docker build -t dd-bench .
# CUDA:  docker build -t dd-bench:cuda --build-arg WHEELS=cu128 .
#        docker run --rm --gpus all dd-bench:cuda
# A container runs `make demo`. Another command: docker run --rm -v "$PWD/runs:/dd_bench/runs" dd-bench dd-bench list
FROM python:3.12-slim

ARG WHEELS=cpu

RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /dd_bench
ENV VENV=/opt/venv PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1

# A layer of its own: torch is the largest part, and changes rarely.
RUN python -m venv "$VENV" \
    && "$VENV/bin/python" -m pip install torch torchvision --index-url "https://download.pytorch.org/whl/$WHEELS"
COPY . .
RUN make install

CMD ["make", "demo"]
