# One image for every service; the command says which (see docker-compose.yml).
# The Debian release is named: its pg_dump must be no older than the server of docker-compose.yml (17).
FROM python:3.11.14-slim-trixie
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgomp1 nginx-light postgresql-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 radia
WORKDIR /opt/radia
COPY requirements.lock pyproject.toml README.md ./
COPY radia radia
COPY pipelines pipelines
COPY workspace.yaml params.yaml dvc.yaml ./
RUN pip install --no-cache-dir uv \
    && uv pip install --system --no-cache --compile-bytecode --constraint requirements.lock '.[postgres]' \
    && pip uninstall --yes uv
# A volume begins as what the image has in its place: these belong to the one who writes there.
RUN for kind in inbox landing quarantine mlartifacts dagster web; do mkdir -p "/data/$kind"; done \
    && mkdir /anchor /backup \
    && chown -R radia:radia /data /anchor /backup \
    && chmod -R u=rwX,go= /data /anchor /backup
USER radia
ENV RADIA_DATA=/data
CMD ["radia", "--help"]
