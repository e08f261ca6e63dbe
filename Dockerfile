# syntax=docker/dockerfile:1
# One image for the API and the workers. As it is, torch comes from PyPI and runs on NVIDIA GPUs and on CPU;
# for a small image without CUDA: --build-arg TORCH_INDEX=<PyTorch's index of CPU builds>

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/epochd
ENV PATH=/opt/epochd/bin:$PATH
# torch first and alone: a change of the code then rebuilds seconds' worth of layers, not gigabytes.
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY migrations ./migrations
COPY service ./service
RUN pip install --constraint constraints.txt '.[server]'

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 epochd \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin epochd \
    && install --directory --owner=epochd --group=epochd /data
COPY --from=build /opt/epochd /opt/epochd
ENV PATH=/opt/epochd/bin:$PATH PYTHONUNBUFFERED=1 EPOCHD_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('EPOCHD_PORT', '8000') + '/healthz', timeout=4)"]
ENTRYPOINT ["epochd"]
# Without EPOCHD_API_KEYS it refuses to start, for it would be open to the network.
CMD ["serve", "--host", "0.0.0.0"]
