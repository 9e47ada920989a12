# The console and the engine in one image, for a machine with Docker and perhaps one GPU.
#
#   docker build -t llmconsole .
#   docker run -it --rm --gpus all -v llmconsole:/data llmconsole                           # the console
#   docker run --rm --gpus all -v llmconsole:/data llmconsole run start d8 --yes --wait      # a recipe, headless
#   docker run --rm --gpus all -v llmconsole:/data --entrypoint python llmconsole -m engine base_train --depth=8
#   docker run --rm --gpus all -v llmconsole:/data -p 127.0.0.1:8000:8000 -e LLMCONSOLE_SERVE_TOKEN llmconsole \
#       serve --host 0.0.0.0                                                                 # the page, with a token
#   docker run --rm --gpus all llmconsole doctor                                             # the self-test
#   docker run -it --rm --gpus all -v llmconsole:/data --entrypoint bash llmconsole          # a shell
#
# Everything that is made or remembered is in the volume /data. Keys are given with --env-file, never built in.

FROM python:3.12-slim-bookworm AS base
# A C compiler, also at run time: torch.compile builds its kernels with it. An SSH client for `target shell`.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev openssh-client \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
COPY --from=rust:1-slim-bookworm /usr/local/cargo /usr/local/cargo
COPY --from=rust:1-slim-bookworm /usr/local/rustup /usr/local/rustup
ENV PATH=/usr/local/cargo/bin:$PATH RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo \
    UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv
WORKDIR /app
# The dependencies first: they are large and change less often than the program.
COPY pyproject.toml ./
RUN uv sync --no-dev --extra wandb --no-install-project
COPY . .
RUN uv sync --no-dev --extra wandb --no-editable

FROM base
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH LLMCONSOLE_HOME=/data/console NANOCHAT_BASE_DIR=/data/nanochat
RUN useradd --create-home --uid 1000 trainer && install -d -o trainer -g trainer /data
USER trainer
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["llmconsole"]
