# The prediction server. Research use only, not a medical device.
#
#   docker build --tag gliomark-server .
#   docker run --rm --network host --volume gliomark-data:/data gliomark-server
#
# For other computers the server needs TLS and a token: docs/how-to/server.md, "In a container".

ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
ARG TORCH=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/gliomark
ENV PATH=/opt/gliomark/bin:$PATH
# the CPU build of PyTorch: the other one is larger by several gigabytes
RUN pip install --index-url="${TORCH_INDEX}" "torch==${TORCH}"
WORKDIR /source
COPY pyproject.toml README.md LICENSE MODEL_CARD.md ./
COPY src ./src
# the package itself
# hadolint ignore=DL3013
RUN pip install ".[server]"

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="gliomark server" \
      org.opencontainers.image.description="Segments glioma on preoperative MRI and predicts molecular markers. Research use only." \
      org.opencontainers.image.source="https://github.com/gliomark/gliomark" \
      org.opencontainers.image.licenses="Apache-2.0"
# OpenMP for LightGBM
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1=12.2.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 gliomark \
    && install --directory --owner gliomark --group gliomark --mode 0700 /data
COPY --from=build /opt/gliomark /opt/gliomark
COPY scripts/check_health.py /opt/check_health.py
ENV PATH=/opt/gliomark/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GLIOMARK_CACHE=/data/cache
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8765 11112
# asks /api/health
HEALTHCHECK --interval=30s --timeout=15s --start-period=120s --retries=3 \
    CMD ["python", "/opt/check_health.py"]
ENTRYPOINT ["gliomark"]
CMD ["serve", "--data", "/data"]
