# One image for every service; the command says which (see docker-compose.yml).
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 radia
WORKDIR /opt/radia
COPY requirements.lock pyproject.toml README.md ./
COPY radia radia
COPY pipelines pipelines
COPY workspace.yaml params.yaml dvc.yaml ./
RUN pip install --no-cache-dir uv \
    && uv pip install --system --compile-bytecode --constraint requirements.lock '.[postgres]'
USER radia
ENV RADIA_DATA=/data DAGSTER_HOME=/data/dagster
CMD ["radia", "--help"]
